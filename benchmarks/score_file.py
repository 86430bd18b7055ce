"""`crypto-ml score` as a process, CSV to CSV: rows per second, peak memory, and the memory of five times the rows.

None of the symbols is known to the model, which is the longer road: each is scaled by its own earlier rows.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from benchmarks.large_market import DAYS, FOLDER, market_file
from benchmarks.measure import Missed, ProcessRun, run_process

SYMBOLS: Final = 5_000
LEAST_ROWS_PER_SECOND: Final = 40_000
MOST_BYTES: Final = 1.5e9
MOST_GROWTH: Final = 1.5
CONSOLE_COMMAND: Final = Path(sys.executable).with_name("crypto-ml")


def main() -> None:
    """Measure, print, and end with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--five", action=argparse.BooleanOptionalAction, default=True, help="also 5 times the rows")
    arguments = parser.parse_args()
    small = _score(SYMBOLS)
    missed = []
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


def _score(symbols: int) -> ProcessRun:
    upload, rows = market_file(symbols), symbols * DAYS
    out = FOLDER / "predictions.csv"
    run = run_process([str(CONSOLE_COMMAND), "score", str(upload), "-o", str(out)])
    out.unlink()
    sys.stdout.write(
        f"score_file: {rows:,} rows in {run.seconds:.1f} s = {rows / run.seconds:,.0f} rows/s "
        f"(target {LEAST_ROWS_PER_SECOND:,}; {run.processor_seconds:.0f} s of processor time), "
        f"peak {run.peak_bytes / 1e9:.2f} GB (target {MOST_BYTES / 1e9})\n"
    )
    sys.stdout.flush()
    return run


if __name__ == "__main__":
    main()
