"""A large delivery scored in parts, each some whole series of one file, and put together as if it were one piece.

A part comes from the accepted rows as they are stored, by their row groups, and brings along what is predicted and what
came from history. Whoever puts parts together has the rows themselves, and sees parts in their order: features are
computed of both once more, which costs less than having them sent, and have to be those that the part was made from. So
hashes go on from part to part, and predictions, fingerprints and receipt are those of a delivery that was scored in one
piece, byte for byte.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.deployment import Deployment
from crypto_ml.engine.mapping import Engine
from crypto_ml.engine.work import Asked, Shard, Work, name_of
from crypto_ml.errors import Blocked
from crypto_ml.forecasting.answers import needs_quotes
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.features import FloatArray
from crypto_ml.forecasting.fingerprint import BlockHash, Witness
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.progress import Tell
from crypto_ml.forecasting.scoring import features_of, scored_by
from crypto_ml.forecasting.series import LookAlikes
from crypto_ml.forecasting.sorting import ROWS, RowSorter, begins_series
from crypto_ml.forecasting.spacing import Spacing
from crypto_ml.forecasting.unit_changes import UnitChanges
from crypto_ml.stages.scored_rows import Scoring, other_coins
from crypto_ml.storage.objects import ObjectStore

ROWS_OF_A_PART: Final = 100_000
"""About as many rows has a part: a second or two of work, so that a death costs no more, and who puts parts together
begins soon."""

WHAT: Final = b"what"
SAID, CONTEXT, STATES, NOTED = "said", "context", "states", "noted"

OF_ITS_ROW: Final = frozenset({"file", "symbol", "index", "date", "val_open", "line"})
"""What of a prediction (SCORED) stands in its row, or follows from those before it; the others are sent."""

MOST_FOOTERS: Final = 4
"""Footers of stored rows that a process keeps: a delivery has one."""

FEW_WORDS: Final = ("status", "scaled_by")
"""Columns of a few words, which are sent as their numbers."""


_SERIES: Final = pa.schema([ROWS.field("file"), ROWS.field("symbol")])


class PartDiffers(Blocked):
    """A part that was made from other features than its rows have here."""


@dataclass(frozen=True)
class Parts:
    """How a delivery is cut: ranges of row groups, and the rows of each. series: a row of each series. other: see
    `scored_rows.other_coins`. whole: why it is not cut, where it is not."""

    groups: Sequence[tuple[int, int]]
    rows: Sequence[int]
    series: pa.Table
    other: Sequence[str]
    whole: str | None = None


def cut(accepted: Path, scoring: Scoring) -> Parts:
    """Cut accepted rows, of which only the names of series are read, between series."""
    series: list[pa.Table] = []
    other: set[str] = set()
    begins: list[bool] = []
    counts: list[int] = []
    quotes = False
    with pq.ParquetFile(accepted, read_dictionary=["symbol", "slug"]) as stored:
        last: tuple[int, str] | None = None
        for number in range(stored.num_row_groups):
            names = stored.read_row_group(number, columns=["file", "symbol", "slug"])
            counts.append(names.num_rows)
            first = (names["file"][0].as_py(), names["symbol"][0].as_py())
            begins.append(first != last)
            last = (names["file"][-1].as_py(), names["symbol"][-1].as_py())
            some = names.select(["file", "symbol"]).filter(pa.array(begins_series(names))).cast(_SERIES)
            series.append(some)
            quotes |= needs_quotes(some["symbol"])
            told = names.filter(pc.is_valid(names["slug"])) if scoring.bundle.slugs else names.slice(0, 0)
            if told.num_rows:
                coins = told.select(["symbol", "slug"]).group_by(["symbol", "slug"]).aggregate([])
                other |= other_coins(
                    zip(coins["symbol"].to_pylist(), coins["slug"].to_pylist(), strict=True), scoring.bundle
                )
    ends = [0]
    rows = 0
    for number, count in enumerate(counts):
        if rows >= ROWS_OF_A_PART and begins[number]:
            ends.append(number)
            rows = 0
        rows += count
    groups = list(pairwise([*ends, len(counts)]))
    return Parts(
        groups,
        [sum(counts[begin:end]) for begin, end in groups],
        pa.concat_tables(series),
        sorted(other),
        # of a table in which one text needs quotes all have them, so that its bytes depend on where it is cut
        "a symbol has a comma, a quote or a line's end in it" if quotes else None,
    )


def work_of(parts: Parts, scoring: Scoring, accepted_key: str, *, told: str) -> Work:
    """The parts of a delivery as work for an engine."""
    counted = zip(parts.groups, parts.rows, strict=True)
    shards = tuple(
        Shard({"groups": list(groups)}, f"part {number} of {len(parts.groups)} ({rows:,} rows)")
        for number, (groups, rows) in enumerate(counted, 1)
    )
    asked = {**scoring.asked(), "accepted": accepted_key, "other": list(parts.other)}
    return Work(name_of(score_part), asked, shards, told)


def score_part(asked: Asked, shard: Asked, deployment: Deployment) -> Iterator[pa.Table]:
    """One part scored: for each chunk what was seen and what was predicted, and in the end what was noted."""
    scoring = Scoring.of(asked, deployment)
    rows = _stored_rows(deployment.store, asked["accepted"], *shard["groups"])
    yield from _with_evidence(rows, scoring, asked["other"])


def _with_evidence(rows: pa.Table, scoring: Scoring, other: Sequence[str]) -> Iterator[pa.Table]:
    """Whole series of rows (ROWS) scored, as `Together.take` takes them."""
    recorder, changes, spacing, seen = _Recorder(), UnitChanges(), Spacing(), set[str]()
    with TemporaryDirectory(prefix="crypto_ml-part-") as name, RowSorter(Path(name)) as sorter:
        sorter.add(rows)
        folded = FoldedSeries(Path(name) / "folded")
        coins = scoring.coins(other)
        for spans in sorter.span_tables():
            others = LookAlikes(scoring.bundle.coins).ask(spans)
            scoring.read_into(sorter, folded, spans, coins, also=others, seen=seen.update)
        chunks = spacing.seen(changes.seen(sorter.chunk_tables()))
        for chunk in scoring.scored(chunks, folded, recorder):
            yield from recorder.taken()
            yield _called(SAID, _said(chunk))
    noted = {"changes": changes.noted(), "spacing": spacing.noted(), "seen": sorted(seen)}
    yield _called(NOTED, pa.table({"noted": [json.dumps({**noted, "features": recorder.features.hexdigest()})]}))


def _said(chunk: pa.Table) -> pa.Table:
    said = chunk.select([name for name in chunk.schema.names if name not in OF_ITS_ROW])
    for name in FEW_WORDS:
        said = said.set_column(said.schema.get_field_index(name), name, pc.dictionary_encode(said[name]))
    return said


@dataclass
class _Recorder:
    """Keeps what a witness would see of a chunk and who has its rows has not. features: the hash of all of them."""

    features: BlockHash = field(default_factory=BlockHash)
    _tables: list[pa.Table] = field(default_factory=list)

    def see(self, rows: pa.Table, block: FloatArray, states: pa.Table | None = None) -> None:
        """See `fingerprint.Witness.see`."""
        self.features.add(block)
        if pc.any(rows["context"]).as_py():
            self._tables.append(_called(CONTEXT, rows.filter(rows["context"])))
        if states is not None:
            self._tables.append(_called(STATES, states))

    def taken(self) -> list[pa.Table]:
        """What was seen since it was asked the last time."""
        tables, self._tables = self._tables, []
        return tables


class Together:
    """Parts put together in the order of the rows."""

    def __init__(self, series: pa.Table, bundle: ModelBundle) -> None:
        self._series = series
        self._bundle = bundle
        self._schema = scored_by(bundle)
        self._seen: set[str] = set()
        self.changes = UnitChanges()
        self.spacing = Spacing()

    def take(self, rows: pa.Table, tables: Iterator[pa.Table], witness: Witness) -> Iterator[pa.Table]:
        """The predictions of a part, each chunk when the witness has seen what it is made from.

        rows: those of the part (ROWS). Raises PartDiffers, when the last chunk has come.
        """
        waiting: dict[str, pa.Table] = {}
        features, rows, taken = BlockHash(), _sorted(rows), 0
        for table in tables:
            what = _what(table)
            if what == SAID:
                own = rows.slice(taken, table.num_rows)
                taken += table.num_rows
                features.add(self._show(own, waiting.pop(CONTEXT, None), waiting.pop(STATES, None), witness))
                yield self._scored(own, table)
            elif what == NOTED:
                noted = json.loads(table["noted"][0].as_py())
                if (taken, noted["features"]) != (rows.num_rows, features.hexdigest()):
                    raise PartDiffers(
                        "a part was computed from other features than the same rows have in this process: look at the "
                        "memory of both machines, delete cache/shards/, and run it again"
                    )
                self.changes.add(noted["changes"])
                self.spacing.add(noted["spacing"])
                self._seen |= set(noted["seen"])
            else:
                waiting[what] = table.replace_schema_metadata(None)

    def _show(self, own: pa.Table, context: pa.Table | None, states: pa.Table | None, witness: Witness) -> FloatArray:
        chunk = own if context is None else _sorted(own, context)
        block = features_of(chunk, self._bundle, states)
        witness.take(chunk["file"].to_numpy(), block, context, states)
        return block

    def _scored(self, own: pa.Table, said: pa.Table) -> pa.Table:
        starts = np.maximum.accumulate(np.where(begins_series(own), np.arange(own.num_rows), 0))
        columns = {name: own[name] for name in ("file", "symbol", "date", "line")}
        columns |= {"index": pa.array(np.arange(own.num_rows) - starts), "val_open": own["open"]}
        columns |= {name: said[name] for name in said.schema.names}
        return pa.table(
            [columns[name].cast(self._schema.field(name).type) for name in self._schema.names], self._schema
        )

    def alike(self, directory: Path) -> LookAlikes:
        """The series that look like others, as `scored_rows.Scoring.add_earlier_rows` finds them."""
        alike = LookAlikes(self._bundle.coins)
        with RowSorter(directory) as sorter:
            missing = {field.name: pa.nulls(self._series.num_rows, field.type) for field in ROWS}
            given = {"file": self._series["file"], "symbol": self._series["symbol"]}
            day = pa.repeat(pa.scalar(0, pa.int32()), self._series.num_rows).cast(pa.date32())
            context = pa.repeat(False, self._series.num_rows)
            line = pa.repeat(pa.scalar(0, pa.int64()), self._series.num_rows)
            columns = {**missing, **given, "date": day, "line": line, "context": context}
            sorter.add(pa.table({name: columns[name] for name in ROWS.names}, ROWS))
            for spans in sorter.span_tables():
                others = alike.ask(spans)
                alike.see(sorted(self._seen & {*spans["symbol"].to_pylist(), *others}))
                alike.answer()
            for file, symbols in sorter.alike():
                alike.add(file, symbols)
        return alike


def scored_parts(
    engine: Engine, work: Work, parts: Parts, accepted: Path, *, tell: Tell
) -> Iterator[tuple[Iterator[pa.Table], Iterator[pa.Table]]]:
    """For each part its accepted rows as they are stored, by row groups, and its tables."""
    with pq.ParquetFile(accepted) as stored:
        for (begin, end), (_, tables) in zip(parts.groups, engine.results(work, tell=tell), strict=True):
            yield (stored.read_row_group(number) for number in range(begin, end)), tables


def of_a_part(groups: Sequence[pa.Table]) -> pa.Table:
    """Row groups of accepted rows as ROWS."""
    rows = pa.concat_tables(groups)
    return rows.append_column("context", pa.repeat(False, rows.num_rows)).select(ROWS.names).cast(ROWS)


def _sorted(*rows: pa.Table) -> pa.Table:
    """Rows (ROWS) of a part or a chunk in the order in which they are scored, held in memory."""
    with TemporaryDirectory(prefix="crypto_ml-part-") as name, RowSorter(Path(name)) as sorter:
        for some in rows:
            sorter.add(some)
        return pa.concat_tables(sorter.batches())


def _called(what: str, table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({WHAT: what.encode()})


def _what(table: pa.Table) -> str:
    return str((table.schema.metadata or {})[WHAT].decode())


def _stored_rows(store: ObjectStore, key: str, begin: int, end: int) -> pa.Table:
    """Some row groups of stored accepted rows, as ROWS; nothing else of the object is read, and that at once: a store
    takes longer over a request than over the columns that nobody asks for."""
    footer = _footer(store, key)
    columns = [
        footer.row_group(group).column(column) for group in range(begin, end) for column in range(footer.num_columns)
    ]
    first = min(_begins(column) for column in columns)
    last = max(_begins(column) + column.total_compressed_size for column in columns)
    content = memoryview(store.read_part(key, first, last - first))
    source = _Stored(first, last, lambda at, size: content[at - first : at - first + size])
    with pq.ParquetFile(source, metadata=footer, pre_buffer=True) as stored:
        names = [name for name in ROWS.names if name != "context"]
        return of_a_part([stored.read_row_groups(list(range(begin, end)), columns=names)])


def _begins(column: pq.ColumnChunkMetaData) -> int:
    return int(column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset)


@lru_cache(maxsize=MOST_FOOTERS)
def _footer(store: ObjectStore, key: str) -> pq.FileMetaData:
    """What stands behind the rows of an object that is never replaced, read once in a process."""
    found = store.head(key)
    size = found.size if found else len(store.read(key))  # which raises that it is missing
    with pq.ParquetFile(_Stored(0, size, lambda at, count: store.read_part(key, at, count))) as stored:
        return stored.metadata


class _Stored(io.RawIOBase):
    """Bytes from one place of an object to another, read where they are asked for. read: gives some of them, from a
    place on."""

    def __init__(self, begin: int, end: int, read: Callable[[int, int], bytes | memoryview]) -> None:
        self._end, self._read = end, read
        self._at = begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = max(0, min(self._end - self._at, self._end if size is None or size < 0 else size))
        content = bytes(self._read(self._at, wanted)) if wanted else b""
        self._at += len(content)
        return content
