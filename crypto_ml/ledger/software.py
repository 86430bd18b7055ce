"""What computed an answer: package, code of the stages, locked dependencies, image, libraries."""

import platform
from functools import cache
from importlib.metadata import version
from typing import Final

from crypto_ml.digest import sha256_of_file
from crypto_ml.forecasting.processor import processor
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.formats.receipt_v2 import Software
from crypto_ml.packaged import LOCK

STAGES: Final = ("raw_uploads", "cleaned_features", "market_history", "predictions")
LIBRARIES: Final = ("numpy", "pandas", "pyarrow", "duckdb", "deltalake", "onnxruntime")
"""The libraries whose versions can move a number."""


@cache
def software(image: str | None = None) -> Software:
    """What this process runs, in the image that the deployment says it runs."""
    return Software(
        package=version("crypto-ml"),
        code={stage: code_version(f"crypto_ml.stages.{stage}") for stage in STAGES},
        lock_sha256=sha256_of_file(LOCK) if LOCK.is_file() else None,
        image=image,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        libraries={name: version(name) for name in LIBRARIES},
    )
