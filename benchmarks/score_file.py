"""`crypto-ml score` as a process, CSV to CSV: rows per second, peak memory, and the memory of five times the rows; the
same with one thread that works beside the one that waits; and a small file, start and imports included.

None of the symbols is known to the model, which is the longer road: each is scaled by its own earlier rows.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.large_market import DAYS, FOLDER, market_file
from benchmarks.measure import Missed, ProcessRun, run_process

SYMBOLS: Final = 5_000
LEAST_ROWS_PER_SECOND: Final = 200_000
SMALL_SYMBOLS: Final = 75
SMALL_RUNS: Final = 7
MOST_SMALL_SECONDS: Final = 0.5
MOST_BYTES: Final = 1.5e9
MOST_GROWTH: Final = 1.5
CONSOLE_COMMAND: Final = (str(Path(sys.executable).with_name("crypto-ml")),)
ONE_THREAD: Final = (
    sys.executable,
    "-c",
    "from crypto_ml.forecasting import file_scoring, intake; file_scoring.THREADS = intake.THREADS = 1; "
    "from crypto_ml.cli import main; main()",
)


def main() -> None:
    """Measure, print, and end with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--five", action=argparse.BooleanOptionalAction, default=True, help="also 5 times the rows")
    arguments = parser.parse_args()
    small = _score(SYMBOLS)
    _score(SYMBOLS, ONE_THREAD, "with one thread, ")
    missed = []
    runs = [_score(SMALL_SYMBOLS) for _ in range(SMALL_RUNS)]
    seconds = statistics.median(run.seconds for run in runs)
    sys.stdout.write(f"score_file: a small file takes {seconds:.2f} s (median; target {MOST_SMALL_SECONDS})\n")
    if seconds > MOST_SMALL_SECONDS:
        missed.append(f"{MOST_SMALL_SECONDS} s for a small file")
    if SYMBOLS * DAYS / small.seconds < LEAST_ROWS_PER_SECOND:
        missed.append(f"{LEAST_ROWS_PER_SECOND:,} rows/s")
    if small.peak_bytes > MOST_BYTES:
        missed.append(f"peak memory of {MOST_BYTES / 1e9} GB")
    if arguments.five:
        growth = _score(5 * SYMBOLS).peak_bytes / small.peak_bytes
        sys.stdout.write(f"score_file: 5 times the rows need {growth:.2f} times the memory (target {MOST_GROWTH})\n")
        if growth > MOST_GROWTH:
            missed.append(f"{MOST_GROWTH} times the memory for 5 times the rows")
    if missed:
        raise Missed("; ".join(missed))


def _score(symbols: int, command: Sequence[str] = CONSOLE_COMMAND, how: str = "") -> ProcessRun:
    upload, rows = market_file(symbols), symbols * DAYS
    out = FOLDER / "predictions.csv"
    run = run_process([*command, "score", str(upload), "-o", str(out)])
    out.unlink()
    sys.stdout.write(
        f"score_file: {how}{rows:,} rows in {run.seconds:.2f} s = {rows / run.seconds:,.0f} rows/s "
        f"(target {LEAST_ROWS_PER_SECOND:,}; {run.processor_seconds:.2f} s of processor time), "
        f"peak {run.peak_bytes / 1e9:.2f} GB (target {MOST_BYTES / 1e9})\n"
    )
    sys.stdout.flush()
    return run


if __name__ == "__main__":
    main()
