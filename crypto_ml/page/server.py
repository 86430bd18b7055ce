"""The server of the page: bokeh's own. Everything that a browser asks for comes from it, and from nowhere else."""

import errno
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crypto_ml.errors import Blocked, Refused
from crypto_ml.page.visit import Visit
from crypto_ml.page.watching import Watching

if TYPE_CHECKING:
    from bokeh.document import Document
    from bokeh.server.server import Server

LOOPBACK: Final = ("127.0.0.1", "localhost")
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what somebody may ask for, not what is done
LONGEST_NAME: Final = 200


class PortTaken(Blocked):
    """Something else listens where the page should."""


class BadOrigin(Refused):
    """A name that no browser calls a server by."""


@dataclass(frozen=True)
class Listening:
    """Where the page listens. origins: `HOST:PORT` under which browsers may reach it, besides its own address."""

    host: str = LOOPBACK[0]
    port: int = 5006
    origins: Sequence[str] = ()


def page_server(watching: Watching, listening: Listening, service: str | None = None) -> "Server":
    """A server that listens, and serves once its loop runs. Raises PortTaken."""
    from bokeh.application import Application
    from bokeh.application.handlers import FunctionHandler
    from bokeh.server.server import Server

    # a browser that was turned away, a visitor who left: nothing for whoever runs the page
    for name in ("bokeh.server.views.ws", "bokeh.server.views.static_handler", "tornado.access"):
        logging.getLogger(name).setLevel(logging.ERROR)

    def visited(document: "Document") -> None:
        Visit(document, watching, service, _asked_for(document))

    try:
        port = listening.port or _free_port(listening.host)
        return Server(
            {"/": Application(FunctionHandler(visited))},
            address=listening.host,
            port=port,
            allow_websocket_origin=list(_origins(listening, port)),
            check_unused_sessions_milliseconds=5_000,
            unused_session_lifetime_milliseconds=10_000,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {listening.port} of {listening.host} is taken: end what listens there, or give another --port "
                "(--port 0 takes any that is free)"
            ) from error
        where = f"{listening.host}:{listening.port}"
        raise PortTaken(
            f"the page cannot listen on {where} ({error.strerror or error}): give another --host or --port"
        ) from error
    except ValueError as error:
        raise BadOrigin(f"--origin must be HOST:PORT, as a browser has it in its address bar ({error})") from error


def address_of(server: "Server", listening: Listening) -> str:
    """What to open in a browser."""
    return f"http://{_name(listening.host)}:{server.port}/"


def _name(host: str) -> str:
    """What a browser on this machine calls a host."""
    return "localhost" if host in EVERYWHERE else f"[{host}]" if ":" in host else host


def _origins(listening: Listening, port: int) -> Sequence[str]:
    """What a page must come from to open a websocket to this server: a page of another site may not."""
    own = {*LOOPBACK, _name(listening.host)}
    # bokeh reads no IPv6 address here, and knows localhost
    return (*(f"{host}:{port}" for host in sorted(own) if not host.startswith("[")), *listening.origins)


def _free_port(host: str) -> int:
    """A port that nothing listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _asked_for(document: "Document") -> str | None:
    """The symbol that the address of the page names: `?symbol=BTC`."""
    context = document.session_context
    given = context.request.arguments.get("symbol") if context and context.request else None
    return given[0].decode(errors="replace")[:LONGEST_NAME] if given else None
