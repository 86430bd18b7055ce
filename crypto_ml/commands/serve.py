"""`crypto-ml serve`: predictions over REST."""

from typing import Any, Final

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.extras import require_serving

USUAL_HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8000


@click.command("serve")
@click.option(
    "--host",
    default=USUAL_HOST,
    show_default=True,
    help="Address to listen at; others than this machine's own take tokens.",
)
@click.option(
    "--port", default=USUAL_PORT, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that answer.")
@click.option("--new-token", "new", metavar="NAME", help="Make a token for somebody, print it and its line, and end.")
@click.option("--rights", default="predict,read", show_default=True, help="With --new-token: what it may do.")
@click.option("--json", "as_json", is_flag=True, help="With --new-token: print as JSON.")
def command(*, host: str, port: int, workers: int, new: str | None, rights: str, as_json: bool) -> None:
    """Answer requests for predictions over HTTP with the champion, until told to end.

    Answers are those that files get, and are recorded as theirs are. A promotion or rollback is served within seconds.
    The address of the interface's own documentation is printed.
    """
    require_serving("The service")
    if new is not None:
        _print_token(new, rights, as_json)
        return
    from crypto_ml.deployment import Deployment
    from crypto_ml.service.config import ServiceConfig
    from crypto_ml.service.running import listen, require_open, serve
    from crypto_ml.service.tokens import Tokens
    from crypto_ml.settings import Settings

    settings = Settings.from_environment()
    config = ServiceConfig.of(settings)
    tokens = Tokens.read(config.tokens, config.tokens_file)
    require_open(host, tokens)
    listening = listen(host, port)
    where = Deployment(settings).store.uri("")
    shown = f"[{host}]" if ":" in host else host
    say(f"Predictions from {where} at http://{shown}:{listening.getsockname()[1]}, described at /docs", err=True)
    who = ", ".join(caller.name for _, caller in tokens.callers) or "anybody on this machine"
    say(f"It answers {who}, in {workers} process{'es' * (workers > 1)}, until Ctrl-C.", err=True)
    serve(listening, settings, workers=workers)
    say("stopped; what was accepted is answered", err=True)


def _print_token(name: str, rights: str, as_json: bool) -> None:
    from crypto_ml.service.tokens import new_token

    token, line = new_token(name, rights.split(","))
    if as_json:
        print_json({"token": token, "line": line})
        return
    say(f"token  {token}")
    say(f"line   {line}")
    say("The token is shown this once. The line goes into the file of CRYPTO_ML_SERVE_TOKENS_FILE.", err=True)


COMMANDS: Final[tuple[Any, ...]] = (command,)
