"""How connections behave at their edges: what a client may keep open or fill, and how they end when a worker does.

Uvicorn waits for ever for the rest of a request's head and takes one of any size, so that anybody who reaches the port,
without a token, could take all memory or all connections. And it closes a connection at once on which nothing is being
answered: what its client has just sent is lost then, and no client can know whether it may send it again.
"""

from asyncio import Transport
from asyncio.events import TimerHandle
from random import getrandbits
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from crypto_ml.service.problems import HEAD_TOO_LARGE, MALFORMED, SLOW_HEAD, Problem

LAST_SECONDS: Final = 1.0
"""For what is on its way; whoever sends more is told by `Connection: close` to open another connection."""

SECONDS_FOR_HEAD: Final = 10.0
"""From a connection or the first byte of a request until its headers are there; also for the rest of a body that came
too late for its answer."""

SECONDS_IDLE: Final = 75
"""Between two requests. Longer than proxies keep connections (60 s as nginx and AWS's load balancers come): one that
the service closes first is a request that fails in the proxy."""

SECONDS_TO_TAKE_SOME: Final = 30.0
"""In which a client has to take something of an answer that waits for it."""

MOST_HEAD_BYTES: Final = 64 << 10
"""Of address and headers together, each header with what it costs to be kept."""

COST_OF_A_HEADER: Final = 32
"""Bytes, as HTTP/2 counts them (RFC 9113, 6.5.2)."""


class Draining(HttpToolsProtocol):
    """Uvicorn's protocol, with bounds; told to end, it waits a moment for one more request, and closes behind it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ending = False
        self._refusal: Problem | None = None
        self._late: TimerHandle | None = None
        self._receiving = False
        self._head_bytes = 0
        self._told = False
        self._held_back = 0
        self._unread: TimerHandle | None = None

    # What comes in

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_the_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._told = False
        super().data_received(data)
        # what the parser keeps to itself, the half of a line, is in no callback yet
        self._held_back = 0 if self._told else self._held_back + len(data)
        if self._held_back > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        self._told, self._receiving, self._head_bytes = True, True, 0
        super().on_message_begin()
        self._wait_for_the_rest()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + COST_OF_A_HEADER)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._told = True
        self._stop_waiting()
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._told = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._told, self._receiving = True, False
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._receiving and self.cycle.response_complete:  # it was answered before all of it had come
            self._wait_for_the_rest()

    def _count(self, size: int) -> None:
        self._told = True
        self._head_bytes += size
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refusal = _too_large()
            raise ValueError  # the parser ends with it, and asks for `send_400_response`

    # What is not waited for

    def _wait_for_the_rest(self) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(SECONDS_FOR_HEAD, self._too_late)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.cycle is not None and not self.cycle.response_complete:  # an earlier request is being answered
            self._wait_for_the_rest()
        elif self._receiving and (self.cycle is None or self.cycle.scope is not self.scope):
            self._refuse(Problem(SLOW_HEAD, f"the headers did not come within {SECONDS_FOR_HEAD:.0f} s: send it again"))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        self._refusal = problem
        self.send_400_response(problem.detail)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is on its way, as a problem. Behind an answer that has begun there is no place for one."""
        problem = self._refusal or Problem(MALFORMED, "this is no HTTP/1.1 request: " + _SAID.get(msg, msg))
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_rendered(problem))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """It is answered as if no upgrade had been asked for, which is nothing to warn of."""

    # What is not taken

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _look_again(self, left: int) -> None:
        self._unread = self.loop.call_later(SECONDS_TO_TAKE_SOME, self._is_some_taken, left)

    def _is_some_taken(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._look_again(left)
        else:
            self.transport.abort()

    def _taken(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # The end

    def shutdown(self) -> None:
        """Take one more request, where one is on its way."""
        self._ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_SECONDS, super().shutdown)
        else:
            super().shutdown()


_SAID: Final = {"Invalid HTTP request received.": "look at its first line, its headers and its lengths"}


def _too_large() -> Problem:
    return Problem(HEAD_TOO_LARGE, f"address and headers have more than {MOST_HEAD_BYTES:,} bytes: send less")


def _rendered(problem: Problem) -> bytes:
    request_id = f"{getrandbits(128):032x}"
    body = problem.rendered(request_id)
    headers = {
        **problem.sent_headers(),
        "x-request-id": request_id,
        "content-length": str(len(body)),
        "connection": "close",
    }
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items()]
    return b"".join([STATUS_LINE[problem.kind.status], *lines, b"\r\n", body])
