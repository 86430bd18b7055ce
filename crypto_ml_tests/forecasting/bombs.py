"""Files that are small, or plain, and would take all memory of whoever read them without care.

Run as a program, this cleans one file the way a delivery is cleaned and says what the process held at most:
`python -m crypto_ml_tests.forecasting.bombs FILE FOLDER`.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

HEADER: Final = b"symbol,date,open,high,low,close,market"
GOOD: Final = b"10,12,9,11,500"
PIECE: Final = 1 << 20

Pieces = Iterator[bytes]


def one_day_repeated() -> Pieces:
    """One symbol and one date, again and again: every row is equal."""
    yield HEADER + b"\n"
    while True:
        yield b"BTC,2018-03-01,%b\n" % GOOD * 20_000


def contradictions() -> Pieces:
    """One symbol and one date, again and again, the last value another each time."""
    yield HEADER + b"\n"
    for number in count():
        yield b"".join(b"BTC,2018-03-01,10,12,9,11,%d\n" % (number * 20_000 + one) for one in range(20_000))


def pairs_that_contradict() -> Pieces:
    """Each symbol twice, with two values: every pair has a reason of its own."""
    yield HEADER + b"\n"
    for number in count():
        names = range(number * 10_000, (number + 1) * 10_000)
        yield b"".join(b"S%d,2018-03-01,%b\nS%d,2018-03-01,10,12,9,11,501\n" % (n, GOOD, n) for n in names)


def every_day_repeated() -> Pieces:
    """One symbol, every day there ever was, again and again."""
    yield HEADER + b"\n"
    first = date(1, 1, 1)
    days = [(first + timedelta(days=day)).isoformat().encode() for day in range((date(2026, 1, 1) - first).days)]
    while True:
        for begin in range(0, len(days), 20_000):
            yield b"".join(b"BTC,%b,%b\n" % (day, GOOD) for day in days[begin : begin + 20_000])


def all_refused() -> Pieces:
    """Every row has a price that is none."""
    yield HEADER + b"\n"
    while True:
        yield b"BTC,2018-03-01,ten,12,9,11,500\n" * 20_000


def shortest_rows() -> Pieces:
    """Rows with nothing but a symbol: a million of them in a block."""
    yield HEADER + b"\n"
    while True:
        yield b"B,,,,,,\n" * 50_000


def all_ragged() -> Pieces:
    """No line has as many values as the header."""
    yield HEADER + b"\n"
    while True:
        yield b"a,b\n" * 50_000


def distinct_symbols() -> Pieces:
    """A symbol that nobody else has in every row."""
    yield HEADER + b"\n"
    for number in count():
        names = range(number * 20_000, (number + 1) * 20_000)
        yield b"".join(b"S%d,2018-03-01,%b\n" % (name, GOOD) for name in names)


def distinct_slugs() -> Pieces:
    """One symbol, another slug in every row: each is a series of another name."""
    yield HEADER + b",slug\n"
    for number in count():
        names = range(number * 20_000, (number + 1) * 20_000)
        yield b"".join(b"BTC,2018-03-01,%b,slug-%d\n" % (GOOD, name) for name in names)


def long_symbols() -> Pieces:
    """Symbols as long as a line may be."""
    yield HEADER + b"\n"
    yield b"BTC,2018-03-01,%b\n" % GOOD
    while True:
        yield b"S" * 900_000 + b",2018-03-01,%b\n" % GOOD


def long_slugs() -> Pieces:
    """Slugs as long as a line may be, each of a row that is good but for it."""
    yield HEADER + b",slug\n"
    for number in count():
        yield b"S%d,2018-03-01,%b," % (number, GOOD) + b"s" * 900_000 + b"\n"


def many_columns() -> Pieces:
    """A header of half a million columns, and rows that fit it."""
    more = 500_000
    yield HEADER + b",c" * more + b"\n"
    while True:
        yield b"BTC,2018-03-01,%b" % GOOD + b"," * more + b"\n"


def quotes() -> Pieces:
    """Values made of quotes alone."""
    yield HEADER + b",name\n"
    while True:
        yield (b"BTC,2018-03-01,%b," % GOOD + b'""' * 5_000 + b"\n") * 100


def slashed_dates() -> Pieces:
    """Dates with slashes, each with a time of day that no other has."""
    yield HEADER + b"\n"
    yield b"BTC,25/3/2018,%b\n" % GOOD
    for number in count():
        times = range(number * 20_000, (number + 1) * 20_000)
        yield b"".join(b"BTC,3/4/2018 %d,%b\n" % (time, GOOD) for time in times)


def spaces() -> Pieces:
    """Lines of spaces."""
    yield HEADER + b"\n"
    while True:
        yield (b" " * 1000 + b"\n") * 1000


def newlines() -> Pieces:
    """Lines of nothing."""
    yield HEADER + b"\n"
    while True:
        yield b"\n" * PIECE


BOMBS: Final[Mapping[str, Callable[[], Pieces]]] = {
    make.__name__: make
    for make in (
        one_day_repeated,
        contradictions,
        pairs_that_contradict,
        every_day_repeated,
        all_refused,
        shortest_rows,
        all_ragged,
        distinct_symbols,
        distinct_slugs,
        long_symbols,
        long_slugs,
        many_columns,
        quotes,
        slashed_dates,
        spaces,
        newlines,
    )
}


def write_bomb(name: str, path: Path, size: int) -> None:
    """Write about `size` bytes of a bomb; gzip of them where the path ends so."""
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        for piece in BOMBS[name]():
            file.write(piece)
            if file.tell() >= size:
                return


@dataclass(frozen=True)
class Outcome:
    """What cleaning a file in a process of its own came to: the most memory it held, and what it left on disk."""

    received: int
    accepted: int
    refused: int
    repeated: int
    listed: int | None
    refusal: str | None
    peak_bytes: int
    disk_bytes: int


def cleaned_in_a_process(path: Path, directory: Path) -> Outcome:
    """Clean a file as a delivery of its own is cleaned, in a folder of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", __name__, str(path), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Outcome(**json.loads(done.stdout))


class _OneFile:
    """A store that has the bytes of one upload and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def download_whole(self, key: str, path: Path) -> None:  # noqa: ARG002
        os.link(self._path, path)


def main() -> None:
    """Clean the file that is named first in the folder that is named second."""
    from crypto_ml.ledger.deliveries import Upload
    from crypto_ml.settings import Settings
    from crypto_ml.stages.cleaned_features import KnownCoins, clean_into
    from crypto_ml.stages.raw_uploads import Received, ReceivedFile

    path, directory = Path(sys.argv[1]), Path(sys.argv[2])
    directory.mkdir(parents=True)
    at = "2026-01-01T00:00:00+00:00"
    received = Received("00000001", at, at, [ReceivedFile(Upload("uploads/a.csv", "e", 1, at), "0" * 64)])
    history: Any = SimpleNamespace(slugs=lambda *_: {})
    champion: Any = SimpleNamespace(version="none", slugs={})
    store: Any = _OneFile(path)
    cleaned = clean_into(directory, received, KnownCoins(history, None, champion), store, Settings())
    own = {name: value for name, value in asdict(cleaned.files[0]).items() if name in Outcome.__annotations__}
    disk = sum(left.stat().st_size for left in directory.rglob("*") if left.is_file())
    sys.stdout.write(json.dumps({**own, "peak_bytes": peak_bytes(), "disk_bytes": disk}))


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts what the parent held when it forked among a child's ru_maxrss
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
