"""Around every request: its id, its line in the log, what is counted of it, and a problem where it failed unforeseen.

Plain ASGI, outermost. What is logged is what may be read by anybody who reads logs: no header, no query, no body.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from random import getrandbits
from typing import Any, Final

from crypto_ml.service.metrics import Metrics
from crypto_ml.service.problems import UNEXPECTED, Problem
from crypto_ml.visible import visible

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
GONE: Final = 499
"""What is logged where the caller went away before there was an answer, as nginx does."""

LONGEST_SHOWN: Final = 200

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

log: Final = logging.getLogger("crypto_ml.service.requests")


class Gate:
    """An ASGI application around another."""

    def __init__(self, application: Application, metrics: Metrics) -> None:
        self.application = application
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope)
        scope["crypto_ml.request_id"] = request_id
        method, status = scope["method"], GONE
        if method == "HEAD":  # as GET (RFC 9110, 9.3.2); whoever sends the answer leaves its body out
            scope = {**scope, "method": "GET"}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.application(scope, receive, send_on)
        except Exception:
            log.exception("Request %s failed unforeseen", request_id)
            if status == GONE:
                await _send_unexpected(request_id, send_on)
        finally:
            self._note(scope, method, request_id, status, time.perf_counter() - began)

    def _note(self, scope: Scope, method: str, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "other")
        self._metrics.requests.labels(route, method if route != "other" else "any", status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "%s %s %s %d %.1f ms caller=%s%s",
                request_id,
                method,
                visible(scope["path"])[:LONGEST_SHOWN],
                status,
                seconds * 1000,
                scope.get("crypto_ml.caller", "-"),
                scope.get("crypto_ml.said", ""),
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if REQUEST_ID.fullmatch(given):
                return str(given)
    return f"{getrandbits(128):032x}"  # to be told apart, not to be guessed


async def _send_unexpected(request_id: str, send: Send) -> None:
    problem = Problem(UNEXPECTED, f"something went wrong here; the log says what, by the request id {request_id}")
    body = problem.rendered(request_id)
    headers = {**problem.sent_headers(), "content-length": str(len(body))}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.kind.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
