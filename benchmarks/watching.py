"""What a look of monitoring costs on a large deployment: a million predictions and the rows they are of.

Embedded S3; the rows go straight into the tables. Each look is timed in a process of its own, which says its peak.
"""

import json
import os
import resource
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.measure import Missed, run_process
from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.settings import Settings
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.history import SCHEMA as HISTORY
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import connect
from crypto_ml.storage.prediction_log import SCHEMA as LOGGED
from crypto_ml.storage.prediction_log import PredictionLog

SYMBOLS: Final = 5_000
DAYS: Final = 250
DAYS_AT_ONCE: Final = 25
LAST: Final = date(2026, 1, 1)
BUCKET: Final = "crypto-ml"
LOOKS: Final = ("prediction_performance", "model_drift", "data_faults")
MOST_BYTES: Final = 2_000_000_000


def main() -> None:
    """Measure, print, and end with 1 where a look takes more memory than it may; `LOOK` as an argument: do that one."""
    if len(sys.argv) > 1:
        _look(sys.argv[1])
        return
    with TemporaryDirectory() as name, EmbeddedS3(Path(name)) as server:
        os.environ.update(server.environment)
        ensure_bucket(connect(BUCKET).client, BUCKET)
        _fill()
        peaks = []
        for look in LOOKS:
            run = run_process([sys.executable, "-m", "benchmarks.watching", look])
            peaks.append(run.peak_bytes)
    if max(peaks) > MOST_BYTES:
        raise Missed(f"a look took {max(peaks) / 1e9:.2f} GB")


def _fill() -> None:
    """Rows and predictions of SYMBOLS series and DAYS days."""
    store, random = connect(BUCKET), np.random.default_rng(0)
    history, log = MarketHistory(store), PredictionLog(store)
    names = np.array([f"S{number:05d}" for number in range(SYMBOLS)])
    close, at = np.exp(random.normal(0, 3, SYMBOLS)), datetime(2026, 1, 2, tzinfo=UTC)
    for begin in range(0, DAYS, DAYS_AT_ONCE):
        parts, made = [], []
        for number in range(begin, begin + DAYS_AT_ONCE):
            day = LAST - timedelta(DAYS - 1 - number)
            opens = close * np.exp(random.normal(0, 2e-3, SYMBOLS))
            made.append(pd.DataFrame({"symbol": names, "date": day, "pred_open": close}))
            close = opens * np.exp(random.normal(0, 0.03, SYMBOLS))
            high, low = np.maximum(opens, close) * 1.01, np.minimum(opens, close) / 1.01
            prices = {"open": opens, "high": high, "low": low, "close": close}
            parts.append(pd.DataFrame({"symbol": names, "date": day, **prices, "market": 1.0}))
        rows = pd.concat(parts, ignore_index=True).assign(
            volume=np.nan, slug=None, known_at=at, upload_id=f"{begin:08d}.0", cleaning=1, void=None
        )
        rows["line"] = np.arange(len(rows))
        assert set(OBSERVATION) <= set(rows.columns)
        table = pa.Table.from_pandas(rows[HISTORY.names], schema=HISTORY, preserve_index=False)
        history.append(table, append_id=f"rows-{begin}", known_at=at)
        told = pd.concat(made, ignore_index=True).assign(
            answer_id=f"{begin:08d}-0", road="upload", model_version="none", made_at=at
        )
        told["line"] = np.arange(len(told))
        missing = {name: np.nan for name in LOGGED.names if name not in told.columns}
        told = told.assign(**missing)[LOGGED.names]
        log.append(pa.Table.from_pandas(told, schema=LOGGED, preserve_index=False), append_id=f"told-{begin}")


def _look(name: str) -> None:
    from crypto_ml.stages.monitoring.data_faults import data_faults
    from crypto_ml.stages.monitoring.model_drift import model_drift
    from crypto_ml.stages.monitoring.prediction_performance import performance

    deployment = Deployment.reading(Settings(bucket=BUCKET))
    began = time.perf_counter()
    if name == "prediction_performance":
        found = performance(deployment)
        rows = len(found.live) if found else 0
    elif name == "model_drift":
        drift = model_drift(deployment, "none")
        rows = len(drift.losses.days) if drift else 0
    else:
        data = data_faults(deployment, datetime(2026, 1, 2, tzinfo=UTC))
        rows = data.found.rows if data else 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds, unit = time.perf_counter() - began, 1 if sys.platform == "darwin" else 1024
    told = {
        "rows": rows,
        "seconds": round(seconds, 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_gb": round(usage.ru_maxrss * unit / 1e9, 2),
    }
    sys.stdout.write(f"watching: {name}: {json.dumps(told)}\n")


if __name__ == "__main__":
    main()
