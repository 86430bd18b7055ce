"""The crypto-ml command: exit code 0 done, 1 refused or failed with one line on standard error, 2 wrong usage.

Data goes to standard output, everything else to standard error.
"""

import atexit
import errno
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import IO, Any, Final

import click

from crypto_ml.errors import CryptoMLError
from crypto_ml.visible import visible

DEBUG: Final = "CRYPTO_ML_DEBUG"
SECONDS_UNTIL_AGAIN: Final = 0.1

MODULES: Final = {
    "backtest": "backtest",
    "corrections": "audit",
    "demo": "demo",
    "dev": "dev",
    "doctor": "doctor",
    "drop": "drop",
    "explain": "explain",
    "export": "export",
    "handover": "handover",
    "make-model": "make_model",
    "models": "models",
    "page": "page",
    "promote": "models",
    "replay": "audit",
    "rescore": "rescore",
    "retract": "retract",
    "retry": "retry",
    "rollback": "models",
    "score": "score",
    "serve": "serve",
    "trace": "audit",
    "tune": "tune",
    "verify": "verify",
}
"""Which module of `commands` each command is in. It is loaded when it is asked for: the others take as long as a small
file takes to score."""


class Failed(click.ClickException):
    """A failure as one line on standard error; the exit code is 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {visible(' '.join(self.message.split()))}", file=file, err=True)


class Commands(click.Group):
    """A group whose commands end with one line where they fail, and with a traceback only where one is asked for."""

    _told_to_end = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Their names."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click does
        """A command by its name; None where there is none: then all of them are loaded, for click to name one alike."""
        for name in [cmd_name] if cmd_name in MODULES else MODULES:
            if name not in self.commands:
                module = import_module(f"crypto_ml.commands.{MODULES[name]}")
                self.add_command(next(command for command in module.COMMANDS if command.name == name))
        return self.commands.get(cmd_name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # told to end, in whichever way, a command cleans up; gigabytes of half an answer would stay behind otherwise
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._end)
        try:
            return super().__call__(*args, **kwargs)
        except OSError as error:  # of help and versions, which are printed before there is anything to invoke
            if error.errno != errno.ENOSPC:
                raise
            _no_room(error).show()
            sys.exit(1)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        """End as at Ctrl-C. Code in C may lose an exception, so it is raised again until it is on its way."""
        self._told_to_end = True
        if not _is_ending(sys.exc_info()[1]):
            signal.signal(signal.SIGALRM, self._end)
            signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_AGAIN)
            atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

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
            if self._told_to_end:  # DuckDB says "Query interrupted" in an error of its own
                raise click.Abort from error
            if os.environ.get(DEBUG):
                raise
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise _no_room(error) from error
            if isinstance(error, OSError) and error.filename is not None:
                raise Failed(
                    f"{error.filename} cannot be used ({error.strerror}): name another file or folder"
                ) from error
            raise Failed(f"{type(error).__name__}: {error} (unexpected; {DEBUG}=1 shows where it happened)") from error


def _no_room(error: OSError) -> Failed:
    where = "free some where the output goes, or where TMPDIR leads"
    return Failed(f"there is no room left to write to ({error.strerror}): {where}")


def _is_ending(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crypto-ml")
def main() -> None:
    """Market data in, predictions of each cryptocurrency's next opening price out."""
