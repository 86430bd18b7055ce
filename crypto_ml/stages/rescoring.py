"""rescoring: what a model says of days that are over, from the history at one version: a month, a year, all of it.

The rows of those days are scored as if they had been dropped as one file: the same functions, the same earlier rows,
the same bits. What comes of it answers no upload, so it has no receipt, and `prediction_log` and what watches it do not
know it. It is kept under an id that follows from everything that decides it, and asked for again, it is that.
"""

import logging
import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.engine.mapping import Engine, Ran
from crypto_ml.engine.work import Asked as AskedOfShards
from crypto_ml.engine.work import Work, made_by, name_of
from crypto_ml.errors import Refused
from crypto_ml.forecasting.answers import BESIDE, append_lines, csv_lines, needs_quotes
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.scoring import SEED
from crypto_ml.forecasting.sorting import ROWS, RowSorter
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import CSV, rescoring_keys
from crypto_ml.ledger.software import software
from crypto_ml.stages.ranges import as_shards, ranges
from crypto_ml.stages.scored_rows import Scoring
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.visible import visible

FORMAT: Final = 1
MOST_SYMBOLS: Final = 500
MOST_ROWS: Final = 200_000
"""Symbols, and rows of the days asked for, of a shard."""

ONE_DAY: Final = timedelta(1)
LAST_DAY: Final = date(9000, 1, 1)
_DAYS: Final = re.compile("[0-9]{4}-[0-9]{2}(-[0-9]{2})?")
FILE: Final = 0

RESCORED: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("index", pa.int64()),
        ("date", pa.date32()),
        ("pred_open", pa.float64()),
        ("val_open", pa.float64()),
        ("status", pa.string()),
    ]
)
"""The columns of a file of predictions, but for the name of a prediction: these are no answers. What is said beside
them (BESIDE) follows where the model says it."""

log: Final = logging.getLogger(__name__)


class NothingToRescore(Refused):
    """Days of which the history has no row."""


class RescoringDiffers(Refused):
    """A rescoring that stands and does not come out again."""


@dataclass(frozen=True)
class Asked:
    """The first and the last day, and the model's version; None for the champion."""

    first: date
    last: date
    model: str | None = None


def month_of(day: date) -> tuple[date, date]:
    """The first and the last day of a day's month."""
    return day.replace(day=1), day.replace(day=monthrange(day.year, day.month)[1])


def period(text: str) -> tuple[date, date]:
    """The first and the last day of `2018-03-01..2018-03-31`, `2018-03` or `2018-03-25`. Raises ValueError."""
    first, dots, last = text.partition("..")
    begins, ends = _days_of(first), _days_of(last if dots else first)
    if ends[1] > LAST_DAY:
        raise ValueError(f"{ends[1]} is behind the last day there is, {LAST_DAY}")
    if ends[1] < begins[0]:
        raise ValueError(f"{text} ends before it begins")
    return begins[0], ends[1]


def _days_of(text: str) -> tuple[date, date]:
    if not _DAYS.fullmatch(text):  # Python's own reading knows weeks, too, and would take one for its Monday
        raise ValueError(f"{visible(text)} is neither a month nor a day")
    if len(text) == len("2018-03"):
        return month_of(date.fromisoformat(f"{text}-01"))
    day = date.fromisoformat(text)
    return day, day


@dataclass(frozen=True)
class Rescored:
    """A rescoring that is kept: its record as it is stored, where that and its predictions stand, and what it took;
    None where it stood already."""

    document: dict[str, Any]
    key: str
    predictions: str
    ran: Ran | None

    @property
    def id(self) -> str:
        return str(self.document["id"])


def rescore(
    asked: Asked,
    deployment: Deployment,
    engine: Engine,
    now: datetime,
    *,
    out: Path | None = None,
    tell: Tell = tell_nobody,
    most_symbols: int = MOST_SYMBOLS,
) -> Rescored:
    """Score all current rows of some days, keep what comes of it, and write the predictions to `out` where given.

    most_symbols: of a shard. Raises NothingToRescore, UnknownModel, and what `Engine.results` raises.
    """
    if out and out.is_dir():
        raise Refused(f"{visible(str(out))} is a folder; name a file in it for the predictions")
    if out and not out.resolve().parent.is_dir():
        raise Refused(f"there is no folder {out.resolve().parent}; make it, or name another for the predictions")
    store, history, settings = deployment.store, deployment.history, deployment.settings
    version = history.version()
    if version is None:
        raise NothingToRescore("the market history has no rows yet; drop files into uploads/ first")
    bundle = deployment.bundle(asked.model or deployment.champion().version)
    scoring = Scoring(
        bundle, history, version, deployment.series, settings.recovery, settings.level if bundle.rule else 0.0
    )
    said = {**scoring.asked(), "first": str(asked.first), "last": str(asked.last)}
    decides = {**said, "format": FORMAT, "made_by": made_by(name_of(score_range))}
    rescoring_id = f"{asked.first}_{asked.last}-{sha256_of(repr(sorted(decides.items())).encode())[:16]}"
    key, predictions = rescoring_keys(rescoring_id)
    try:
        stands = Rescored(store.read_json(key), key, predictions, None)
    except ObjectMissing:
        pass
    else:
        if out:
            store.download_whole(predictions, out)
        return stands
    symbols = history.known.of(None, version)["symbol"]
    days = (asked.last - asked.first).days + 1
    at_once = max(1, min(most_symbols, MOST_ROWS // days))
    work = Work(
        name_of(score_range),
        said,
        as_shards(ranges(symbols.to_pylist(), at_once)),
        f"rescoring {asked.first} to {asked.last}",
    )
    ran, counts = Ran(), _Counts()
    with TemporaryDirectory(prefix="crypto_ml-rescoring-") as name:
        path = Path(name) / "predictions.csv"
        schema = rescored_by(bundle)
        quoted = needs_quotes(symbols)  # asked of all of them: the bytes are to be those of any number of shards
        append_lines(path, schema, pa.py_buffer(b""))
        for _, tables in engine.results(work, ran=ran, tell=tell):
            for table in tables:
                counts.add(table)
                append_lines(path, schema, csv_lines(table.select(schema.names), quoted=quoted))
        if not counts.rows:
            raise NothingToRescore(
                f"the history has no rows from {asked.first} to {asked.last}; give days that it has rows of"
            )
        document = {
            "format": FORMAT,
            "id": rescoring_id,
            "at": now.astimezone(UTC).isoformat(),
            **said,
            **counts.told(),
            "predictions": {"key": predictions, "sha256": sha256_of_file(path)},
            "code": code_version("crypto_ml.stages.rescoring"),
            "software": asdict(software(settings.image)),
        }
        document = _kept(document, key, path, deployment)
    if out:
        store.download_whole(predictions, out)
    return Rescored(document, key, predictions, ran)


def score_range(asked: AskedOfShards, shard: AskedOfShards, deployment: Deployment) -> Iterator[pa.Table]:
    """The rows that the history has of some days and a range of symbols, scored."""
    scoring = Scoring.of(asked, deployment)
    rows = scoring.history.current_batches(
        [*OBSERVATION, "line"],
        between=(shard["between"][0], shard["between"][1]),
        since=date.fromisoformat(asked["first"]),
        before=date.fromisoformat(asked["last"]) + ONE_DAY,
        version=scoring.history_version,
        order=scoring.current,
    )
    with TemporaryDirectory(prefix="crypto_ml-range-") as name, RowSorter(Path(name)) as sorter:
        for batch in rows:
            sorter.add(_of_one_file(pa.Table.from_batches([batch])))
        folded = FoldedSeries(Path(name) / "folded")
        scoring.add_earlier_rows(sorter, folded)
        yield from scoring.scored(sorter.chunk_tables(), folded)


def rescored_by(bundle: ModelBundle) -> pa.Schema:
    """The columns of what is rescored by a bundle."""
    return RESCORED if bundle.rule is None else pa.schema([*RESCORED, *BESIDE])


def _of_one_file(rows: pa.Table) -> pa.Table:
    file = pa.repeat(pa.scalar(FILE, pa.int32()), rows.num_rows)
    own = rows.append_column("file", file).append_column("context", pa.repeat(False, rows.num_rows))
    return own.select(ROWS.names).cast(ROWS)


@dataclass
class _Counts:
    """What there is to say of all rows, the same however they were cut: sums are made once, in the end."""

    rows: int = 0
    predicted: int = 0
    series: int = 0
    _made: list[FloatArray] = field(default_factory=list)
    _observed: list[FloatArray] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Count a chunk of whole series."""
        made = table.filter(pc.not_equal(table["status"], SEED))
        self.rows += table.num_rows
        self.predicted += made.num_rows
        self.series += pc.count_distinct(table["symbol"]).as_py()
        self._made.append(made["pred_open"].to_numpy())
        self._observed.append(made["val_open"].to_numpy())

    def told(self) -> dict[str, Any]:
        """For the record."""
        error = None
        if self.predicted:
            made, observed = np.concatenate(self._made), np.concatenate(self._observed)
            with np.errstate(over="ignore"):
                mean = float(np.mean(np.abs(made - observed) / observed))
            error = mean if np.isfinite(mean) else None
        return {
            "rows": self.rows,
            "predicted": self.predicted,
            "seed": self.rows - self.predicted,
            "series": self.series,
            "mean_relative_error": error,
        }


def _kept(document: dict[str, Any], key: str, path: Path, deployment: Deployment) -> dict[str, Any]:
    """Keep predictions and record, in this order. Another run may have been faster: what it kept stands.

    Raises RescoringDiffers where that are other bytes.
    """
    store = deployment.store
    where = document["predictions"]["key"]
    try:
        store.upload_file(path, where, create_only=True, content_type=CSV)
    except AlreadyExists as exists:
        if sha256_of(store.read(where)) != document["predictions"]["sha256"]:
            raise RescoringDiffers(
                f"{store.uri(where)} stands and has other predictions than the same rows and model give now: keep it, "
                "and find out on which machine it was made"
            ) from exists
    try:
        store.create_json(key, document)
    except AlreadyExists:
        document = store.read_json(key)
    return document
