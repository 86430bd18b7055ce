"""Parquet uploads, read by a process of their own.

What reads Parquet is a large library in C++, and a file of which some bits are damaged can end the process that it runs
in (tried: one flipped byte, and pyarrow 26 aborts). So the process is not ours, and a file that ends it is refused.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from crypto_ml.forecasting.uploads.file_kinds import PARQUET
from crypto_ml.forecasting.uploads.layouts import Layout
from crypto_ml.forecasting.uploads.reading import RaggedLine
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload

REFUSED: Final = 3
LAYOUT: Final = b"layout"
MOST_SAID: Final = 10_000
_BROKEN_DOWN: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_READER: Final = "crypto_ml.forecasting.uploads.parquet_pages"


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, whatever its name is."""
    with path.open("rb") as raw:
        return raw.read(len(PARQUET)) == PARQUET


@dataclass
class ParquetReader:
    """One upload in Parquet, read as blocks of text; see `reading.UploadReader`, whose arguments and columns it has.

    `line` counts as if the table had been saved as CSV: the first row is 2. Raises UnreadableUpload.
    """

    path: Path
    limit: int
    columns: Sequence[str] = ()
    when_many: Callable[[], None] = lambda: None
    name: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    ragged: list[RaggedLine] = field(default_factory=list, init=False)
    layout: Layout = field(init=False)
    _begun: "_Process | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._begun = self._begin()
        self.layout = self._begun.layout

    @property
    def ignored(self) -> list[str]:
        """The columns that are not used."""
        return list(self.layout.ignored)

    def take_ragged(self) -> list[RaggedLine]:
        """None: every row has every column."""
        return []

    def only(self, columns: Sequence[str]) -> "ParquetReader":
        """The same file, read again for some of its columns."""
        return ParquetReader(self.path, self.limit, columns, name=self.name, asked=self.asked)

    def __iter__(self) -> Iterator[pa.Table]:
        process, self._begun = self._begun or self._begin(), None
        try:
            yield from process.tables()
        finally:
            process.end()

    def _begin(self) -> "_Process":
        return _Process(
            {
                "path": str(self.path.resolve()),
                "limit": self.limit,
                "columns": list(self.columns),
                "name": self.name,
                "asked": dict(self.asked),
            }
        )


class _Process:
    """A process that reads a file, and the stream of what it reads."""

    def __init__(self, question: Mapping[str, object]) -> None:
        command = [sys.executable, "-m", _READER, json.dumps(question)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            self._stream = pa.ipc.open_stream(self._process.stdout)
        except pa.ArrowInvalid:
            self._check()
            raise
        layout = json.loads(self._stream.schema.metadata[LAYOUT])
        tuples = {name: tuple(layout[name]) for name in ("names", "ignored", "alike")}
        self.layout = Layout(**{**layout, **tuples})

    def tables(self) -> Iterator[pa.Table]:
        try:
            for batch in self._stream:
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)
        except (pa.ArrowInvalid, OSError):  # it ended in the middle of a block
            self._check()
            raise
        self._check()

    def _check(self) -> None:
        """Raise UnreadableUpload where the process ended for another reason than that all was read."""
        said = self._process.stderr.read(MOST_SAID).decode(errors="replace") if self._process.stderr else ""
        code = self._process.wait()
        if code == REFUSED:
            raise UnreadableUpload(said)
        if -code in _BROKEN_DOWN:
            raise UnreadableUpload(
                "the file begins as Parquet does and is damaged, so that what reads it breaks down; write it anew, or "
                "save it as CSV"
            )
        if code:
            raise RuntimeError(f"reading Parquet ended with {code}: {said}")

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def __del__(self) -> None:
        if self._process.poll() is None:
            self.end()


def row_of(path: Path, line: int, name: str = "", asked: Mapping[str, str] | None = None) -> str:
    """What is used of the row that stands in a line, as `column=value`; empty where there is none."""
    for table in ParquetReader(path, sys.maxsize, name=name, asked=asked or {}):
        first = table["line"][0].as_py() if table.num_rows else line + 1
        if first <= line < first + table.num_rows:
            (row,) = table.slice(line - first, 1).drop_columns(["line"]).to_pylist()
            return ", ".join(f"{column}={value}" for column, value in row.items())
    return ""
