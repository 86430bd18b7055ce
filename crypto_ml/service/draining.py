"""How connections end when a worker does: a request that is on its way already is still answered.

Uvicorn closes a connection at once on which nothing is being answered. What its client has just sent is lost then, and
no client can know whether it may send it again.
"""

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LAST_SECONDS: Final = 1.0
"""For what is on its way; whoever sends more is told by `Connection: close` to open another connection."""


class Draining(HttpToolsProtocol):
    """Uvicorn's protocol; told to end, it waits a moment for one more request, and closes behind the answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ending = False

    def shutdown(self) -> None:
        self._ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False
