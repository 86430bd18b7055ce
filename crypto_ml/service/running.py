"""The processes of the service: one worker, or several that share a port and a supervisor.

A worker that dies is replaced. Told to end (SIGTERM, SIGINT), workers take no more requests, answer those they have,
settle what they answered, and end.
"""

import logging
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from crypto_ml.deployment import Deployment
from crypto_ml.errors import CryptoMLError, Refused
from crypto_ml.service.application import create_app
from crypto_ml.service.config import ServiceConfig
from crypto_ml.service.draining import SECONDS_IDLE, Draining
from crypto_ml.service.gate import Gate
from crypto_ml.service.handling import Service
from crypto_ml.service.tokens import Tokens, is_loopback
from crypto_ml.settings import Settings

SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The Prometheus client's own variable: the folder by which processes tell their numbers together."""

BACKLOG: Final = 2048
SECONDS_TO_FINISH: Final = 10
"""Beyond the longest time for a request, until a worker that is told to end ends without what is left."""

SECONDS_OF_SILENCE: Final = 30
"""After which a worker that does not react is taken for dead."""

LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"crypto_ml": {"level": "INFO"}, "uvicorn.error": {"level": "INFO"}},
}


class PortTaken(Refused):
    """An address that somebody else listens at, or that is none of this machine."""


class NotOpen(Refused):
    """An address that others reach, and nobody to let in."""


class Workers(Multiprocess):
    """Uvicorn's supervisor, which also takes the numbers of a dead worker out of what Prometheus is told."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._seen: set[int | None] = set()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        alive = {process.pid for process in self.processes}
        for pid in self._seen - alive:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
        self._seen = alive


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. port: 0 takes any. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise PortTaken(
            f"{host} port {port} cannot be listened at ({error.strerror}): end what listens there, or choose another "
            "with --port"
        ) from error


def require_open(host: str, tokens: Tokens) -> None:
    """Raises NotOpen where anybody else could ask and no token is known."""
    if not tokens and not is_loopback(host):
        raise NotOpen(
            f"without tokens the service listens on this machine alone, and {host} is more: make one with "
            "`crypto-ml serve --new-token NAME`, and name its line in CRYPTO_ML_SERVE_TOKENS, or a file of them in "
            "CRYPTO_ML_SERVE_TOKENS_FILE"
        )


def serve(listening: socket.socket, settings: Settings, *, workers: int) -> None:
    """Answer requests until told to end. settings: what the environment says, which workers read for themselves."""
    config = uvicorn.Config(
        f"{__name__}:application",
        factory=True,
        workers=workers,
        lifespan="on",
        http=Draining,
        ws="none",
        timeout_keep_alive=SECONDS_IDLE,
        log_config=LOGGING,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=settings.serve_max_seconds + SECONDS_TO_FINISH,
        timeout_worker_healthcheck=SECONDS_OF_SILENCE,
    )
    if workers == 1:
        _alone(config, listening)
        return
    with TemporaryDirectory(prefix="crypto_ml-metrics-") as metrics:
        os.environ[SHARED_METRICS] = metrics
        config.configure_logging()
        Workers(config, [listening]).run()


def application() -> Gate:
    """The application of a worker, from its environment. Raises BadSetting, BadTokens."""
    try:
        settings = Settings.from_environment()
        shared = os.environ.get(SHARED_METRICS)
        config = ServiceConfig.of(settings)
        return create_app(Service.of(Deployment(settings), config, shared=Path(shared) if shared else None))
    except CryptoMLError as error:
        if multiprocessing.parent_process() is None:
            raise
        logging.getLogger(__name__).error("This worker cannot begin: %s", error)
        raise SystemExit(1) from None


def _alone(config: uvicorn.Config, listening: socket.socket) -> None:
    """One worker, in this process. Uvicorn raises a signal that ended it once more at its end: nothing follows."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
    uvicorn.Server(config).run(sockets=[listening])
    logging.getLogger(__name__).info("All that was accepted is answered")
