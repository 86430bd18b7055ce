"""A month of the real market through the whole road, with its approvals and a correction: every number can be followed.

The truth is kept by the test itself while it drops files: which line of which upload was known when.
"""

import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import pandas as pd
import pytest

from crypto_ml.audit.corrections import corrections
from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.references import Reference, resolve
from crypto_ml.audit.replay import replay
from crypto_ml.audit.trace import TracedRow, trace_rows
from crypto_ml.forecasting.cleaning import TOLERANCE
from crypto_ml.forecasting.schema import LOOK_BACK, MINIMUM_OWN_ROWS
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.in_process_dagster import InProcessDagster

DAYS = 30
LAST_DAY = date(2018, 3, 25)
FIRST_DAILY = LAST_DAY - timedelta(days=DAYS - 1)
COLUMNS = ["symbol", "date", "open", "high", "low", "close", "market"]
CORRECTED_DAY, CORRECTED_AFTER = 14, 25
CORRECTED = ("BTC", "ETH", "LTC")
TRACED = 1_000


@dataclass(frozen=True)
class Line:
    """What the truth knows of a row: the upload it stands in, its line there, and the line's text."""

    upload: str
    number: int
    text: str
    open: float


Known = dict[str, dict[date, Line]]


@dataclass(frozen=True)
class Answered:
    """One answer: the model that served, the upload's rows, and everything known when it was given."""

    model: str
    rows: Mapping[tuple[str, date], Line]
    known: Known


@dataclass
class Truth:
    """What was known, and by whom it was answered, told by who dropped the files."""

    known: Known = field(default_factory=dict)
    answers: dict[str, Answered] = field(default_factory=dict)

    def note(self, answer_id: str, model: str, key: str, body: bytes) -> None:
        """An upload was answered: its rows are known from then on, and count before what was known."""
        rows = dict(_lines(key, body))
        for (symbol, day), line in rows.items():
            self.known.setdefault(symbol, {})[day] = line
        self.answers[answer_id] = Answered(model, rows, {symbol: dict(days) for symbol, days in self.known.items()})


def _lines(key: str, body: bytes) -> Iterator[tuple[tuple[str, date], Line]]:
    for number, text in enumerate(body.decode().splitlines()[1:], start=2):
        symbol, day, open_, *_ = text.split(",")
        yield (symbol, date.fromisoformat(day)), Line(key, number, text, float(open_))


@dataclass
class Month:
    """The deployment after the month, and what is true of it."""

    store: ObjectStore
    truth: Truth
    corrected: str
    """The answer to the upload that corrected another."""
    rolled_back_from: str


def csv(rows: pd.DataFrame) -> bytes:
    return rows[COLUMNS].to_csv(index=False, date_format="%Y-%m-%d").encode()


@pytest.fixture(scope="module")
def month(shared: Path, bucket: str) -> Iterator[Month]:
    """A whole market file, 30 daily ones, two retrains promoted, a rollback, a correction; Dagster is then deleted."""
    from crypto_ml.storage.objects import connect

    store = connect(bucket, f"tests/month-{random.randrange(10**9)}")  # noqa: S311
    settings = Settings(bucket=store.bucket, prefix=store.prefix, epochs=1, target="gap")
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as home:
        patch.setattr("crypto_ml.defs.sensors.LONGEST_WAIT", 0.0)
        with dg.DagsterInstance.local_temp(home) as instance:
            found = _month(InProcessDagster.of(settings, instance), shared)
        shutil.rmtree(home)
        Path(home).mkdir()
        yield found


def _month(dagster: InProcessDagster, shared: Path) -> Month:
    market = pd.read_csv(shared / "market" / "crypto_markets.csv")
    market = market.assign(date=pd.to_datetime(market["date"], format="%d/%m/%Y"))
    before = market[market["date"] < pd.Timestamp(FIRST_DAILY)]
    truth, registry = Truth(), Registry(dagster.store)
    drop(dagster, truth, "uploads/whole.csv", csv(before))
    corrected = rolled_back_from = ""
    for number in range(DAYS):
        day = pd.Timestamp(FIRST_DAILY) + pd.Timedelta(days=number)
        drop(dagster, truth, f"uploads/daily/{day.date()}.csv", csv(market[market["date"] == day]))
        if number in {9, 19}:
            promote_retrained(dagster, registry, f"2018-03-{'04' if number == 9 else '11'}")
        if number == 22:
            serving = registry.champion()
            assert serving is not None
            rolled_back_from = serving.version
            dagster.run("promote_model", config=decision(rollback=True, by="on call", why="odd numbers"))
        if number == CORRECTED_AFTER:
            wrong = pd.Timestamp(FIRST_DAILY) + pd.Timedelta(days=CORRECTED_DAY)
            rows = market[market["date"] == wrong]
            close = rows["close"].where(~rows["symbol"].isin(CORRECTED), rows["close"] * (1 - TOLERANCE / 2))
            low = rows["low"].clip(upper=close)
            corrected = drop(
                dagster, truth, f"uploads/daily/{wrong.date()}.csv", csv(rows.assign(close=close, low=low))
            )
    return Month(dagster.store, truth, corrected, rolled_back_from)


def decision(**config: object) -> Mapping[str, object]:
    return {"ops": {"champion_model": {"config": config}}}


def drop(dagster: InProcessDagster, truth: Truth, key: str, body: bytes) -> str:
    """Drop a file, have it answered, and note what is true from now on; returns the answer's id."""
    dagster.store.replace(key, body)
    dagster.answer_new(str(len(truth.answers)) if truth.answers else None)
    report = read_report(key, dagster.store)
    champion = Registry(dagster.store).champion()
    assert report is not None
    assert champion is not None
    assert report.outcome == "PREDICTED", report.document["reason"]
    answer_id = str(report.document["answer_id"])
    truth.note(answer_id, champion.version, key, body)
    return answer_id


def promote_retrained(dagster: InProcessDagster, registry: Registry, week: str) -> None:
    dagster.run("retrain", week)
    (version,) = [version for version in registry.versions() if version.startswith(week)]
    dagster.run("promote_model", config=decision(version=version, by="ml", why="weekly", override="worse, and told"))


def test_a_thousand_rows_of_a_thousand_are_traced_to_the_lines_they_were_made_from(month: Month) -> None:
    choose = random.Random(20180325)  # noqa: S311
    everything = [(answer, row) for answer, given in month.truth.answers.items() for row in given.rows]
    chosen = choose.sample(everything, TRACED)
    right = 0
    for answer, given in month.truth.answers.items():
        named = [row for other, row in chosen if other == answer]
        with TemporaryDirectory() as name:
            evidence = Evidence.of(answer, month.store, Path(name))
            assert evidence.receipt.model.version == given.model
            references = [Reference(answer, None, symbol, day) for symbol, day in named]
            traced = trace_rows(evidence, references) if named else []
            bundle = evidence.bundle
        for (symbol, day), found in zip(named, traced, strict=True):
            look_back = bundle.look_back if bundle.pooled or symbol in bundle.coins else None
            earlier = sum(before < found.date for before in given.known[symbol])
            assert found.status != "seed" or earlier < (1 if bundle.pooled else MINIMUM_OWN_ROWS)
            right += is_true(found, given.rows[symbol, day], given.known[symbol], look_back)
    assert right == TRACED


def is_true(found: TracedRow, line: Line, known: Mapping[date, Line], look_back: int | None) -> bool:
    """Whether a traced row is what the truth says; look_back: how many earlier rows there may be, None for all."""
    assert found.as_received == line.text
    assert (found.line, found.val_open) == (line.number, line.open)
    days = sorted(day for day in known if day < found.date)
    expected = [known[day] for day in days][-look_back if look_back else 0 :]
    if found.status == "seed":
        return not found.earlier_rows
    assert [(row.upload, row.line, row.observed["open"]) for row in found.earlier_rows] == [
        (row.upload, row.number, row.open) for row in expected
    ]
    return True


def test_every_answer_of_the_month_comes_out_again_to_the_last_bit(month: Month) -> None:
    verdicts = {answer: str(replay(answer, month.store)) for answer in month.truth.answers}
    assert len(verdicts) == DAYS + 2
    assert set(verdicts.values()) == {"IDENTICAL"}, verdicts


def test_the_model_of_an_answer_can_be_trained_again_to_the_same_weights(month: Month) -> None:
    answer = next(a for a, given in month.truth.answers.items() if given.model == month.rolled_back_from)
    assert str(replay(answer, month.store, retrain=True)) == "IDENTICAL"


def test_the_correction_lists_the_answers_and_models_that_had_used_the_old_values(month: Month) -> None:
    found = corrections(month.corrected, month.store)
    wrong = FIRST_DAILY + timedelta(days=CORRECTED_DAY)
    assert {(one.symbol, one.date) for one in found.corrections} == {(symbol, wrong) for symbol in CORRECTED}
    used = {one.upload for one in found.answers}
    window = {f"uploads/daily/{wrong + timedelta(days=n)}.csv" for n in range(1, LOOK_BACK + 1)}
    assert window <= used
    last_before = f"uploads/daily/{FIRST_DAILY + timedelta(days=CORRECTED_AFTER)}.csv"
    assert not any(str(upload) > last_before for upload in used)
    assert f"uploads/daily/{wrong}.csv" not in used
    assert [one.name for one in found.models] == [month.rolled_back_from]


def test_the_pointer_tells_who_served_when(month: Month) -> None:
    entries = list(Registry(month.store).champions())
    assert [entry.action for entry in entries] == ["first start", "promotion", "promotion", "rollback"]
    assert entries[3].version == entries[1].version
    assert all(entry.override for entry in entries[1:3])
    named = resolve(f"predictions/daily/{FIRST_DAILY}_preds.csv", month.store)
    assert named.answer_id in month.truth.answers
