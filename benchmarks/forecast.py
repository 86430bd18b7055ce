"""A forecast of 10,000 symbols from 100 days of history that came day by day, embedded S3: seconds and peak memory.

None of the symbols is known to the model, which is the longer road: each is scaled by all its own earlier rows. What is
measured is a process of its own that opens a deployment, forecasts, records and publishes; and a second one, to which
nothing has come since.
"""

import os
import sys
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.measure import Missed, run_process
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket

SYMBOLS: Final = 10_000
DAYS: Final = 100
FIRST_DAY: Final = date(2023, 1, 1)
BUCKET: Final = "bench"
MOST_BYTES: Final = 1.5e9
FORECAST: Final = """
from datetime import UTC, datetime
from crypto_ml.deployment import Deployment
from crypto_ml.settings import Settings
from crypto_ml.stages.daily_forecast import forecast_now
deployment = Deployment(Settings.from_environment())
made = forecast_now(deployment, deployment.champion(), run_id="benchmark", began=datetime.now(UTC))
assert made is not None
assert made.receipt.symbols.forecast == SYMBOLS, made.receipt.symbols
"""


def main() -> None:
    """Measure, print, and end with 1 where the target is missed."""
    with TemporaryDirectory(prefix="crypto_ml-bench-") as name, EmbeddedS3(Path(name)) as server:
        os.environ |= {**server.environment, "CRYPTO_ML_BUCKET": BUCKET}
        filling = get_context("spawn").Process(target=_fill)  # so that this process, which measures, stays small
        filling.start()
        filling.join()
        if filling.exitcode:
            raise SystemExit("the history could not be filled")
        command = [sys.executable, "-c", FORECAST.replace("SYMBOLS", str(SYMBOLS))]
        for what in ("forecast", "nothing new"):
            run = run_process(command)
            sys.stdout.write(
                f"forecast: {SYMBOLS:,} symbols × {DAYS} days, {what}: {run.seconds:.1f} s "
                f"({run.processor_seconds:.0f} s of processor time), peak {run.peak_bytes / 1e9:.2f} GB "
                f"(target {MOST_BYTES / 1e9})\n"
            )
            if run.peak_bytes > MOST_BYTES:
                raise Missed(f"peak memory of {MOST_BYTES / 1e9} GB")


def _fill() -> None:
    """A random walk of each symbol, appended to the history day by day."""
    import numpy as np
    import pyarrow as pa

    from crypto_ml.storage.history import SCHEMA, MarketHistory
    from crypto_ml.storage.objects import connect

    store = connect(BUCKET)
    ensure_bucket(store.client, BUCKET)
    history, random = MarketHistory(store), np.random.default_rng(0)
    names = pa.array([f"B{number:06d}" for number in range(SYMBOLS)])
    close = 10 ** random.uniform(-3, 4, SYMBOLS)
    for number in range(DAYS):
        open_ = close * np.exp(0.002 * random.standard_normal(SYMBOLS))
        close = open_ * np.exp(0.03 * random.standard_normal(SYMBOLS))
        known_at = datetime(2023, 1, 2, tzinfo=UTC) + timedelta(days=number)
        day = {
            "symbol": names,
            "date": pa.repeat(FIRST_DAY + timedelta(days=number), SYMBOLS),
            "open": open_,
            "high": np.maximum(open_, close) * 1.01,
            "low": np.minimum(open_, close) * 0.99,
            "close": close,
            "market": np.round(close * 1e7),
            "known_at": pa.repeat(known_at, SYMBOLS),
            "upload_id": pa.repeat(f"{number + 1:08d}.0", SYMBOLS),
            "line": np.arange(2, SYMBOLS + 2),
        }
        columns = [
            pa.array(day[field.name]).cast(field.type) if field.name in day else pa.nulls(SYMBOLS, field.type)
            for field in SCHEMA
        ]
        history.append(pa.table(columns, SCHEMA), append_id=f"{number + 1:08d}", known_at=known_at)


if __name__ == "__main__":
    main()
