"""The stored objects behind an answer, read as the receipt names them, whatever code reads them today."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.uploads.json_records import record_of
from crypto_ml.forecasting.uploads.layouts import columns_given
from crypto_ml.forecasting.uploads.parquet import is_parquet, row_of
from crypto_ml.forecasting.uploads.reading import line_of
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.registry import Champion, Registry, repeated_champion
from crypto_ml.ledger.requests import is_json, is_request, seen_with
from crypto_ml.ledger.retractions import upload_id
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import ACCEPTED_SCHEMA, Cleaned, download_kept, download_named, read_cleaning
from crypto_ml.stages.delivery_scoring import Sources
from crypto_ml.stages.raw_uploads import Kept, Received, read_received
from crypto_ml.stages.series_by_name import Series
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.series.cache import SeriesCache


@dataclass(frozen=True)
class Evidence:
    """One answer's receipt, and what it names; downloads go into `directory`.

    store: where all of it stands under the keys that the receipt names, also where the answer is one to a request, and
    stands in its pack. bucket: the store itself, which has the tables.
    """

    receipt: Receipt
    store: ObjectStore
    bucket: ObjectStore
    directory: Path

    @classmethod
    def of(cls, answer_id: str, store: ObjectStore, directory: Path) -> "Evidence":
        """The evidence behind an answer. Raises ObjectMissing, ReceiptDamaged, PackDamaged."""
        seen = seen_with(answer_id.partition("-")[0], store)
        return cls(read_receipt(answer_id, seen), seen, store, directory)

    @property
    def is_request(self) -> bool:
        """Whether a request was answered, and no file."""
        return is_request(self.receipt.inputs.delivery)

    @property
    def history(self) -> MarketHistory:
        return MarketHistory(self.bucket)

    @cached_property
    def received(self) -> Received:
        return read_received(self.receipt.inputs.delivery, self.store)

    @cached_property
    def file(self) -> int:
        """The number of the upload in its delivery."""
        return [file.upload for file in self.received.files].index(self.receipt.upload)

    @property
    def kept(self) -> Kept | None:
        """Where the bytes of the upload are kept; None where they could not be had."""
        return self.received.kept(self.file)

    @property
    def upload_id(self) -> str:
        """The name of the upload in the history."""
        return upload_id(self.receipt.inputs.delivery, self.file)

    @cached_property
    def cleaned(self) -> Cleaned:
        return read_cleaning(self.receipt.evidence["cleaned"].key, self.store)

    @cached_property
    def bundle(self) -> ModelBundle:
        return Registry(self.bucket).load(self.receipt.model.version)

    @property
    def settings(self) -> Settings:
        """The settings that the answer was given with, as far as they decide it."""
        return Settings.recorded(self.receipt.settings)

    @property
    def champion(self) -> Champion:
        return repeated_champion(self.receipt.champion)

    @cached_property
    def series(self) -> SeriesCache:
        """The earlier rows of series, found through the cache. It is no evidence: whoever wants to know what the
        history itself gives asks for sources without it."""
        return SeriesCache(self.bucket, self.history)

    def sources(self, series: Series | None = None) -> Sources:
        """What the delivery was answered with. series: where series are read; None: in the history itself."""
        receipt = self.receipt
        return Sources(
            self.store,
            self.history,
            receipt.history.read,
            self.bundle,
            self.champion,
            self.settings,
            receipt.run_id,
            receipt.inputs.current,
            receipt.inputs.earlier,
            series,
        )

    def accepted(self, symbols: Collection[str] | None = None) -> pa.Table:
        """The accepted rows of the upload, of some series or of all, in order."""
        path = self.directory / "accepted.parquet"
        if not path.exists():
            download_named(self.receipt.evidence["accepted"].key, path, self.store)
        wanted = pc.field("file") == self.file
        if symbols is not None:
            wanted &= pc.field("symbol").isin(list(symbols))
        return pq.read_table(path, schema=ACCEPTED_SCHEMA, filters=wanted)  # what came later is missing there

    def raw_line(self, line: int) -> str:
        """A line of the upload as it was received; of records in JSON the one that counts as this line."""
        path = self.directory / str(self.receipt.inputs.upload_sha256)
        if self.kept and not path.exists():
            download_kept(self.kept, path, self.store)
        if self.is_request:
            return record_of(path.read_bytes(), line) if is_json(self.receipt.upload.key) else line_of(path, line)
        if is_parquet(path):
            return row_of(path, line, self.receipt.upload.key, columns_given(self.settings.columns))
        return line_of(path, line)
