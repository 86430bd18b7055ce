"""`crypto-ml dev`: Dagster for everyday work on this machine, on the store that the AWS variables lead to."""

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from crypto_ml.commands.demo import USUAL_PORT, claim, interrupted, stopping
from crypto_ml.commands.printing import say
from crypto_ml.digest import sha256_of
from crypto_ml.endings import ENDINGS
from crypto_ml.errors import Unavailable

if TYPE_CHECKING:
    from crypto_ml.storage.objects import ObjectStore

SECRET: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class DagsterEnded(Unavailable):
    """Dagster ended although nobody told it to."""


@click.command("dev")
@click.option("--port", type=int, help=f"Port of the UI. Default: that of the last time, {USUAL_PORT}, or a free one.")
@click.option(
    "--state", default=".crypto_ml/dev", show_default=True, type=click.Path(path_type=Path), help="Folder it keeps."
)
def command(port: int | None, state: Path) -> None:
    """Run `dagster dev` on the store that the AWS variables lead to, until Ctrl-C, with all it writes in one folder.

    Each store, and each prefix in it, has a folder of its own. Prints what to export in another shell, so that
    `dagster` and `dg` reach this instance from any folder.
    """
    from crypto_ml.commands.local_dagster import LocalDagster, aws_variables, chosen_settings, export_lines, kept_ports
    from crypto_ml.deployment import Deployment
    from crypto_ml.packaged import INSTANCE
    from crypto_ml.settings import Settings

    store = Deployment(Settings.from_environment()).store  # one that cannot be used is better known now
    for number in ENDINGS:
        signal.signal(number, interrupted)
    try:
        with ExitStack() as stack:
            state = state.absolute() / _name(store)
            claim(state, stack)
            aws = aws_variables()
            ui = kept_ports(state, {"ui": USUAL_PORT}, port)["ui"]
            dagster = stack.enter_context(LocalDagster(state, aws, INSTANCE, ui, aloud=True))
            stack.callback(stopping)
            say(f"Dagster UI    {dagster.url}", err=True)
            say("In another shell, in any folder, so that crypto-ml, dagster and dg find it:", err=True)
            told = {name: value for name, value in aws.items() if name not in SECRET}
            for line in export_lines(told | chosen_settings() | dagster.variables):
                say(f"  {line}", err=True)
            if len(told) < len(aws):
                say(f"  and {', '.join(name for name in aws if name in SECRET)} as in this one", err=True)
            code = dagster.wait()
            raise DagsterEnded(f"Dagster ended by itself, with exit code {code}; the reason stands above")
    except KeyboardInterrupt:
        say("stopped; nothing of it runs any more", err=True)


def _name(store: "ObjectStore") -> str:
    """What tells one store from another: a run that was queued for one is never run on another."""
    where = f"{store.client.meta.endpoint_url} {store.uri('')}"
    return f"{store.bucket}-{sha256_of(where.encode())[:8]}"


COMMANDS: Final[tuple[Any, ...]] = (command,)
