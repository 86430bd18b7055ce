"""The crypto-ml command: exit code 0 done, 1 refused or failed with one line on standard error, 2 wrong usage.

Data goes to standard output, everything else to standard error.
"""

import os
import signal
from typing import IO, Any, Final

import click

from crypto_ml.commands import audit, demo, doctor, drop, handover, make_model, models, retry, score
from crypto_ml.errors import CryptoMLError
from crypto_ml.visible import visible

DEBUG: Final = "CRYPTO_ML_DEBUG"


class Failed(click.ClickException):
    """A failure as one line on standard error; the exit code is 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {visible(' '.join(self.message.split()))}", file=file, err=True)


class Commands(click.Group):
    """A group whose commands end with one line where they fail, and with a traceback only where one is asked for."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # told to end, a command cleans up as it does at Ctrl-C; gigabytes of half an answer would stay behind otherwise
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CryptoMLError as error:
            if os.environ.get(DEBUG):
                raise
            raise Failed(str(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            raise Failed(f"{type(error).__name__}: {error} (unexpected; {DEBUG}=1 shows where it happened)") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crypto-ml")
def main() -> None:
    """Market data in, predictions of each cryptocurrency's next opening price out."""


for module in (score, drop, retry, demo, doctor, models, audit, handover, make_model):
    for command in module.COMMANDS:
        main.add_command(command)
