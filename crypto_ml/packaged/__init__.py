"""What the package brings along besides its code: the first model, Dagster's configuration, the lock file.

They stand in the repository's root, where people look for them. Here are links to them: a wheel has the files in their
place, so that a checkout and an installation find them in the same way, and none is kept twice.
"""

from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent

MODEL_OUT: Final = (_HERE / "model_out").resolve()
"""The folder of the model bundle that a fresh deployment serves with."""

INSTANCE: Final = (_HERE / "dagster.yaml").resolve()
"""The Dagster instance: its queues, limits and retries."""

WORKSPACE: Final = (_HERE / "workspace.yaml").resolve()
"""Where Dagster finds the assets, by the name of the code location that the daemon and the UI know."""

LOCK: Final = (_HERE / "requirements.lock").resolve()
"""Every library of this release by version and hash."""
