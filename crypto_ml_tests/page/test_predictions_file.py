"""A predictions file is read whoever wrote it, and what is wrong with one is said in a sentence."""

import io
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.file_scoring import score_file
from crypto_ml.forecasting.intake import IntakeRules
from crypto_ml.page.accuracy import Baselines
from crypto_ml.page.charts import drawn
from crypto_ml.page.predictions_file import NotPredictions, read_predictions
from crypto_ml.sample import sample_upload
from crypto_ml.settings import Settings
from crypto_ml_tests.page.files import as_csv, predictions


def test_the_first_page_reads_our_files_as_it_always_did_and_plots_them_with_no_other_preparation(
    tmp_path: Path,
) -> None:
    upload, out = tmp_path / "prices.csv", tmp_path / "prices_preds.csv"
    upload.write_bytes(sample_upload())
    bundle = Deployment.reading(Settings()).first_bundle()
    score_file(upload, out, bundle, "one_step", IntakeRules(date(2026, 1, 1), None, 1 << 30, {}))
    # what the page of the team, on bokeh 1.4, does with them
    read = pd.read_csv(out)
    assert list(read.columns[:5]) == ["symbol", "index", "date", "pred_open", "val_open"]
    by_symbol = read.set_index(["symbol", "index"])
    assert by_symbol.index.is_unique
    assert not by_symbol[["date", "pred_open", "val_open"]].isna().any().any()
    dropped = pd.read_csv(upload)
    for symbol in dropped["symbol"].unique():
        rows = by_symbol.loc[symbol]
        assert list(rows.index) == list(range(len(dropped[dropped["symbol"] == symbol])))
        assert pd.to_datetime(rows["date"], format="%Y-%m-%d").is_monotonic_increasing
        assert all(
            rows[name].dtype == np.float64 and np.isfinite(rows[name]).all() for name in ("pred_open", "val_open")
        )
    # and ours sees the same numbers
    ours = read_predictions(out.read_bytes())
    for symbol in ours.symbols:
        rows, seen = by_symbol.loc[symbol], ours.of(symbol)
        assert seen.observed.tolist() == rows["val_open"].tolist()
        assert seen.predicted[1:].tolist() == rows["pred_open"].tolist()[1:]
        assert seen.seeds == 1
        assert np.isnan(seen.predicted[0])


@given(
    st.dictionaries(
        st.sampled_from(["BTC", "NA", "nan", "eth", 'a"b', "a,b", "<b>", "None"]), st.integers(1, 9), min_size=1
    )
)
def test_each_symbol_has_its_own_rows_in_the_order_of_days_whatever_the_order_of_lines(symbols: dict[str, int]) -> None:
    written = predictions(symbols)
    read = read_predictions(as_csv(written.sample(frac=1.0, random_state=1)))
    assert sorted(read.symbols) == sorted(symbols)
    assert read.rows == len(written)
    for symbol in symbols:
        rows, wanted = read.of(symbol), written[written["symbol"] == symbol]
        assert [str(day) for day in rows.days] == wanted["date"].tolist()
        assert rows.observed.tolist() == wanted["val_open"].tolist()
        assert rows.last_open[1:].tolist() == rows.observed[:-1].tolist()
        assert np.isnan(rows.last_open[0])
        assert list(rows.ids) == wanted["prediction_id"].tolist()


def test_a_file_of_the_first_five_columns_or_with_intervals_or_with_times_of_day_is_read() -> None:
    rows = predictions({"BTC": 4}, pred_low=[np.nan, 1.0, 2.0, 3.0], pred_high=[np.nan, 21.0, 22.0, 23.0])
    with_interval = read_predictions(as_csv(rows)).of("BTC")
    assert with_interval.low[1:].tolist() == [1.0, 2.0, 3.0]
    assert with_interval.high[1:].tolist() == [21.0, 22.0, 23.0]
    assert np.isnan(with_interval.range).all()
    with_range = read_predictions(as_csv(rows.assign(expected_range=[np.nan, 0.1, 0.2, 0.3]))).of("BTC").last(2)
    assert with_range.range.tolist() == [0.2, 0.3]
    assert drawn(with_range, Baselines(*(np.full(2, np.nan),) * 2, from_history=False)).lines["range"].tolist() == [
        pytest.approx(100 * (np.exp(0.2) - 1)),
        pytest.approx(100 * (np.exp(0.3) - 1)),
    ]
    old = rows[["symbol", "index", "date", "pred_open", "val_open"]].assign(date=rows["date"] + " 00:00:00")
    old.loc[2, "pred_open"] = np.nan
    old.loc[3, "val_open"] = np.inf
    seen = read_predictions(b"\xef\xbb\xbf" + as_csv(old)).of("BTC")
    assert [str(day) for day in seen.days] == rows["date"].tolist()
    assert np.isnan(seen.predicted).tolist() == [False, False, True, False]
    assert np.isnan(seen.observed).tolist() == [False, False, False, True]
    assert set(seen.ids) == {""}


GOOD = as_csv(predictions({"BTC": 3})).decode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (GOOD.splitlines(keepends=True)[0].encode(), "no rows yet"),
        (GOOD.replace("val_open", "value").encode(), "lacks val_open; it has symbol, index"),
        (b"symbol,date,open,high,low,close\nBTC,2018-01-01,1,1,1,1\n", "crypto-ml score"),
        (GOOD[:-60].encode() + b"\n", "Line 4 has 4 values .* only half written"),
        (GOOD.replace("10.909297426825681", "ten").encode(), "has “ten.*which is no number"),
        (GOOD.replace("2023-01-02", "02/01/2023").encode(), "Line 3 has “02/01/2023” under date"),
        (GOOD.replace("BTC,1", ",1").encode(), "rows without a symbol"),
        (GOOD.replace("BTC", "\ufffd").encode().replace(b"\xef\xbf\xbd", b"\xff"), "no CSV in UTF-8"),
        (b"<!doctype html><title>Log in</title>\n", "web page"),
        (b'{"outcome": "PREDICTED"}\n', "JSON and no CSV"),
        (b"\x1f\x8b\x08\x00 packed", "packed file"),
        (b"PAR1 packed", "packed file"),
        (GOOD.replace("status", "val_open").encode(), "two columns val_open"),
        (bytes(range(256)) * 40, "no CSV|no predictions file"),
    ],
)
def test_a_file_that_is_none_says_what_is_wrong_and_where(content: bytes, sentence: str) -> None:
    with pytest.raises(NotPredictions, match=sentence):
        read_predictions(content)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
def test_whatever_bytes_a_file_has_it_is_read_or_refused(noise: bytes, at: int) -> None:
    for content in (noise, GOOD[:at].encode() + noise + GOOD[at:].encode()):
        try:
            assert read_predictions(io.BytesIO(content).read()).rows
        except NotPredictions as refused:
            assert str(refused).endswith(".")
