"""DuckDB for what does not fit into memory, opened by the first who needs it: most files and requests are small."""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


class Database:
    """A database in memory, which spills to a local directory beyond `memory_limit`. Safe to share between threads, of
    which each but one must take a cursor of its own."""

    def __init__(self, directory: Path, memory_limit: str) -> None:
        self._directory = directory
        self._memory_limit = memory_limit
        self._opening = Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def connection(self) -> "duckdb.DuckDBPyConnection":
        """The one connection."""
        import duckdb  # loading and opening it takes longer than a small file does otherwise

        with self._opening:
            if self._connection is None:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._connection = duckdb.connect(
                    ":memory:",  # beyond the limit it is written to the disk all the same, and nothing has to be kept
                    config={
                        "memory_limit": self._memory_limit,
                        "threads": 2,
                        "preserve_insertion_order": False,
                        "temp_directory": str(self._directory / "spill"),
                    },
                )
                # it would go to standard output, among the data
                self._connection.execute("SET enable_progress_bar = false")
            return self._connection

    def close(self) -> None:
        """Forget what it holds."""
        with self._opening:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
