"""The road of an upload on a real S3, as any caller takes it who is not Dagster."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, delivery_id
from crypto_ml.ledger.layout import answer_keys
from crypto_ml.ledger.registry import Champion, Registry
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import Cleaned
from crypto_ml.stages.predictions import Answers
from crypto_ml.stages.raw_uploads import Received
from crypto_ml.stages.road import answer_delivery, clean_rows, receive_uploads
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ("symbol", "date", "open", "high", "low", "close", "market")

PREFIXES = (
    "uploads/",
    "predictions/",
    "forecasts/",
    "market_history/",
    "cache/",
    "prediction_log/",
    "raw/",
    "receipts/",
    "models/",
)
"""What keys in the bucket may begin with: the contract's prefixes."""


def upload(rows: pd.DataFrame, *, columns: Iterable[str] = COLUMNS) -> bytes:
    """A market (see `markets.market`) as a file."""
    return rows[list(columns)].to_csv(index=False, date_format="%Y-%m-%d").encode()


@dataclass
class Road:
    """A store with nothing in it but what a test drops, and a model of random numbers that serves from the start."""

    store: ObjectStore
    bundle: ModelBundle = field(default_factory=model)
    settings: Settings = field(default_factory=Settings)
    now: datetime = NOW
    _deployment: Deployment | None = None

    @property
    def history(self) -> MarketHistory:
        return MarketHistory(self.store)

    @property
    def registry(self) -> Registry:
        return Registry(self.store)

    def drop(self, **files: bytes) -> None:
        """Put files into uploads/, each under the name of its argument with `.csv` behind it."""
        self.put({f"{name}.csv": content for name, content in files.items()})

    def put(self, files: Mapping[str, bytes]) -> None:
        """Put files into uploads/ under these names."""
        for name, content in files.items():
            self.store.replace(f"uploads/{name}", content)

    def answer_new(self) -> list[Answers]:
        """Answer every delivery that a look into uploads/ makes."""
        return [self.answer(delivery.number) for delivery in self.assign()]

    def assign(self) -> list[Delivery]:
        """Look into uploads/ once."""
        return DeliveryLog(self.store).assign_new(self.now)

    def answer(self, number: int, run_id: str = "run") -> Answers:
        """Take a delivery down the whole road, whether for the first time or again."""
        self.serving()
        return answer_delivery(delivery_id(number), self.deployment, run_id=run_id, now=self.now)

    def clean(self, number: int) -> tuple[Received, Cleaned]:
        """The first half of the road."""
        received = receive_uploads(delivery_id(number), self.deployment, self.now)
        return received, clean_rows(received, self.deployment, self.serving())

    def serving(self) -> Champion:
        """The champion; the model of random numbers where nobody was promoted yet."""
        return self.registry.champion_or_first(lambda: self.bundle, self.now)

    @property
    def deployment(self) -> Deployment:
        """The deployment of this store, with the settings of the moment."""
        if self._deployment is None or self._deployment.settings != self.settings:
            self._deployment = Deployment(self.settings, store=self.store)
        return self._deployment

    def predictions(self, name: str) -> pd.DataFrame:
        """The prediction file of an upload; numbers to the last bit."""
        content = self.store.read(answer_keys(f"uploads/{name}.csv").predictions)
        return pd.read_csv(io.BytesIO(content), keep_default_na=False)

    def report(self, name: str) -> dict[str, Any]:
        """The report on `uploads/<name>`, or on `uploads/<name>.csv` where the name has no ending."""
        key = name if "." in name else f"{name}.csv"
        document: dict[str, Any] = json.loads(self.store.read(answer_keys(f"uploads/{key}").report))
        return document

    def rejected_rows(self, name: str) -> list[tuple[int, str]]:
        """Line and reason of each row in the file of refused rows."""
        content = self.store.read(answer_keys(f"uploads/{name}.csv").rejected_rows).decode()
        return [(int(row["line"]), row["reason"]) for row in csv.DictReader(io.StringIO(content))]

    def objects(self, *, without: str = "\0") -> dict[str, str]:
        """Key → ETag of everything there is, but for keys that end in `without`."""
        return {found.key: found.etag for found in self.store.list() if not found.key.endswith(without)}
