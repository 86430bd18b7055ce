"""A real HTTP server that takes messages, as Slack or a pager does, and sometimes does not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any


@dataclass
class Inbox:
    """What came, and how many of the next requests are answered with 503."""

    port: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    refusing: int = 0
    lock: Lock = field(default_factory=Lock)

    def url(self, secret: str) -> str:
        """The address as apprise has it, with a secret in its path and another as its password."""
        return f"json://user:{secret}@127.0.0.1:{self.port}/hook/{secret}"


@contextmanager
def dripping() -> Iterator[int]:
    """The port of a server that goes on answering, a byte at a time, until this is left."""
    left = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with suppress(OSError):
                while not left.wait(0.05):
                    self.wfile.write(b"X")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the address is a secret."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            left.set()
            server.shutdown()
            thread.join()


@contextmanager
def opened() -> Iterator[Inbox]:
    """An inbox on a port of its own."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with inbox.lock:
                inbox.paths.append(self.path)
                refused = inbox.refusing > 0
                inbox.refusing -= refused
                if not refused:
                    inbox.messages.append(json.loads(body))
            self.send_response(503 if refused else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the address is a secret."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        inbox.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield inbox
        finally:
            server.shutdown()
            thread.join()
