"""A forecast is traced to the lines it was made from and comes out again; whatever is not as it was is named."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from crypto_ml.audit.forecast_replay import replay
from crypto_ml.audit.forecast_trace import lines, trace
from crypto_ml.audit.references import UnknownAnswer, resolve
from crypto_ml.cli import main
from crypto_ml.forecasting.features import feature_block
from crypto_ml.forecasting.inference import Network
from crypto_ml.ledger.forecasts import document, forecast_receipt_schema, read_forecast_receipt
from crypto_ml.ledger.formats.reading import RecordTooNew
from crypto_ml.ledger.layout import forecast_receipt_key
from crypto_ml.ledger.receipts import sealed
from crypto_ml.storage.objects import ORDER, ObjectStore
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.audit.test_replay import edited, flipped, rewrite_log
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.golden.evidence import restore
from crypto_ml_tests.stages.forecasts import forecast_now, read, stands
from crypto_ml_tests.stages.road import Road, upload

TARGET = date(2018, 1, 13)


@pytest.fixture
def road(store: ObjectStore) -> Road:
    """Two deliveries of a coin the model knows and one it does not, and a coin that stopped; then a forecast."""
    made = Road(store)
    rows = market({"BTC": 12, "NEW": 12, "ETH": 9})
    made.drop(first=upload(rows[rows["date"] < "2018-01-12"]))
    made.answer_new()
    made.drop(second=upload(rows[rows["date"] >= "2018-01-12"]))
    made.answer_new()
    forecast_now(made)
    return made


def verdict(road: Road, name: str = "forecasts/latest.csv") -> str:
    return str(replay(resolve(name, road.store).answer_id, road.store))


def test_every_way_of_naming_a_number_leads_to_the_same_one(road: Road) -> None:
    row = read(road.store).set_index("symbol").loc["NEW"]
    prediction_id = str(row["prediction_id"])
    named = [
        resolve(prediction_id, road.store),
        *(
            resolve(name, road.store, symbol="NEW", day=TARGET)
            for name in (
                "forecasts/latest.csv",
                "forecasts/2018-01-13.csv",
                "forecasts/latest_left_out.csv",
                "forecasts/2018-01-13_left_out.csv",
                road.store.uri("forecasts/latest.csv"),
                prediction_id.rpartition("-")[0],
            )
        ),
    ]
    found = [trace(reference, road.store).row for reference in named]
    assert all(one == found[0] for one in found)
    assert found[0] is not None
    assert (found[0].prediction_id, found[0].pred_open) == (prediction_id, row["pred_open"])


def test_a_number_shows_the_rows_it_was_made_from_with_their_upload_line_and_time(road: Road) -> None:
    found = trace(resolve("forecasts/latest.csv", road.store, symbol="BTC", day=TARGET), road.store)
    assert found.row is not None
    assert [(row.upload, row.line) for row in found.row.earlier_rows] == [
        *(("uploads/first.csv", line) for line in range(8, 13)),
        ("uploads/second.csv", 2),
    ]
    assert found.row.earlier_rows[-1].date == date(2018, 1, 12)
    assert found.row.scaled_by == "model"
    own = trace(resolve("forecasts/latest.csv", road.store, symbol="NEW", day=TARGET), road.store).row
    assert own is not None
    assert (own.scaled_by, len(own.earlier_rows)) == ("own rows", 12)
    text = "\n".join(line for _, line in lines(found, road.store))
    for said in ("uploads/second.csv", "read at version 2", "first start", "1 without a row", "stands unchanged"):
        assert said in text
    assert json.dumps(found.document(), default=str)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("forecasts/2017-01-01.csv", {}, "there is no forecast"),
        ("2018-01-13-0123456789abcdef", {}, "there is no forecast 2018-01-13-0123456789abcdef: no receipt"),
        ("forecasts/latest.csv", {"symbol": "ETH", "day": TARGET}, "leaves ETH out: no row .* last day is 2018-01-09"),
        ("forecasts/latest.csv", {"symbol": "XYZ", "day": TARGET}, "knows no symbol XYZ"),
        ("forecasts/latest.csv", {"symbol": "BTC", "day": date(2018, 1, 12)}, "is for 2018-01-13, not for 2018-01-12"),
    ],
)
def test_what_is_not_there_is_refused_with_a_sentence(road: Road, name: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownAnswer, match=said):
        trace(resolve(name, road.store, **row), road.store)
    with pytest.raises(UnknownAnswer, match="has no row 3: it has 2"):
        trace(resolve(f"{stands(road.store)}-3", road.store), road.store)


def test_a_copy_that_lost_its_metadata_still_says_which_forecast_it_is(road: Road) -> None:
    expected = resolve("forecasts/latest.csv", road.store)
    road.store.replace("forecasts/copy.csv", road.store.read("forecasts/latest.csv"))
    assert resolve("forecasts/copy.csv", road.store) == expected


def test_forecasts_come_out_again_also_when_newer_ones_have_taken_their_place(road: Road) -> None:
    assert verdict(road) == "IDENTICAL"
    first = stands(road.store)
    other = model("change", label="other")
    road.registry.add(other)
    road.registry.promote(other.version, by="ann", why="better", at=road.now)
    road.drop(correction=upload(market({"BTC": 12}, seed=4)))
    road.answer_new()
    forecast_now(road)
    second = stands(road.store)
    road.drop(third=upload(market({"BTC": 13, "NEW": 13}).tail(1)))
    road.answer_new()
    forecast_now(road)
    assert len({first, second, stands(road.store)}) == 3
    for forecast_id in (first, second, stands(road.store)):
        assert str(replay(str(forecast_id), road.store)) == "IDENTICAL"
    found = trace(resolve(str(first), road.store), road.store)
    assert found.published["forecasts/2018-01-13.csv"] == f"was replaced by forecast {second}"
    assert found.published["forecasts/latest.csv"] == f"was replaced by forecast {stands(road.store)}"
    road.store.replace("forecasts/latest.csv", b"other")
    assert str(replay(str(first), road.store)) == "IDENTICAL"


STAGES = {
    "receipts/forecasts/": "receipt",
    "raw/appends/": "market_history",
    "market_history/": "market_history",
    "models/champion/": "champion_model",
    "models/bundles/": "trained_model",
    "forecasts/": "predictions",
}
"""What a flipped byte in an object below a prefix makes differ."""

NOT_BEHIND_IT = (
    *("uploads/", "predictions/", "raw/uploads/", "raw/together/", "raw/received/", "raw/cleaned/", "prediction_log/"),
    *("receipts/answers/", "receipts/answered/", "receipts/deliveries/", "receipts/known/"),
    *("market_history/_delta_log/_", "cache/"),
)
"""What the rows of the history were made from has records of its own; and Delta Lake's hint where to begin, and what
may be deleted at any time."""


def test_one_flipped_byte_in_any_object_behind_a_forecast_is_noticed_and_its_stage_named(road: Road) -> None:
    forecast_id = str(stands(road.store))
    looked: set[str] = set()
    for key in sorted(road.objects()):
        belongs = [prefix for prefix in STAGES if key.startswith(prefix)]
        if key.startswith(NOT_BEHIND_IT):
            continue
        assert belongs, f"{key} is behind the forecast, and nothing vouches for it"
        stored, content = road.store.fetch(key)
        for at in {0, len(content) // 3, len(content) - 2}:
            for kept in ({}, stored.metadata) if belongs == ["forecasts/"] else ({},):
                road.store.replace(key, flipped(content, at), metadata=kept)
                found = str(replay(forecast_id, road.store))
                assert found.startswith(f"DIFFERS AT {STAGES[belongs[0]]}: "), (key, at, found)
        road.store.replace(key, content, metadata=stored.metadata)
        looked.add(belongs[0])
    assert looked == set(STAGES)
    assert verdict(road) == "IDENTICAL"


@pytest.mark.parametrize("prefix", ["receipts/forecasts/", "models/bundles/", "raw/cleaned/", "forecasts/"])
def test_evidence_that_is_gone_is_named_by_its_stage(road: Road, prefix: str) -> None:
    forecast_id = str(stands(road.store))
    for key in road.objects():
        if key.startswith(prefix):
            road.store.client.delete_object(Bucket=road.store.bucket, Key=road.store.physical(key))
    expected = STAGES.get(prefix)
    assert str(replay(forecast_id, road.store)).startswith(f"DIFFERS AT {expected}" if expected else "IDENTICAL")


def test_features_and_numbers_that_come_out_otherwise_are_told_apart(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecast_id = str(stands(road.store))
    predict = Network.predict

    def moved(network: Network, windows: Any) -> Any:
        return np.nextafter(predict(network, windows).astype(np.float32), np.float32(9)).astype(np.float64)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "predict", moved)
        found = replay(forecast_id, road.store)
        assert found.outcome == "EQUAL"
        assert found.ulp is not None
        assert 1 <= found.ulp <= 16
    with monkeypatch.context() as patch:
        patch.setattr(Network, "predict", lambda network, windows: predict(network, windows) + 0.1)
        assert str(replay(forecast_id, road.store)).startswith("DIFFERS AT predictions: ")
    other = "crypto_ml.forecasting.scoring.feature_block"
    monkeypatch.setattr(other, lambda *given: feature_block(*given) * 1.001)
    assert str(replay(forecast_id, road.store)).startswith("DIFFERS AT features: ")


@pytest.fixture
def of_first_release(store: ObjectStore) -> Iterator[Road]:
    """A store as 0.1 left it."""
    golden = restore("0.1.0", store)
    road = Road(store)
    yield Road(store, road.registry.load(golden.champions[-1]))


def test_a_forecast_of_the_first_release_is_refused_by_name_and_the_next_one_takes_its_place(
    of_first_release: Road,
) -> None:
    road = of_first_release
    for name in ("forecasts/latest.csv", "forecasts/2023-12-01.csv"):
        with pytest.raises(UnknownAnswer, match="was published before forecasts had receipts"):
            resolve(name, road.store)
    before = read(road.store)
    forecast_now(road)
    after = read(road.store)
    assert verdict(road) == "IDENTICAL"
    current = before[before["as_of"] == before["as_of"].max()]
    pd.testing.assert_frame_equal(
        after[list(current.columns)].reset_index(drop=True), current.reset_index(drop=True), check_exact=True
    )


def test_a_receipt_of_a_later_format_is_refused_by_name_and_a_field_more_is_no_matter(road: Road) -> None:
    forecast_id = str(stands(road.store))
    receipt = read_forecast_receipt(forecast_id, road.store)
    said = document(receipt)
    assert (said["format"], said["kind"]) == (1, "forecast")
    key = forecast_receipt_key(forecast_id)
    more = {**said, "inputs": said["inputs"], "pictures": ["one"], "timings": {**said["timings"], "asked_at": "x"}}
    road.store.replace(key, json.dumps(sealed(more)).encode())
    found = read_forecast_receipt(forecast_id, road.store)
    assert found == receipt
    assert document(found)["pictures"] == ["one"]
    assert verdict(road) == "IDENTICAL"
    road.store.replace(key, json.dumps(sealed({**said, "format": 2})).encode())
    with pytest.raises(RecordTooNew, match="is a forecast receipt of format 2, and this crypto_ml knows 1 at most"):
        read_forecast_receipt(forecast_id, road.store)


def test_a_receipt_keeps_to_the_published_schema_and_the_log_to_the_receipt(road: Road) -> None:
    published = json.loads((Path(__file__).parents[2] / "docs" / "forecast_receipt.schema.json").read_text())
    assert published == forecast_receipt_schema(), "make schema writes it anew"
    Draft202012Validator.check_schema(published)
    forecast_id = str(stands(road.store))
    written = json.loads(json.dumps(document(read_forecast_receipt(forecast_id, road.store))))
    Draft202012Validator(published).validate(written)
    assert set(written) == set(published["properties"])
    assert list(Draft202012Validator(published).iter_errors({**written, "colour": "red"}))
    log = PredictionLog(road.store)
    rows = log.predictions(forecast_id)
    assert rows.num_rows == 2
    rewrite_log(road.store, edited(rows, 1, "pred_open", 1.0))
    assert verdict(road) == f"DIFFERS AT prediction_log: {forecast_id}-2 is not what was predicted"
    rewrite_log(road.store, rows[:0])
    assert verdict(road) == f"DIFFERS AT prediction_log: no prediction of {forecast_id} is there"


def test_the_commands_take_forecasts(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTO_ML_BUCKET", road.store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", road.store.prefix)
    assert run("replay", "forecasts/latest.csv") == (0, "IDENTICAL\n")
    row = ("--symbol", "BTC", "--date", "2018-01-13")
    code, text = run("trace", "forecasts/latest.csv", *row)
    assert code == 0
    assert text.startswith("receipt  BTC 2018-01-13: pred_open ")
    code, text = run("trace", "forecasts/2018-01-13.csv", "--json")
    assert (code, json.loads(text)["forecast_id"]) == (0, stands(road.store))
    stored, content = road.store.fetch("forecasts/latest.csv")
    road.store.replace("forecasts/latest.csv", flipped(content, 200), metadata={ORDER: stored.metadata[ORDER]})
    code, text = run("replay", "forecasts/latest.csv")
    assert (code, text.partition(":")[0]) == (1, "DIFFERS AT predictions")
    assert run("corrections", "forecasts/latest.csv")[0] == 1


def run(*arguments: str) -> tuple[int, str]:
    """A command's exit code, and what it said on standard output."""
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout
