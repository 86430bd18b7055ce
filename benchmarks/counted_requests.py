"""A relay in front of an S3 server that counts the requests which pass from any client, and of these the dear ones."""

import asyncio
import re
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

LINE: Final = re.compile(rb"(?:GET|HEAD|PUT|POST|DELETE) /[^\r\n]* HTTP/1\.1\r\n")
LISTING: Final = re.compile(rb"GET /[^ ]*[?&](?:list-type|versions|uploads)\b")
WRITE: Final = re.compile(rb"(?:PUT|POST) ")
LONGEST_LINE: Final = 4_096


class CountedRequests:
    """The relay, a process of its own. `endpoint` is what a client is to be given."""

    def __init__(self, server: str) -> None:
        context = get_context("spawn")
        self._count: Any = context.Value("q", 0)
        self._dear: Any = context.Value("q", 0)
        self._port: Any = context.Value("i", 0)
        target = urlsplit(server)
        arguments = (target.hostname, target.port, self._port, self._count, self._dear)
        self._process: BaseProcess = context.Process(target=_relay, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        while not self._port.value:
            self._process.join(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port.value}"

    @property
    def count(self) -> int:
        """Requests so far."""
        return int(self._count.value)

    @property
    def dear(self) -> int:
        """Of these, listings and writes, which S3 charges for 12 times as much as for the others."""
        return int(self._dear.value)


def _relay(host: str, server_port: int, port: Any, count: Any, dear: Any) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool) -> None:
        before = b""
        try:
            while data := await reader.read(1 << 18):
                if counted:
                    seen = before + data
                    new = LINE.findall(seen)[len(LINE.findall(before)) :]
                    count.value += len(new)
                    dear.value += sum(bool(LISTING.match(line) or WRITE.match(line)) for line in new)
                    before = seen[-LONGEST_LINE:]
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(host, server_port, limit=1 << 20)
        await asyncio.gather(pass_on(reader, to_writer, True), pass_on(to_reader, writer, False))

    async def serve() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 20)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(serve())
