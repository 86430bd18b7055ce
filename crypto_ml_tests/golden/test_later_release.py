"""A later release, which adds to what is computed and stored, still traces, replays and serves what earlier ones wrote.

The release is this one with additions of each kind, in a process of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from crypto_ml_tests.golden.evidence import releases

REPOSITORY = Path(__file__).resolve().parents[2]

ADDITIONS = (
    # a feature that is standardised, with its change, and one that is not
    ("forecasting/schema.py", '(*PRICES, "close_ratio", "spread"', ', "body"'),
    ("forecasting/schema.py", '(*SCALED, "log_shares"', ', "log_range"'),
    (
        "forecasting/features.py",
        "    return rows.assign(\n",
        '        body=close - np.asarray(rows["open"], np.float64),\n',
    ),
    ("forecasting/features.py", "    return rows.assign(\n", "        log_range=np.log(high / low),\n"),
    # a column that uploads may carry
    ("forecasting/uploads/reading.py", '("volume", "slug"', ', "trades"'),
    ("forecasting/schema.py", "unique name; missing where not given\n", '    "trades": "float64",\n'),
    (
        "forecasting/cleaning.py",
        '"slug": Texts(slug),\n',
        '        "trades": read_numbers(text["trades"]) if "trades" in text.column_names else volume * np.nan,\n',
    ),
    ("forecasting/sorting.py", '("slug", pa.string()),\n', '        ("trades", pa.float64()),\n'),
    ("storage/history.py", '"volume", "slug"', ', "trades"'),
    # fields of a receipt, of one of its parts, and of the champion pointer
    ("ledger/formats/receipt_v2.py", "    seed: int = 0\n", "    painted: int = 0\n"),
    ("ledger/formats/receipt_v2.py", "    earlier_answer: str | None = None\n", '    colour: str = "red"\n'),
    ("ledger/formats/pointer_v2.py", "    decision: str | None\n", '    colour: str = "red"\n'),
    # a column of the history, and one of the prediction log
    ("storage/history.py", 'pa.field("cleaning", pa.int32()),\n', '        pa.field("source", pa.string()),\n'),
    (
        "stages/market_history.py",
        "SCHEMA.names if name in batch.schema.names})\n",
        '        rows = rows.append_column("source", pa.repeat("drop box", batch.num_rows))\n',
    ),
    ("storage/prediction_log.py", "pa.int64(), nullable=False),", '\n        pa.field("high", pa.float64()),'),
    ("stages/logged_predictions.py", '"date", "pred_open")}\n', '        columns["high"] = wanted["pred_open"]\n'),
)
"""What the later release adds: the file, a text that stands there once, and what it adds behind that."""

EARLIER = releases()
SOME = EARLIER if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else [*EARLIER[:-1:3], EARLIER[-1]]
"""Releases whose evidence it is given: the first, some between, and this one; all of them in `make nightly`."""


def test_a_later_release_serves_what_this_one_and_those_before_it_wrote(
    tmp_path: Path, s3_environment: dict[str, str]
) -> None:
    for package in ("crypto_ml", "crypto_ml_tests", "model_out"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for name, before, addition in ADDITIONS:
        path = tmp_path / "crypto_ml" / name
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1, (name, before)
        path.write_text(source.replace(before, before + addition), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "crypto_ml_tests/golden/test_golden.py"]
    command += ["-k", " or ".join(SOME)]
    environment = os.environ | s3_environment | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
