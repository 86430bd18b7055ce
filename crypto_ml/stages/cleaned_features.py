"""cleaned_features: a delivery's accepted rows in one Parquet file, sorted, with the features a row has by itself.

Refused rows stand beside them with their reasons. Both are written once, under a key that names the state of the code
and of the settings that made them.
"""

import logging
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.forecasting.alike import take_in_alike
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.current import Order
from crypto_ml.forecasting.features import add_levels
from crypto_ml.forecasting.intake import (
    FileIntake,
    IntakeRules,
    Repeats,
    name_series,
    nothing_left,
    settled_rows,
    take_in_all,
)
from crypto_ml.forecasting.refusals import LISTED
from crypto_ml.forecasting.refusals import REFUSED as REFUSED_SCHEMA
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.sorting import ROWS, RowSorter
from crypto_ml.forecasting.uploads.json_records import as_csv
from crypto_ml.forecasting.uploads.layouts import columns_given
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.formats.reading import adapter, read_record
from crypto_ml.ledger.layout import cleaned_prefix, cleanings_prefix
from crypto_ml.ledger.requests import is_json, is_request
from crypto_ml.settings import Settings
from crypto_ml.stages.progress import logged
from crypto_ml.stages.raw_uploads import Kept, Received
from crypto_ml.storage.at_once import InTurn
from crypto_ml.storage.failures import AlreadyExists, ObjectMissing
from crypto_ml.storage.objects import ObjectStore

log: Final = logging.getLogger(__name__)
PREVIEW_ROWS: Final = 5
FEW_ROWS: Final = 100
"""So few are not compressed: of each column it takes longer than the rest of what is done to it."""

AHEAD: Final = 4
"""Files on local disk at once, while one of them is read."""

ACCEPTED, REFUSED, SUMMARY = "accepted.parquet", "refused.parquet", "cleaned.json"
ACCEPTED_SCHEMA: Final = pa.schema(
    [
        *(field for field in ROWS if field.name != "context"),
        *((name, pa.float64()) for name in ("close_ratio", "spread", "log_shares")),
    ]
)


@dataclass(frozen=True)
class CleanedFile:
    """One file: received = accepted + refused + repeated rows. `refusal`: why the file was refused as a whole.

    listed: how many of the refused rows are in REFUSED, where that is not all of them. read_as: in what it was not read
    as plain CSV is (see `read_as.ReadAs`), None where in nothing.
    """

    received: int
    accepted: int
    refused: int
    repeated: int
    date_order: str | None
    ignored_columns: Sequence[str]
    refusal: str | None
    listed: int | None = None
    read_as: Mapping[str, Any] | None = None


class Slugs(Protocol):
    """Who knows the coin behind a symbol: the history, or what remembers what it said."""

    def slugs(
        self, symbols: Collection[str] | None = None, version: int | None = None, order: Order = "delivered"
    ) -> dict[str, str]:
        """See `MarketHistory.slugs`."""


@dataclass(frozen=True)
class KnownCoins:
    """Who holds a symbol already: the coin that history knows under it, else the one that the champion knows."""

    history: Slugs
    history_version: int | None
    champion: ModelBundle
    order: Order = "delivered"

    def under(self, symbols: Collection[str]) -> dict[str, str]:
        """symbol → slug, for those of `symbols` where one is known."""
        learnt = self.champion.slugs
        known = {symbol: learnt[symbol] for symbol in symbols if symbol in learnt}
        return known | self.history.slugs(symbols, self.history_version, self.order) if symbols else {}


@dataclass(frozen=True)
class Cleaned:
    """A delivery as cleaned: the sha256 of its accepted rows, what became of each file (by its number in the delivery),
    the series that are not named by their symbol alone (name → [symbol, slug]), the state of the history and the
    champion by which they were named, the first rows to look at, which cleaning of the delivery this is, and the first
    and the last day of the accepted rows (ISO 8601; None where there are none, or in records of 0.2)."""

    delivery: str
    code: str
    accepted_sha256: str
    files: Mapping[int, CleanedFile]
    renamed: Mapping[str, Sequence[str]]
    named_by: Mapping[str, Any]
    preview: Sequence[Mapping[str, Any]]
    cleaning: int = 1
    first_day: str | None = None
    last_day: str | None = None

    @property
    def accepted_key(self) -> str:
        return f"{cleaned_prefix(self.delivery, self.code)}{self.accepted_sha256[:16]}-{ACCEPTED}"

    @property
    def refused_key(self) -> str:
        return f"{cleaned_prefix(self.delivery, self.code)}{self.accepted_sha256[:16]}-{REFUSED}"

    @property
    def record_key(self) -> str:
        return cleaned_prefix(self.delivery, self.code) + SUMMARY

    @property
    def accepted_rows(self) -> int:
        return sum(file.accepted for file in self.files.values())


def stage_code(settings: Settings) -> str:
    """The state of the code and of the settings that decide how an upload is cleaned."""
    parts = (code_version(__name__), settings.date_order, settings.max_upload_bytes, settings.columns)
    return sha256_of(repr(parts).encode())[:12]


def clean(
    received: Received,
    coins: KnownCoins,
    store: ObjectStore,
    settings: Settings,
    *,
    accepted: list[pa.Table] | None = None,
    directory: Path | None = None,
) -> Cleaned:
    """Clean the files of a delivery; what the same code and settings have cleaned before is not cleaned again.

    accepted: gets the accepted rows (ACCEPTED_SCHEMA), for whoever goes on with them in the same process; none where
    they were cleaned before. directory: an empty one to work in, where somebody has one.
    """
    try:
        return read_cleaned(received.delivery, settings, store)
    except ObjectMissing:
        pass
    with TemporaryDirectory(prefix="crypto_ml-clean-") if directory is None else nullcontext(directory) as name:
        directory = Path(name)
        cleaned = clean_into(directory, received, coins, store, settings, accepted=accepted)
        before = sum(found.key.endswith(SUMMARY) for found in store.list(cleanings_prefix(received.delivery)))
        return _keep(replace(cleaned, cleaning=before + 1), directory, store, settings)


def clean_into(
    directory: Path,
    received: Received,
    coins: KnownCoins,
    store: ObjectStore,
    settings: Settings,
    *,
    accepted: list[pa.Table] | None = None,
) -> Cleaned:
    """Clean the files of a delivery and write ACCEPTED and REFUSED into a local directory.

    accepted: see `clean`. Raises ObjectMissing where the bytes received are gone.
    """
    rules = IntakeRules(
        datetime.fromisoformat(received.at).date(),
        settings.date_order,
        settings.max_upload_bytes,
        columns_given(settings.columns),
    )
    names = {number: file.upload.key for number, file in enumerate(received.files)}
    tell = logged(log, f"delivery {received.delivery}")
    with RowSorter(directory / "sort") as sorter:
        together = _together(received, store)
        alike = take_in_alike(together, rules, sorter, directory)
        others = _uploads(received, {n: together[n] for n in together if n not in alike}, alike, store, directory)
        intakes = {**alike, **take_in_all(others, rules, sorter, names, tell=tell)}
        intakes = {number: intakes[number] for number in sorted(intakes)}
        renamed = name_series(sorter, coins.under)
        repeats = Repeats()
        preview, days = _write_accepted(sorter, repeats, directory / ACCEPTED, accepted)
        files = {number: _summary(intake, repeats, sorter, number) for number, intake in intakes.items()}
        _write_refused([number for number, file in files.items() if file.refused], sorter, directory / REFUSED)
    return Cleaned(
        delivery=received.delivery,
        code=stage_code(settings),
        accepted_sha256=sha256_of_file(directory / ACCEPTED),
        files=files,
        renamed={name: list(coin) for name, coin in renamed.items()},
        named_by={"history_version": coins.history_version, "champion": coins.champion.version},
        preview=preview,
        first_day=min(days, default=None),
        last_day=max(days, default=None),
    )


def read_cleaned(delivery: str, settings: Settings, store: ObjectStore) -> Cleaned:
    """The record of a delivery cleaned by the current code and settings. Raises ObjectMissing."""
    return read_cleaning(cleaned_prefix(delivery, stage_code(settings)) + SUMMARY, store)


def read_cleaning(key: str, store: ObjectStore) -> Cleaned:
    """The record of a cleaning under its key, of whichever code. Raises ObjectMissing, RecordDamaged."""
    return read_record(Cleaned, store.read_json(key), store.uri(key))


def download_named(key: str, path: Path, store: ObjectStore) -> None:
    """Download an object that is written once. Raises ObjectMissing."""
    with _never_deleted():
        store.download_whole(key, path)


def download_kept(kept: Kept, path: Path, store: ObjectStore) -> None:
    """Download the bytes of an upload as they are kept. Raises ObjectMissing."""
    if kept.begin is None:
        download_named(kept.key, path, store)
        return
    with _never_deleted():
        path.write_bytes(kept.read(store))


def read_named(key: str, store: ObjectStore) -> bytes:
    """Read an object that is written once. Raises ObjectMissing."""
    with _never_deleted():
        return store.read(key)


@contextmanager
def _never_deleted() -> Iterator[None]:
    try:
        yield
    except ObjectMissing as missing:
        raise ObjectMissing(f"{missing} It was deleted from outside, restore it.") from missing


def _together(received: Received, store: ObjectStore) -> dict[int, bytes]:
    """The bytes of those files that are kept together, by number; records in JSON as the CSV that they are read as."""
    kept = {n: one for n, file in enumerate(received.files) if (one := received.kept(n)) and not file.outcome}
    parts = {number: one for number, one in kept.items() if one.begin is not None}
    objects = {key: read_named(key, store) for key in {one.key for one in parts.values()}}
    contents = {n: objects[one.key][one.begin : (one.begin or 0) + one.size] for n, one in parts.items()}
    if not is_request(received.delivery):
        return contents
    return {n: as_csv(found) if is_json(received.files[n].upload.key) else found for n, found in contents.items()}


def _uploads(
    received: Received, at_hand: Mapping[int, bytes], done: Collection[int], store: ObjectStore, directory: Path
) -> Iterator[tuple[int, Path]]:
    """The bytes received of each file but for those that are done, fetched a few ahead where they are not at hand; a
    file is gone once the next one is asked for."""
    readable = [number for number, file in enumerate(received.files) if not file.outcome and number not in done]
    wanted = [(number, kept) for number in readable if (kept := received.kept(number))]

    def fetch(number: int, kept: Kept) -> Path:
        path = directory / f"upload-{number}"
        if number in at_hand:
            path.write_bytes(at_hand[number])
        else:
            download_named(kept.key, path, store)
        return path

    with InTurn() if at_hand.keys() >= {number for number, _ in wanted} else ThreadPoolExecutor(AHEAD) as pool:
        fetched = deque[tuple[int, Future[Path]]]()
        waiting = iter(wanted)
        for number, kept in islice(waiting, AHEAD):
            fetched.append((number, pool.submit(fetch, number, kept)))
        while fetched:
            number, path = fetched.popleft()
            yield number, path.result()
            path.result().unlink()
            for later, kept in islice(waiting, 1):
                fetched.append((later, pool.submit(fetch, later, kept)))


def _write_accepted(
    sorter: RowSorter, repeats: Repeats, path: Path, accepted: list[pa.Table] | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the accepted rows; returns the first of them as JSON has them, and the first and last day of each chunk."""
    first_rows: list[dict[str, Any]] = []
    days: list[str] = []
    chunks = settled_rows(sorter, repeats)
    first = next(chunks, None)
    few = first is None or first.num_rows <= FEW_ROWS
    with pq.ParquetWriter(path, ACCEPTED_SCHEMA, compression="none" if few else "zstd") as writer:
        for chunk in () if first is None else chain([first], chunks):
            table = _with_levels(chunk)
            writer.write_table(table)
            if accepted is not None:
                accepted.append(table)
            days += [day.as_py().isoformat() for day in pc.min_max(table["date"]).values() if day.is_valid]
            if not first_rows:
                rows = table.slice(0, PREVIEW_ROWS).drop_columns(["file"]).to_pylist()
                first_rows = [{**row, "date": row["date"].isoformat()} for row in rows]
    return first_rows, days


def _with_levels(rows: pa.Table) -> pa.Table:
    """Accepted rows with what a row has by itself, in the columns of ACCEPTED_SCHEMA, each in one piece: on the pieces
    depend the bytes of a Parquet file."""
    levels = add_levels(Columns({name: rows[name].to_numpy() for name in (*PRICES, "market")}))
    columns = (
        rows[name] if name in rows.schema.names else pa.array(levels[name], from_pandas=True)
        for name in ACCEPTED_SCHEMA.names
    )
    return pa.table(list(columns), schema=ACCEPTED_SCHEMA).combine_chunks()


def _write_refused(files: Collection[int], sorter: RowSorter, path: Path) -> None:
    if not files:
        path.write_bytes(_no_refused())
        return
    with pq.ParquetWriter(path, REFUSED_SCHEMA, compression="zstd") as writer:
        for number in files:
            for batch in sorter.refusals.listed(number):
                writer.write_batch(batch)


@cache
def _no_refused() -> bytes:
    """The file of a delivery without a refused row."""
    nothing = pa.BufferOutputStream()
    with pq.ParquetWriter(nothing, REFUSED_SCHEMA, compression="zstd"):
        pass
    return bytes(nothing.getvalue())


def _summary(intake: FileIntake, repeats: Repeats, sorter: RowSorter, number: int) -> CleanedFile:
    contradicting, repeated = repeats.contradicting[number], repeats.repeated[number]
    refused = intake.refused_rows + contradicting
    accepted = intake.accepted_rows - contradicting - repeated
    return CleanedFile(
        received=intake.received_rows,
        accepted=accepted,
        refused=refused,
        repeated=repeated,
        date_order=intake.date_order,
        ignored_columns=list(intake.ignored_columns),
        refusal=intake.refusal or (None if accepted else nothing_left(sorter, number)),
        listed=LISTED if refused > LISTED else None,
        read_as=(intake.read_as.recorded() or None) if intake.read_as else None,
    )


def _keep(cleaned: Cleaned, directory: Path, store: ObjectStore, settings: Settings) -> Cleaned:
    """Write the evidence, the record last: whoever finds the record finds everything it names."""
    for name, key in ((ACCEPTED, cleaned.accepted_key), (REFUSED, cleaned.refused_key)):
        with suppress(AlreadyExists):  # left by a run that died before it wrote the record; the same rows
            store.upload_file(directory / name, key, create_only=True)
    try:
        store.create_json(cleaned.record_key, adapter(Cleaned).dump_python(cleaned))
    except AlreadyExists:
        return read_cleaned(cleaned.delivery, settings, store)
    return cleaned
