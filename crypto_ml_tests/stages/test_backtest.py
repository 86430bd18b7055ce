"""A backtest rests on what was known at each origin, and its scoreboard is kept as it is."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import get_args

import pandas as pd
import pytest

from crypto_ml.errors import Refused
from crypto_ml.forecasting.plan import LearnerName
from crypto_ml.ledger.layout import BACKTESTS
from crypto_ml.settings import Settings
from crypto_ml.stages.backtest import Asked, KnownThen, backtest, learners_named
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import Road, upload

LENGTHS = {"BTC": 220, "ETH": 220}


def delivered(road: Road, at: datetime, name: str, rows: pd.DataFrame) -> None:
    """Rows that become known at a moment."""
    road.now = at
    road.drop(**{name: upload(rows)})
    road.answer_new()


def on(month: int, day: int) -> datetime:
    return datetime(2018, month, day, 6, tzinfo=UTC)


def test_each_origin_knows_what_was_known_then_and_the_scoreboard_is_kept_once(store: ObjectStore) -> None:
    road = Road(store)
    with pytest.raises(Refused, match="no rows yet"):
        backtest(Asked(), road.deployment, on(9, 1))
    rows = market(LENGTHS)
    until = [pd.Timestamp(2018, 4, 1), pd.Timestamp(2018, 6, 1)]
    corrected = market(LENGTHS, seed=1)
    delivered(road, on(4, 1), "first", rows[rows["date"] < until[0]])
    delivered(road, on(6, 1), "second", rows[(rows["date"] >= until[0]) & (rows["date"] < until[1])])
    delivered(road, on(7, 1), "correction", corrected[corrected["date"] == pd.Timestamp(2018, 3, 15)])
    delivered(road, on(8, 9), "last", rows[rows["date"] >= until[1]])
    version = road.history.version()
    assert version is not None
    then = KnownThen(road.history, version, None)

    def opened(day: date) -> tuple[str, float]:
        known = then(day)
        of_day = known.rows[(known.rows["symbol"] == "BTC") & (known.rows["date"] == pd.Timestamp(2018, 3, 15))]
        return known.knowledge, float(of_day["open"].iloc[0])

    first, second = (
        float(one[(one["symbol"] == "BTC") & (one["date"] == pd.Timestamp(2018, 3, 15))]["open"].iloc[0])
        for one in (rows, corrected)
    )
    assert opened(date(2018, 3, 31)) == ("dates", second)  # nothing was known of any day; what is known now stands in
    assert opened(date(2018, 4, 1)) == ("known", first)  # before it was corrected
    assert opened(date(2018, 6, 30)) == ("known", first)
    assert opened(date(2018, 7, 1)) == ("known", second)
    assert then(date(2018, 5, 30)).rows["date"].max() == pd.Timestamp(2018, 3, 31)  # told of April two days later
    assert then(date(2018, 6, 1)).rows["date"].max() == pd.Timestamp(2018, 5, 31)

    asked = Asked(every=40, first=date(2018, 3, 20), models=(road.bundle.version,), check_leaks=True)
    done = backtest(asked, road.deployment, on(9, 1))
    origins = done.document["origins"][road.bundle.version]
    assert [at["knowledge"] for at in origins] == ["dates", "known", "known", "known"]
    assert done.knowledge.startswith("the rows that were known then at 3 origins; at 1, rows of earlier days")
    assert done.leaks[road.bundle.version].passed
    assert done.leaking == ""
    stored = json.loads(store.read(done.key))
    assert stored == json.loads(json.dumps(done.document))
    assert (stored["format"], stored["history_version"], stored["scoreboards"][0]["overall"]["coins"]) == (
        1,
        version,
        2,
    )
    assert [found.key for found in store.list(BACKTESTS)] == [done.key]
    assert backtest(asked, road.deployment, on(9, 1)).key == done.key
    one = backtest(replace(asked, symbols=("ETH",), check_leaks=False), road.deployment, on(9, 1))
    assert one.key != done.key
    assert one.scoreboards[0].overall.rows * 2 == done.scoreboards[0].overall.rows
    with pytest.raises(Refused, match="no rows of these symbols"):
        backtest(replace(asked, symbols=("XRP",)), road.deployment, on(9, 1))
    with pytest.raises(Refused, match="no rows of NOPE, XRP; leave that out"):
        backtest(replace(asked, symbols=("BTC", "NOPE", "XRP")), road.deployment, on(9, 1))
    with pytest.raises(
        Refused, match="no row before the first origin 0001-01-01 is known: the oldest is of 2018-01-01"
    ):
        backtest(replace(asked, first=date.min), road.deployment, on(9, 1))


def test_learners_are_trained_once_at_each_origin_and_a_retrain_takes_one_of_them(store: ObjectStore) -> None:
    settings = Settings(target="relative_gap", learners="absolute,last_close", epochs=1)
    road = Road(store, settings=settings)
    delivered(road, on(9, 1), "prices", market({"BTC": 220, "ETH": 220, "LTC": 220}))
    asked = Asked(every=60, first=date(2018, 7, 1))
    done = backtest(asked, road.deployment, on(9, 1))
    origins = done.document["origins"]
    assert list(origins) == ["absolute", "last_close", "retrain"]
    (absolute,), (last_close,), (retrain,) = origins.values()
    assert retrain["version"] in (absolute["version"], last_close["version"])
    assert absolute["version"].startswith("backtest-2018-07-01-")
    assert last_close["lambda"] == 0.0
    board = done.scoreboards[1].overall
    assert (board.judgement.word, board.mase, board.intervals) == ("TIES", 1.0, board.rows)
    with pytest.raises(Refused, match="no learner is called arima; there are gru"):
        learners_named(["gru", "arima"])


@pytest.mark.simulations
@pytest.mark.parametrize("learner", get_args(LearnerName))
def test_no_learner_knows_of_the_future(store: ObjectStore, learner: LearnerName) -> None:
    road = Road(store, settings=Settings(target="relative_gap", epochs=2))
    delivered(road, on(9, 1), "prices", market({"BTC": 220, "ETH": 220, "LTC": 220}))
    asked = Asked(every=60, first=date(2018, 7, 1), learners=(learner,), check_leaks=True)
    found = backtest(asked, road.deployment, on(9, 1)).leaks[learner]
    assert found.passed, found.explanation
    assert found.followed > 0
