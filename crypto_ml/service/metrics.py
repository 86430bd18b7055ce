"""What Prometheus is told, of one worker or, through a folder that they share, of all of them."""

from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS: Final = (0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TOGETHER: Final = (1, 2, 5, 10, 20, 50, 100)
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The numbers of one worker. shared: the folder by which several tell theirs together."""

    def __init__(self, shared: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._shared = shared
        self._registry = CollectorRegistry()
        of = self._registry
        self.requests = Counter("crypto_ml_requests", "Requests answered.", ["route", "method", "status"], registry=of)
        self.seconds = Histogram(
            "crypto_ml_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=of,
        )
        self.rows = Counter(
            "crypto_ml_rows", "Rows that were asked about, by what became of them.", ["fate"], registry=of
        )
        self.together = Histogram(
            "crypto_ml_requests_together", "Requests that were answered as one delivery.", buckets=TOGETHER, registry=of
        )
        self.waiting = Gauge(
            "crypto_ml_requests_waiting",
            "Requests for predictions that nobody has begun to answer.",
            multiprocess_mode="livesum",
            registry=of,
        )
        self.at_once = Gauge(
            "crypto_ml_requests_at_once",
            "Requests for predictions that were let in and are not answered.",
            multiprocess_mode="livesum",
            registry=of,
        )
        self.serving = Gauge(
            "crypto_ml_workers_serving",
            "Workers that answer with a model.",
            ["model_version"],
            multiprocess_mode="livesum",
            registry=of,
        )
        self.history_version = Gauge(
            "crypto_ml_history_version",
            "The version of the market history that answers are made from; of several workers the oldest.",
            multiprocess_mode="livemin",
            registry=of,
        )
        self.looked_at = Gauge(
            "crypto_ml_looked_at_timestamp_seconds",
            "When champion and history were last looked up; of several workers the one longest ago.",
            multiprocess_mode="livemin",
            registry=of,
        )
        self.look_failures = Counter(
            "crypto_ml_look_failures", "Looks at champion and history that failed; the last one stays.", registry=of
        )
        self.settled = Counter("crypto_ml_settled", "Deliveries whose predictions went into the log.", registry=of)
        self.unsettled = Gauge(
            "crypto_ml_unsettled",
            "Deliveries whose predictions are not in the log yet.",
            multiprocess_mode="livesum",
            registry=of,
        )
        self.settle_failures = Counter(
            "crypto_ml_settle_failures", "Attempts at that which failed, and are made again.", registry=of
        )
        self._version: str | None = None

    def serve(self, version: str, history_version: int | None) -> None:
        """This worker answers with a model and a version of the history from now on."""
        if version != self._version:
            if self._version is not None:
                self.serving.labels(self._version).set(0)
            self.serving.labels(version).set(1)
            self._version = version
        self.history_version.set(-1 if history_version is None else history_version)

    def rendered(self) -> bytes:
        """All of it in Prometheus's text format."""
        if self._shared is None:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(everybody)
