"""Requests sent over connections that are kept open, and what became of them; nothing but the standard library.

One request at a time stands on a connection. The clock runs from before the first byte is sent until the whole answer
is there; what this program itself takes of it, some tenths of a millisecond, is in every figure alike.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import psutil

NO_ANSWER: Final = 0
"""The status of a request whose connection broke before its answer was there."""

LONGEST: Final = 120.0
"""Seconds a request may take."""


@dataclass(frozen=True)
class Request:
    """What is sent, complete."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def rendered(self, host: str) -> bytes:
        """As it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", "Accept: application/json"]
        if self.body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Answer:
    """What came back: status and body, when it was there (time.monotonic), how long it took (seconds)."""

    status: int
    body: bytes
    at: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """Some requests, answered: in their order of completion, and how long all of them took together (seconds)."""

    answers: Sequence[Answer]
    seconds: float

    @property
    def failed(self) -> list[Answer]:
        """Those that were not answered with 200."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def per_second(self) -> float:
        """Requests answered with 200 in a second."""
        return (len(self.answers) - len(self.failed)) / self.seconds


def send(
    port: int, requests: Iterable[Request], *, concurrency: int = 1, seconds: float = float("inf"), keep: bool = True
) -> Load:
    """Send requests to this machine's `port`, so many at a time, until there are no more or the time is over.

    keep: bodies of answers are kept; without, only those of answers that are not 200.
    """
    return asyncio.run(sending(port, requests, concurrency=concurrency, seconds=seconds, keep=keep))


async def sending(
    port: int, requests: Iterable[Request], *, concurrency: int = 1, seconds: float = float("inf"), keep: bool = True
) -> Load:
    """`send`, beside something else."""
    waiting, answers = iter(requests), list[Answer]()
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_one_by_one(port, waiting, answers, began + seconds, keep))
    return Load(answers, time.monotonic() - began)


async def _one_by_one(port: int, waiting: Iterator[Request], answers: list[Answer], until: float, keep: bool) -> None:
    connection = Connection(port)
    try:
        while time.monotonic() < until and (request := next(waiting, None)) is not None:
            answer = await connection.ask(request)
            if not keep and answer.status == 200:
                answer = Answer(200, b"", answer.at, answer.seconds)
            answers.append(answer)
    finally:
        connection.close()


class Connection:
    """A connection to a port of this machine; opened when it is needed, and again where the other end closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Answer:
        """Send a request and wait for all of its answer; the status is NO_ANSWER where there was none."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST):
                status, body = await self._exchange(request.rendered(f"127.0.0.1:{self._port}"))
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.close()
            status, body = NO_ANSWER, repr(error).encode()
        ended = time.monotonic()
        return Answer(status, body, ended, ended - began)

    async def _exchange(self, sent: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        reader, writer = self._streams
        writer.write(sent)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(status.split(" ")[1]), body

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


@dataclass(frozen=True)
class Used:
    """What a process and all that it started hold and have taken: seconds of processor time, resident bytes of each."""

    processor_seconds: float
    resident: Mapping[int, int]

    @property
    def bytes(self) -> int:
        """Resident memory of all of them; what they share is counted in each."""
        return sum(self.resident.values())


def used_by(pid: int) -> Used:
    """What a process and its descendants use now; those that have ended count with those that waited for them."""
    seconds, resident = 0.0, {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            seconds += sum(process.cpu_times()[:4])
            resident[process.pid] = process.memory_info().rss
        except psutil.NoSuchProcess:  # it has ended since
            continue
    return Used(seconds, resident)
