"""`crypto-ml score`: a local file in, a local file out, with no Dagster and no S3."""

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.abc import MetaPathFinder
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.commands.progress import bar
from crypto_ml.forecasting.schema import Recovery

if TYPE_CHECKING:
    from crypto_ml.deployment import Deployment
    from crypto_ml.forecasting.bundle import ModelBundle

AT_ONCE: Final = 1 << 20


@click.command("score")
@click.argument("upload", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where the predictions go.")
@click.option("--model", help="A folder with a model bundle, or a version in the registry. Default: model_out/.")
@click.option("--recovery", type=click.Choice(["one_step", "cumulative"]), help="Default: CRYPTO_ML_RECOVERY.")
@click.option("--columns", metavar="OURS=THEIRS,…", help="What the file calls its columns. Default: CRYPTO_ML_COLUMNS.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON on standard output.")
def command(
    *, upload: Path, out: Path, model: str | None, recovery: str | None, columns: str | None, as_json: bool
) -> None:
    """Predict the open of every row of UPLOAD, a file as it would be dropped into uploads/; `-` reads standard input.

    Refused rows and their reasons go to a file beside the predictions. Where the file is rejected, no predictions are
    written.
    """
    with _loaded_quickly():
        from crypto_ml.deployment import Deployment
        from crypto_ml.forecasting.file_scoring import score_file
        from crypto_ml.forecasting.intake import IntakeRules
        from crypto_ml.forecasting.uploads.layouts import columns_given
        from crypto_ml.settings import Settings

    settings = Settings.from_environment()
    try:
        named = columns_given(settings.columns if columns is None else columns)
    except ValueError as error:
        raise click.BadParameter(f"must be {error}", param_hint="--columns") from error
    rules = IntakeRules(datetime.now(UTC).date(), settings.date_order, settings.max_upload_bytes, named)
    room = Path(os.environ["TMPDIR"]) if os.environ.get("TMPDIR") else None  # the usual /tmp may be memory
    began = time.monotonic()
    bundle = chosen_bundle(model, Deployment.reading(settings))
    how = cast(Recovery, recovery or settings.recovery)
    with _on_disk(upload, room, rules.max_bytes) as (path, called), bar() as tell:
        done = score_file(path, out, bundle, how, rules, level=settings.level, room=room, called=called, tell=tell)
    seconds = time.monotonic() - began
    say(f"read as {done.read_as['in_words']}", err=True)
    for note in done.notes:
        say(f"note: {note}", err=True)
    say(
        f"{done.received:,} rows received, {done.refused:,} refused, {done.repeated:,} repeated; "
        f"{done.predicted:,} predicted, {done.seed:,} with too few earlier rows; "
        f"{seconds:.1f} s, {done.received / seconds:,.0f} rows/s, model {done.model_version}",
        err=True,
    )
    if done.rejected_rows:
        cut = f" ({done.listed:,} of {done.refused:,} refused rows are listed)" if done.listed < done.refused else ""
        say(f"refused rows and reasons: {done.rejected_rows}{cut}", err=True)
    if as_json:
        print_json(asdict(done) | {"seconds": seconds, "out": str(out)}, indent=None)


class _LeftOut(MetaPathFinder):
    """What is told to be left out is not there."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("crypto-ml score runs without pandas", name=fullname)


@contextmanager
def _loaded_quickly() -> Iterator[None]:
    """Where modules are imported that take longer to load than a small file takes to score.

    pyarrow loads pandas with the first number that it converts, wherever there is one: a quarter of a second for
    nothing that is done here. (Not where it is loaded already: this process is then about other things as well.) numpy
    comes first: CPython's frames stand in chunks, and where numpy's types are made just at the end of one, as they are
    when it is imported by a module that another one imports, each call makes and removes a chunk, and it takes three
    times as long. And what modules are made of is no garbage.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _LeftOut())
    collecting = gc.isenabled()
    gc.disable()
    try:
        import numpy.ma  # noqa: F401 - the part that pyarrow asks for

        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _on_disk(upload: Path, room: Path | None, most: int) -> Iterator[tuple[Path, str | None]]:
    """The file, and what it is called where not so; standard input or a pipe is put on disk, as it is read more than
    once."""
    piped = str(upload) == "-"
    if not piped and upload.is_file():
        yield upload, None
        return
    with TemporaryDirectory(prefix="crypto_ml-stdin-", dir=room) as name:
        path = Path(name) / "upload"
        left = most + 1  # one more than is accepted, so that it is refused where it is read
        with path.open("wb") as file, nullcontext(sys.stdin.buffer) if piped else upload.open("rb") as source:
            while left > 0 and (chunk := source.read(min(AT_ONCE, left))):
                file.write(chunk)
                left -= len(chunk)
        yield path, "" if piped else str(upload)


def chosen_bundle(model: str | None, deployment: "Deployment") -> "ModelBundle":
    """The bundle in a folder, or of a version in the registry, or the one a fresh clone serves with."""
    from crypto_ml.forecasting.bundle import ModelBundle

    if model is None:
        return deployment.first_bundle()
    if Path(model).is_dir():
        return ModelBundle.load(Path(model))
    return deployment.bundle(model)


COMMANDS: Final = (command,)
