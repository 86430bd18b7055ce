"""SQL over a stream of Arrow batches, with memory bounded whatever the stream's length."""

import tempfile
from collections.abc import Iterator
from typing import Final

import duckdb
import pyarrow as pa

BATCH_ROWS: Final = 65_536
"""Rows in memory at once, times a small number for reading ahead."""

QUERY_MEMORY: Final = "512MB"
"""What a query may hold before it continues on disk."""


def queried(query: str, known: pa.RecordBatchReader, schema: pa.Schema, **beside: pa.Table) -> Iterator[pa.RecordBatch]:
    """Run `query` over the table `known` and small tables `beside` it; batches come in `schema`. Times must be UTC.

    Raises: what reading `known` raises.
    """
    failures: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="crypto_ml_") as spill:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": QUERY_MEMORY,
            "temp_directory": spill,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")  # it would go to standard output, among the data
            connection.register("known", _naive(known, failures))
            for name, table in beside.items():
                connection.register(name, table)
            try:
                for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS):
                    yield batch.cast(schema)
            except Exception:
                if failures:  # what went wrong in the stream, rather than how DuckDB saw it
                    raise failures[0] from None
                raise


def _naive(rows: pa.RecordBatchReader, failures: list[BaseException]) -> pa.RecordBatchReader:
    """The same stream with UTC times that carry no zone: zones would need an extension from the network."""
    schema = pa.schema([f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f for f in rows.schema])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in rows:
                yield batch.cast(schema)
        except Exception as e:
            failures.append(e)
            raise

    return pa.RecordBatchReader.from_batches(schema, batches())
