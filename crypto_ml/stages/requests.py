"""Requests answered down the road of files: the same cleaning, the same scoring, the same receipts.

What the road writes for them gathers in a pack, which is stored as one object before anybody has an answer; so an
answer that was given is one that can be traced and replayed, whatever becomes of who gave it. Where no answer is to be
recorded, everything is the same but for the storing.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.answers import PREDICTIONS_READ, REJECTED_ROWS
from crypto_ml.forecasting.bundle import MANIFEST, ModelBundle
from crypto_ml.forecasting.uploads.checked_text import GZIP_MAGIC
from crypto_ml.forecasting.uploads.file_kinds import PARQUET
from crypto_ml.forecasting.uploads.json_records import as_csv
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml.ledger.clock import not_before
from crypto_ml.ledger.deliveries import Upload, delivery_key
from crypto_ml.ledger.formats.reading import adapter
from crypto_ml.ledger.formats.receipt_v2 import Outcome, Receipt
from crypto_ml.ledger.layout import bundle_prefix, received_key, together_key
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.registry import Champion
from crypto_ml.ledger.reports import report_key_of
from crypto_ml.ledger.requests import ZIP, asked_key, new_delivery, pack_key, seen_with
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import KnownCoins, clean
from crypto_ml.stages.delivery_scoring import Sources
from crypto_ml.stages.predictions import answer
from crypto_ml.stages.raw_uploads import FORMAT, Received, ReceivedFile
from crypto_ml.stages.remembered_series import RememberedSeries
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.packed import PackedStore

RUN: Final = "crypto-ml serve"
"""What receipts name in the place of a run of Dagster."""

NO_LINES: Final = pa_csv.ReadOptions(use_threads=False)
FEW_BYTES: Final = 8 << 10
"""Of a file that is read line by line, which takes less than Arrow's reader takes to be set up."""

_READ: Final[Mapping[Any, Callable[[str], Any]]] = {
    pa.string(): str,
    pa.int64(): int,
    pa.float64(): lambda text: float(text) if text else None,
    pa.date32(): date.fromisoformat,
}


@dataclass(frozen=True)
class Asked:
    """The body of one request. json: a record, or a list of records. name: the request's own id, of characters that a
    key may have."""

    body: bytes
    kind: Literal["csv", "json"]
    name: str

    def __post_init__(self) -> None:
        """Raises UnreadableUpload for what is small only until it is read; whoever has such files drops them."""
        if self.body.startswith((GZIP_MAGIC, PARQUET)):
            raise UnreadableUpload("the body is compressed, or Parquet: send it as it is, or drop it as a file")

    def check(self) -> None:
        """Raises UnreadableUpload where the body is to be JSON and is no records."""
        if self.kind == "json":
            as_csv(self.body)


@dataclass(frozen=True, eq=False)
class Serving:
    """What requests are answered with: model, approval and the state of the history, looked up once for many of them.

    known: the objects behind it that are written once, with their bytes.
    """

    champion: Champion
    bundle: ModelBundle
    history: MarketHistory
    history_version: int | None
    series: RememberedSeries
    settings: Settings
    known: Mapping[str, bytes]

    @classmethod
    def of(cls, deployment: Deployment) -> "Serving":
        """What a deployment serves with now. Raises what reading it raises (Refused, Unavailable)."""
        champion, history, store = deployment.champion(), deployment.history, deployment.store
        version = history.version()
        bundle = deployment.bundle(champion.version)
        keys = (deployment.registry.pointer_key(champion.pointer), bundle_prefix(bundle.version) + MANIFEST)
        return cls(
            champion,
            bundle,
            history,
            version,
            RememberedSeries(deployment.series, history, version),
            deployment.settings,
            {key: store.read(key) for key in keys},
        )

    def is_current(self, deployment: Deployment) -> bool:
        """Whether a deployment still serves with this. Raises what asking the store raises.

        Asked is for the two objects that would follow, which costs a twelfth of listing what there is.
        """
        return deployment.registry.is_last(self.champion.pointer) and deployment.history.is_newest(self.history_version)


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to one request. reason: why it was rejected as a whole. report: what the report on it says.

    pack: what was written of it, under its ordinary keys. stored: whether whoever holds this reply stored the pack, and
    so has to see to it that it is settled.
    """

    delivery: str
    answer_id: str
    outcome: Outcome
    reason: str | None
    report: Mapping[str, Any]
    pack: ObjectStore
    recorded: bool
    stored: bool = False

    @cached_property
    def predictions_csv(self) -> bytes:
        """The predictions as a file of them is; empty where there are none."""
        return self._published("predictions")

    @cached_property
    def predictions(self) -> pa.Table:
        """The predictions in the columns of `answers.PREDICTIONS_READ` that the file has, sorted by symbol and date."""
        return _table(self.predictions_csv, PREDICTIONS_READ)

    @cached_property
    def refused_rows(self) -> pa.Table:
        """The refused rows in the columns of `answers.REJECTED_ROWS`."""
        return _table(self._published("rejected_rows"), REJECTED_ROWS)

    def _published(self, what: str) -> bytes:
        key = self.report[what]
        return self.pack.read(key) if key else b""


def answer_requests(
    asked: Sequence[Asked],
    serving: Serving,
    deployment: Deployment,
    *,
    now: datetime,
    delivery: str | None = None,
    record: bool = True,
) -> list[Reply]:
    """Answer requests together, each as the only file of its sender would be; whoever has a reply has one that stands.

    delivery: its name, where somebody has named it before; where its pack stands already, what stands is returned.
    The bodies have been checked (`Asked.check`). Raises what the road raises: Unavailable where it is worth another
    try, Refused where it is not; nothing was answered then.
    """
    name = delivery or new_delivery(now)
    store = deployment.store
    pack = PackedStore(store, name, known=serving.known)
    received = _received(name, asked, pack, now)
    coins = KnownCoins(serving.series, serving.history_version, serving.bundle)
    sources = Sources(
        pack,
        serving.history,
        serving.history_version,
        serving.bundle,
        serving.champion,
        serving.settings,
        RUN,
        series=serving.series,
    )
    with TemporaryDirectory(prefix="crypto_ml-requests-") as name_of_folder:
        folder, accepted = Path(name_of_folder), list[pa.Table]()
        cleaned = clean(received, coins, pack, serving.settings, accepted=accepted, directory=folder)
        if cleaned.renamed and len(asked) > 1:  # what a coin is named must not depend on who else asks just now
            one_by_one = (answer_requests([one], serving, deployment, now=now, record=record) for one in asked)
            return [reply for replies in one_by_one for reply in replies]
        receipts = answer(received, cleaned, sources, accepted=accepted, directory=folder).receipts
    if record:
        content = pack.rendered()
        try:
            store.create(pack_key(name), content, content_type=ZIP)
        except AlreadyExists:
            if delivery is not None:  # somebody answered in this name before
                return read_replies(name, store)
            if store.read(pack_key(name)) != content:  # another process took the same name in the same millisecond
                return answer_requests(asked, serving, deployment, now=now)
    return [_reply(receipt, pack, recorded=record, stored=record) for receipt in receipts]


def read_replies(delivery: str, store: ObjectStore) -> list[Reply]:
    """The answers to requests, in the order in which they were asked. Raises ObjectMissing, PackDamaged."""
    pack = seen_with(delivery, store)
    receipts = {receipt.upload.key: receipt for receipt in receipts_of(delivery, pack)}
    order = pack.read_json(delivery_key(delivery))["uploads"]
    return [_reply(receipts[upload["key"]], pack, recorded=True) for upload in order]


def _received(delivery: str, asked: Sequence[Asked], pack: PackedStore, now: datetime) -> Received:
    """The bodies as uploads that were received, kept together, with the records that those have."""
    at = not_before(now)
    files, begin = [], 0
    for number, one in enumerate(asked):
        sha256 = sha256_of(one.body)
        key = asked_key(delivery, number, one.name, one.kind)
        files.append(ReceivedFile(Upload(key, sha256, len(one.body), at), sha256, begin=begin))
        begin += len(one.body)
    everything = b"".join(one.body for one in asked)
    together = sha256_of(everything)
    received = Received(delivery, at, at, files, together, FORMAT)
    pack.create_json(delivery_key(delivery), {"noticed_at": at, "uploads": [vars(file.upload) for file in files]})
    pack.create(together_key(delivery, together), everything)
    pack.create_json(received_key(delivery), adapter(Received).dump_python(received))
    return received


def _reply(receipt: Receipt, pack: ObjectStore, *, recorded: bool, stored: bool = False) -> Reply:
    report, delivery = pack.read_json(report_key_of(receipt, pack)), receipt.inputs.delivery
    return Reply(delivery, receipt.answer_id, receipt.outcome, receipt.reason, report, pack, recorded, stored)


def _table(content: bytes, schema: pa.Schema) -> pa.Table:
    """A file that `append_csv` wrote, with all of the columns of a schema or the first ones."""
    if not content:
        return schema.empty_table()
    schema = _there(content, schema)
    if len(content) <= FEW_BYTES:
        _, *lines = csv.reader(io.StringIO(content.decode(), newline=""))
        columns = zip(*lines, strict=True) if lines else [()] * len(schema)
        read = [_READ[field.type] for field in schema]
        values = [[convert(text) for text in column] for convert, column in zip(read, columns, strict=True)]
        return pa.table(values, schema=schema)
    options = pa_csv.ConvertOptions(column_types=schema, strings_can_be_null=False)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    return pa_csv.read_csv(pa.BufferReader(content), NO_LINES, parse, options)


def _there(content: bytes, schema: pa.Schema) -> pa.Schema:
    """The columns of a schema that a file has: a model without a serving rule says nothing beside the open."""
    names = content.split(b"\n", 1)[0].decode().strip().split(",")
    return pa.schema([schema.field(name) for name in names])
