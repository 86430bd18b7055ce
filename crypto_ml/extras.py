"""What is there only where an extra of the package was installed, and the sentence where it was not.

Scoring needs none of it. What belongs here: which modules come with which extra; who needs one asks before it begins.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from crypto_ml.errors import Blocked

TRAINING: Final = ("tensorflow", "keras", "onnx", "h5py", "sklearn")
"""What building, fitting, exporting and reading networks takes."""

TUNING: Final = ("optuna",)
"""What a search for parameters takes beside it."""

DRAWING: Final = ("matplotlib", "PIL")
"""What pictures take; it comes with `training`, and nothing but a picture needs it."""

DEMO: Final = ("ministack",)
"""The embedded S3 server."""

SERVING: Final = ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")
"""What the REST service takes."""

EXPERIMENTS: Final = ("mlflow",)
"""The client of an MLflow server."""

PAGE: Final = ("bokeh",)
"""The page on which predictions are looked at."""

CLUSTER: Final = ("distributed",)
"""The client of a Dask cluster, and what runs one."""


TIMESTAMPS: Final = ("rfc3161_client",)
"""What asks for time stamps, and verifies them."""


class NotInstalled(Blocked):
    """Something that this installation was made without."""


def require_training(what: str) -> None:
    """Raises NotInstalled where libraries are missing that `what` (the beginning of the sentence) needs."""
    _require(what, TRAINING, "training")


def require_tuning(what: str) -> None:
    """Raises NotInstalled where libraries are missing that `what` needs to search for parameters."""
    _require(what, (*TRAINING, *TUNING), "training")


def require_drawing(what: str) -> None:
    """Raises NotInstalled where `what` cannot be drawn."""
    _require(what, DRAWING, "training")


def require_timestamps(what: str) -> None:
    """Raises NotInstalled where `what` can neither be asked for nor verified."""
    _require(what, TIMESTAMPS, "timestamp")


def require_demo(what: str) -> None:
    """Raises NotInstalled where `what` has no S3 server to start."""
    _require(what, DEMO, "demo")


def require_serving(what: str) -> None:
    """Raises NotInstalled where libraries are missing that `what` needs to answer over HTTP."""
    _require(what, SERVING, "serve")


def require_page(what: str) -> None:
    """Raises NotInstalled where `what` cannot be shown in a browser."""
    _require(what, PAGE, "page")


def require_experiments(what: str) -> None:
    """Raises NotInstalled where there is no client of an MLflow server."""
    _require(what, EXPERIMENTS, "experiments")


def require_cluster(what: str) -> None:
    """Raises NotInstalled where there is no client of a cluster."""
    _require(what, CLUSTER, "cluster")


def can_draw() -> bool:
    """Whether pictures can be drawn here: who shows one beside other things leaves it out where not."""
    return not _missing(DRAWING)


def _require(what: str, modules: Sequence[str], extra: str) -> None:
    if missing := _missing(modules):
        raise NotInstalled(
            f"{what} needs {', '.join(missing)}, which this installation was made without: "
            f"install crypto-ml[{extra}], or run `make venv` in a checkout"
        )


def _missing(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if find_spec(name) is None]
