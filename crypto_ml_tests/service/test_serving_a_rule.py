"""Over REST a model with a serving rule says beside the open what its files say, and nothing where there is nothing."""

import csv
import io

import pytest

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml.forecasting.scoring import score_rows
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import KNOWN, market, relative_model
from crypto_ml_tests.service.asking import Asking, records
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import upload


def test_json_csv_and_forecasts_have_the_interval_and_the_range(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_ml.service.watch.LOOK_EVERY", 0.2)
    rows = market({"LONG": 40, "SHORT": 40}, 3)
    rows = rows[(rows["symbol"] == "LONG") | (rows.groupby("symbol").cumcount() >= 35)]
    last = rows["date"] == rows["date"].max()
    expected = score_rows(rows, relative_model(), "one_step")[last.to_numpy()].set_index("symbol")
    with Asking.on(store, bundle=relative_model()) as asking:
        assert asking.get("/v1/model")["target"] == "relative_gap"
        assert asking.get("/v1/model")["series"] == len(KNOWN)
        asking.drop(history=upload(rows[~last]))
        forecast_now(asking.road)
        answer = asking.predict(records(rows[last])).json()
        said = {row["symbol"]: row for row in answer["predictions"]}
        long = expected.loc["LONG", ["pred_open", *BESIDE.names]].to_dict()
        assert {name: said["LONG"][name] for name in long} == long
        assert [said["SHORT"][name] for name in BESIDE.names] == [None] * 4
        assert asking.get(answer["links"]["self"])["predictions"] == answer["predictions"]
        one = asking.get(f"/v1/predictions/{said['LONG']['prediction_id']}/trace")
        assert one["row"]["made_of"]["pred_low"] == long["pred_low"]
        in_csv = csv.DictReader(io.StringIO(asking.predict(records(rows[last]), accept="text/csv").text))
        back = {row["symbol"]: row for row in in_csv}
        assert {name: float(back["LONG"][name]) for name in long} == long
        assert [back["SHORT"][name] for name in BESIDE.names] == [""] * 4
        forecasts = {row["symbol"]: row for row in asking.get("/v1/forecasts")["forecasts"]}
        assert {name: forecasts["LONG"][name] for name in long} == long
        assert [forecasts["SHORT"][name] for name in BESIDE.names] == [None] * 4
        assert asking.get("/v1/forecasts/LONG") == forecasts["LONG"]
