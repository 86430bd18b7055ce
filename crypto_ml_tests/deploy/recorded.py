"""A relay in front of a server that keeps what passes: every request with its answer's status, whoever sends it."""

import asyncio
import re
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

HEAD: Final = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (/[^ \r\n]*) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)\r\n")
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})[^\r\n]*\r\n(?=(?:[^\r\n]+\r\n)*\r\n)")
LONGEST_HEAD: Final = 16_384
CONTINUE: Final = 100


@dataclass
class Request:
    """A request as it was sent. status: what it was answered, 0 before it is."""

    method: str
    path: str
    query: str
    headers: frozenset[str]
    status: int = 0

    @property
    def key(self) -> str:
        """The key that it is about; empty where it is about the bucket."""
        return self.path.strip("/").partition("/")[2]

    @property
    def writes(self) -> bool:
        """Whether an object is there where it succeeds: it is whole, or the last of its parts is."""
        return (self.method == "PUT" and "partNumber=" not in self.query) or (
            self.method == "POST" and "uploadId=" in self.query
        )

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' if self.query else ''}{self.query} → {self.status}"


@dataclass
class Recorded:
    """The relay, in a thread of its own. `endpoint` is what a client is to be given."""

    server: str
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _ready: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()

    def taken(self) -> list[Request]:
        """What has passed since this was asked the last time."""
        found, self.requests = self.requests, []
        return found

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20))
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        under_way = asyncio.all_tasks(self._loop)
        for task in under_way:
            task.cancel()
        server.close()
        self._loop.run_until_complete(asyncio.gather(*under_way, return_exceptions=True))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = urlsplit(self.server)
        from_server, to_server = await asyncio.open_connection(target.hostname, target.port, limit=1 << 20)
        waiting: list[Request] = []

        def asked(found: re.Match[bytes]) -> None:
            path, _, query = found[2].decode().partition("?")
            names = frozenset(line.partition(b":")[0].decode().lower() for line in found[3].splitlines())
            request = Request(found[1].decode(), unquote(path), query, names)
            waiting.append(request)
            self.requests.append(request)

        def answered(found: re.Match[bytes]) -> None:
            if int(found[1]) != CONTINUE and waiting:
                waiting.pop(0).status = int(found[1])

        await asyncio.gather(_pass(reader, to_server, HEAD, asked), _pass(from_server, writer, STATUS, answered))


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: re.Pattern[bytes], see: object
) -> None:
    seen = b""
    try:
        while data := await reader.read(1 << 18):
            seen += data
            end = 0
            for found in head.finditer(seen):
                see(found)  # type: ignore[operator]
                end = found.end()
            seen = seen[max(end, len(seen) - LONGEST_HEAD) :]
            writer.write(data)
            await writer.drain()
    except (OSError, asyncio.CancelledError):
        pass
    finally:
        writer.close()
