"""Where everything stands in the bucket: the one place that knows the object layout other programs depend on."""

from dataclasses import dataclass
from typing import Final, Literal

UPLOADS: Final = "uploads/"
PREDICTIONS: Final = "predictions/"
FORECASTS: Final = "forecasts/"
HISTORY: Final = "market_history"
RAW: Final = "raw/"
APPENDS: Final = "raw/appends/"
DELIVERIES: Final = "receipts/deliveries/"
KNOWN: Final = "receipts/known/"
ANSWERS: Final = "receipts/answers/"
ANSWERED: Final = "receipts/answered/"
MODELS: Final = "models/"
TRAINING_SETS: Final = "models/training_sets/"

Environment = Literal["dev", "preprod", "prod"]
"""Each has its own champion; they share the bundles, the uploads and everything else in the bucket."""

CSV: Final = "text/csv; charset=utf-8"
JSON: Final = "application/json"


@dataclass(frozen=True)
class AnswerKeys:
    """The keys that answer one upload."""

    predictions: str
    report: str
    rejected_rows: str


def is_upload(key: str) -> bool:
    """Whether a key is a file dropped by a user; keys that end in a slash are folders that some tools make."""
    return key.startswith(UPLOADS) and not key.endswith("/")


def has_csv_name(key: str) -> bool:
    """Whether a key is named as an upload should be: `….csv` or `….csv.gz`, in any letter case."""
    return key.lower().endswith((".csv", ".csv.gz"))


def answer_keys(upload: str) -> AnswerKeys:
    """The keys that answer `uploads/<path>.csv` (or `.csv.gz`): `predictions/<path>_preds.csv` and its companions.

    A key that is named otherwise keeps its whole name, so that its report tells what it is about.
    """
    path = upload.removeprefix(UPLOADS)
    for ending in (".csv.gz", ".csv"):
        if path.lower().endswith(ending):
            path = path[: -len(ending)]
            break
    stem = PREDICTIONS + path
    return AnswerKeys(f"{stem}_preds.csv", f"{stem}_report.json", f"{stem}_rejected_rows.csv")


def raw_key(sha256: str) -> str:
    """Where the bytes of an upload are kept as they were received."""
    return f"{RAW}uploads/{sha256}"


def cleaned_prefix(delivery: str, code: str) -> str:
    """Where the accepted and refused rows of a delivery are kept, as cleaned by one state of the code and settings."""
    return f"{RAW}cleaned/{delivery}/{code}/"


def received_key(delivery: str) -> str:
    """Where it is recorded which bytes were received for a delivery."""
    return f"{RAW}received/{delivery}.json"


def append_key(append_id: str) -> str:
    """Where it is recorded what one append to the market history wrote."""
    return f"{APPENDS}{append_id}.json"


def receipt_key(answer_id: str) -> str:
    """Where the receipt of an answer stands."""
    return f"{ANSWERS}{answer_id}.json"


def answered_key(delivery: str) -> str:
    """Where it is recorded that every upload of a delivery has its answer."""
    return f"{ANSWERED}{delivery}.json"


def champions_prefix(environment: Environment) -> str:
    """Where the champion pointer of an environment stands."""
    return f"{MODELS}champion/{environment}/"


def bundle_prefix(version: str) -> str:
    """Where the files of a model bundle stand."""
    return f"{MODELS}bundles/{version}/"
