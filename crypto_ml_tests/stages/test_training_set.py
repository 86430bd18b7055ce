"""A training set is what was known at a time: what becomes known later changes nothing in it."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.bundle import SCALER
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.stationary_examples import ROWS_NEEDED
from crypto_ml.forecasting.training import train
from crypto_ml.forecasting.training_set import TooLittleHistory, first_trainable, fit_scaler, split_by_time
from crypto_ml.stages.scaler import WEEK, choose, prepare, rows_of, split_of, why_not_yet
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market

T = datetime(2018, 6, 1, tzinfo=UTC)
AS_OF = FIRST_DAY + timedelta(days=40)
ROWS = market({"BTC": 45, "LTC": 45})
DAYS = ROWS["date"].dt.date.tolist()


def known(rows: pd.DataFrame, at: datetime, upload: str) -> pa.Table:
    frame = rows[[*OBSERVATION, "line"]].assign(known_at=at, upload_id=upload, cleaning=1, void=None)
    return pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)


def append(history: MarketHistory, rows: pd.DataFrame, at: datetime, upload: str) -> None:
    history.append(known(rows, at, upload), append_id=upload, known_at=at)


LATER = st.lists(
    st.tuples(
        st.integers(0, len(ROWS) - 1),  # which row is told anew
        st.floats(0.5, 2.0),  # its prices, times this
        st.integers(1, 400),  # hours after T at which that becomes known
        st.booleans(),  # under the same symbol, or as another coin's
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=10)
@given(later=LATER)
def test_whatever_becomes_known_after_a_time_leaves_manifest_rows_scaler_and_model_of_that_time_unchanged(
    store: ObjectStore, later: list[tuple[int, float, int, bool]]
) -> None:
    history = MarketHistory(store, f"history-{np.random.default_rng().integers(1 << 60)}")
    append(history, ROWS[::2], T - timedelta(days=2), "00000001.0")
    append(history, ROWS[1::2], T, "00000002.0")
    manifest, rows = choose("2018-02-04", AS_OF, history, T)
    for number, (at, factor, hours, same) in enumerate(later):
        told = ROWS[at : at + 1].copy()
        told[["open", "high", "low", "close"]] *= factor
        told = told if same else told.assign(symbol="NEW")
        append(history, told, T + timedelta(hours=hours), f"{number + 3:08d}.0")
    again, same_rows = choose("2018-02-04", AS_OF, history, T)
    assert again == manifest
    pd.testing.assert_frame_equal(same_rows, rows)
    pd.testing.assert_frame_equal(rows_of(manifest, history), rows)
    assert manifest["known_by"] == T.isoformat()
    split = split_by_time(rows["date"])
    assert fit_scaler(same_rows, split).mean.tobytes() == fit_scaler(rows, split).mean.tobytes()
    _, now = choose("2018-02-04", AS_OF, history, T + timedelta(days=60))
    if len(later) == 1:  # several may undo each other
        at, factor, _, same = later[0]
        seen = DAYS[at] < AS_OF and (factor != 1.0 or not same)
        assert (len(now) == len(rows) and now["close"].equals(rows["close"])) == (not seen)


def test_the_same_model_is_trained_as_of_a_time_whatever_became_known_since(store: ObjectStore) -> None:
    history = MarketHistory(store)
    append(history, ROWS, T, "00000001.0")
    bundles = []
    for _ in range(2):
        training_set = prepare("2018-02-04", AS_OF, history, store, known_by=T, code="code", target="gap")
        manifest = training_set.manifest
        trained = train(
            rows_of(manifest, history), split_of(manifest), training_set.scaler, Plan(epochs=1),
            label="week", manifest=manifest, created_at="now",
        )  # fmt: skip
        bundles.append(trained.bundle)
        append(history, ROWS.assign(close=ROWS["close"] * 0.99), T + timedelta(hours=1), "00000002.0")
    assert bundles[0].sha256 == bundles[1].sha256
    assert bundles[0].files[SCALER] == bundles[1].files[SCALER]
    newer = prepare("2018-02-04", AS_OF, history, store, known_by=T + timedelta(days=1), code="code")
    assert newer.manifest["rows_sha256"] != manifest["rows_sha256"]
    assert newer.manifest["uploads"] == ["00000002.0"]


def test_before_anything_was_known_there_is_nothing_to_train_on(store: ObjectStore) -> None:
    history = MarketHistory(store)
    with pytest.raises(TooLittleHistory, match="drop files"):
        prepare("2018-02-04", AS_OF, history, store, known_by=T, code="code")
    append(history, ROWS, T, "00000001.0")
    with pytest.raises(TooLittleHistory, match="drop files"):
        prepare("2018-02-04", AS_OF, history, store, known_by=T - timedelta(seconds=1), code="code")
    _, rows = choose("2018-02-04", date(2018, 1, 11), history, T)
    assert rows["date"].max() == pd.Timestamp("2018-01-10")


def test_a_week_too_early_is_told_where_the_history_begins_and_the_first_week_there_is_enough_for(
    store: ObjectStore,
) -> None:
    history = MarketHistory(store)
    assert why_not_yet("2018-02-04", AS_OF, history) == (
        "there is no market history to train on; drop files into uploads/ first"
    )
    append(history, ROWS, T, "00000001.0")
    ends = [AS_OF + WEEK * n for n in range(-6, 3)]
    first = first_trainable(ROWS, ends, ROWS_NEEDED)
    assert first is not None
    for end in ends:
        week = str(end - WEEK)
        if end >= first:
            prepare(week, end, history, store, known_by=T, code="code")
            continue
        told = f"history begins {FIRST_DAY}; the first week that can be trained is {first - WEEK}"
        with pytest.raises(TooLittleHistory, match=told):
            prepare(week, end, history, store, known_by=T, code="code")
    last = FIRST_DAY + timedelta(days=44)
    assert why_not_yet("2018-02-04", first, history) is None
    assert f"the newest is of {last}" in str(why_not_yet("2018-06-03", last + timedelta(days=9), history))
    too_early = str(why_not_yet(str(first - 2 * WEEK), first - WEEK, history))
    assert "first week that can be trained" in too_early


def test_a_history_too_short_for_any_week_says_so(store: ObjectStore) -> None:
    history = MarketHistory(store)
    append(history, ROWS[:5], T, "00000001.0")
    with pytest.raises(TooLittleHistory, match=r"history begins 2018-01-01 and ends 2018-01-05, which is too short"):
        prepare("2018-02-04", AS_OF, history, store, known_by=T, code="code")
    assert "too short" in str(why_not_yet("2018-01-01", FIRST_DAY + timedelta(days=7), history))
