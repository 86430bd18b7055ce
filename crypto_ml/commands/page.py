"""`crypto-ml page`: a page in the browser on which predictions are looked at."""

import signal
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from crypto_ml.commands.printing import say
from crypto_ml.endings import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from crypto_ml.page.sources import Source


@click.command("page")
@click.argument("predictions", required=False)
@click.option(
    "--forecasts", metavar="ADDRESS", help="Where the forecasts are. Default: forecasts/latest.csv beside predictions/."
)
@click.option("--service", metavar="URL", help="The service (`crypto-ml serve`) that traces are linked to.")
@click.option("--port", default=5006, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="HOST:PORT",
    help="What browsers may call it, behind a proxy; may be repeated.",
)
def command(
    *,
    predictions: str | None,
    forecasts: str | None,
    service: str | None,
    port: int,
    host: str,
    origins: tuple[str, ...],
) -> None:
    """Show PREDICTIONS in the browser until Ctrl-C: an address s3://BUCKET/KEY or http(s)://…, or a path.

    Without it, the newest predictions of the deployment that the settings lead to. The page follows the file: where it
    changes, what is shown does. It reads only.
    """
    from crypto_ml.extras import require_page

    require_page("The page")
    from crypto_ml.page.server import Listening, address_of, page_server
    from crypto_ml.page.sources import source_of
    from crypto_ml.page.watching import Watching

    if service is not None and (urlsplit(service).scheme not in ("http", "https") or not urlsplit(service).netloc):
        raise click.BadParameter("must be an address such as http://localhost:8000", param_hint="--service")
    choose = _following(predictions)
    listening = Listening(host, port, origins)
    with Watching(choose, source_of(forecasts) if forecasts else None) as watching:
        server = page_server(watching, listening, service.rstrip("/") if service else None)
        say(f"The page is at {address_of(server, listening)} until Ctrl-C.", err=True)
        for number in ENDINGS:
            signal.signal(number, lambda *_: server.io_loop.add_callback_from_signal(server.io_loop.stop))
        server.io_loop.start()
    say("stopped", err=True)


def _following(predictions: str | None) -> "Callable[[], Source]":
    from crypto_ml.deployment import Deployment
    from crypto_ml.page.sources import source_of
    from crypto_ml.page.watching import NewestAnswer
    from crypto_ml.settings import Settings

    if predictions is None:
        return NewestAnswer(Deployment.reading(Settings.from_environment()).store)
    source = source_of(predictions)
    return lambda: source


COMMANDS: Final = (command,)
