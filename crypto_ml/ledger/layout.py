"""Where everything stands in the bucket: the one place that knows the object layout other programs depend on."""

from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Literal

from crypto_ml.digest import sha256_of
from crypto_ml.storage.limits import LONGEST_KEY

UPLOADS: Final = "uploads/"
ASKED: Final = "requests/"
"""What the bodies of requests are named by, where a file has its key: nothing stands below it in the bucket."""

PREDICTIONS: Final = "predictions/"
FORECASTS: Final = "forecasts/"
LATEST_FORECAST: Final = "forecasts/latest.csv"
LATEST_LEFT_OUT: Final = "forecasts/latest_left_out.csv"
RAW: Final = "raw/"
APPENDS: Final = "raw/appends/"
COMPACTIONS: Final = "raw/compactions/"
DELIVERIES: Final = "receipts/deliveries/"
KNOWN: Final = "receipts/known/"
ANSWERS: Final = "receipts/answers/"
ANSWERED: Final = "receipts/answered/"
RETRIES: Final = "receipts/retries/"
RETRACTIONS: Final = "receipts/retractions/"
REQUESTS: Final = "receipts/requests/"
CLAIMS: Final = "receipts/claims/"
SETTLED: Final = "receipts/settled/"
SWEPT: Final = "receipts/swept/"
ALARMS: Final = "receipts/alarms/"
CHAIN: Final = "receipts/chain/"
TIMESTAMPS: Final = "receipts/timestamps/"
"""What authorities signed of heads of the chain: no one who writes here can make them."""

WATCHED: Final = "receipts/watched/"
FORECAST_RECEIPTS: Final = "receipts/forecasts/"
EXPERIMENTS: Final = "receipts/experiments/"
BACKTESTS: Final = "receipts/backtests/"
RESCORINGS: Final = "receipts/rescorings/"
MODELS: Final = "models/"
TRAINING_SETS: Final = "models/training_sets/"
TUNINGS: Final = "models/tunings/"
SHARDS: Final = "cache/shards/"
"""What of large work is computed by parts; nothing rests on it once that is through, and deleting it costs time."""

Environment = Literal["dev", "preprod", "prod"]
"""Each has its own champion; they share the bundles, the uploads and everything else in the bucket."""

CSV: Final = "text/csv; charset=utf-8"
JSON: Final = "application/json"


PARQUET_ENDING: Final = ".parquet"
CSV_ENDINGS: Final = (".csv.gz", ".csv")
ANSWERS_OF_CSV, ANSWERS_OF_OTHERS, ANSWERS_OF_LONG = "_", ".", "~"
"""What stands before the last word of an answer's keys, by the name of its upload."""


@dataclass(frozen=True)
class AnswerKeys:
    """The keys that answer one upload. retracted: where it is said that what stands is the answer to an upload that was
    retracted. fits: False where there is no room for them, and only the report is written."""

    predictions: str
    report: str
    rejected_rows: str
    retracted: str
    fits: bool = True


def is_upload(key: str) -> bool:
    """Whether a key is a file dropped by a user; keys that end in a slash are folders that some tools make."""
    return key.startswith(UPLOADS) and not key.endswith("/")


def has_table_name(key: str) -> bool:
    """Whether a key is named as an upload should be: `….csv`, `….csv.gz` or `….parquet`, in any letter case."""
    return key.lower().endswith((".csv", ".csv.gz", PARQUET_ENDING))


def answer_keys(upload: str, room: int = LONGEST_KEY) -> AnswerKeys:
    """The keys that answer an upload; no two uploads share one, but for `<path>.csv` and `<path>.csv.gz`.

    `uploads/<path>.csv` (or `.csv.gz`) is answered by `predictions/<path>_preds.csv` and its companions. A key that
    ends otherwise (`.CSV`, or no CSV at all) keeps its whole name: `predictions/<path>.CSV.preds.csv`. Where such names
    would be longer than `room` bytes, the report stands under a part of the name and its hash.
    """
    path = upload.removeprefix(UPLOADS)
    ending = next((ending for ending in CSV_ENDINGS if path.endswith(ending)), None)
    keys = _keys(path, ANSWERS_OF_OTHERS) if ending is None else _keys(path.removesuffix(ending), ANSWERS_OF_CSV)
    if len(keys.rejected_rows.encode()) <= room:
        return keys
    mark = f"~{sha256_of(upload.encode())[:16]}"
    left = room - len(_keys(mark, ANSWERS_OF_LONG).rejected_rows)
    shortened = path.encode()[: max(left, 0)].decode(errors="ignore")
    return replace(_keys(shortened + mark, ANSWERS_OF_LONG), fits=False)


def companions(predictions: str) -> AnswerKeys | None:
    """What stands beside a predictions file, told by its name alone, whatever stands before that (a bucket, a folder).

    None where the file is not named as the answer to an upload is.
    """
    for mark in (ANSWERS_OF_CSV, ANSWERS_OF_OTHERS):
        stem = predictions.removesuffix(f"{mark}preds.csv")
        if stem != predictions:
            return _beginning(f"{stem}{mark}")
    return None


def latest_forecast_of(predictions: str) -> str | None:
    """Where the newest forecast of the deployment stands that published a predictions file, told by the file's name, as
    `companions` does; None where the name does not say that a deployment published it."""
    before, found, _ = f"/{predictions}".rpartition(f"/{PREDICTIONS}")
    return f"{before}/{LATEST_FORECAST}"[1:] if found else None


def _keys(stem: str, mark: str) -> AnswerKeys:
    return _beginning(f"{PREDICTIONS}{stem}{mark}")


def _beginning(begin: str) -> AnswerKeys:
    return AnswerKeys(f"{begin}preds.csv", f"{begin}report.json", f"{begin}rejected_rows.csv", f"{begin}retracted.json")


def raw_key(sha256: str) -> str:
    """Where the bytes of an upload are kept as they were received."""
    return f"{RAW}uploads/{sha256}"


def together_key(delivery: str, sha256: str) -> str:
    """Where the bytes of the small uploads of a delivery are kept together; sha256: of all of them."""
    return f"{RAW}together/{delivery}/{sha256}"


def cleanings_prefix(delivery: str) -> str:
    """Below where the accepted and refused rows of a delivery are kept, each time as cleaned by another code."""
    return f"{RAW}cleaned/{delivery}/"


def cleaned_prefix(delivery: str, code: str) -> str:
    """Where the accepted and refused rows of a delivery are kept, as cleaned by one state of the code and settings."""
    return f"{cleanings_prefix(delivery)}{code}/"


def received_key(delivery: str) -> str:
    """Where it is recorded which bytes were received for a delivery."""
    return f"{RAW}received/{delivery}.json"


def append_key(append_id: str) -> str:
    """Where it is recorded what one append to the market history wrote."""
    return f"{APPENDS}{append_id}.json"


def compactions_prefix(table: str) -> str:
    """Below where it is recorded what put data files of a table together."""
    return f"{COMPACTIONS}{table}/"


def compaction_key(table: str, version: int) -> str:
    """Where it is recorded what one version of a table put together."""
    return f"{compactions_prefix(table)}{version:012d}.json"


def retraction_key(upload_id: str) -> str:
    """Where the retraction of an upload is recorded."""
    return f"{RETRACTIONS}{upload_id}.json"


def receipt_key(answer_id: str) -> str:
    """Where the receipt of an answer stands that has an object of its own."""
    return f"{ANSWERS}{answer_id}.json"


def receipts_prefix(delivery: str) -> str:
    """Below where the receipts of a delivery of several uploads stand, as one object for all that a run wrote."""
    return f"{ANSWERS}{delivery}/"


def answered_key(delivery: str) -> str:
    """Where it is recorded that every upload of a delivery has its answer."""
    return f"{ANSWERED}{delivery}.json"


@dataclass(frozen=True)
class ForecastKeys:
    """The keys of a forecast: those of its day, and the latest ones. left_out: the symbols that it leaves out."""

    forecast: str
    left_out: str
    latest: str = LATEST_FORECAST
    latest_left_out: str = LATEST_LEFT_OUT


def forecast_keys(target: date) -> ForecastKeys:
    """The keys of a forecast for a day."""
    return ForecastKeys(f"{FORECASTS}{target}.csv", f"{FORECASTS}{target}_left_out.csv")


def forecast_receipt_key(forecast_id: str) -> str:
    """Where the receipt of a forecast stands."""
    return f"{FORECAST_RECEIPTS}{forecast_id}.json"


def backtest_key(backtest_id: str) -> str:
    """Where a backtest's scoreboard stands."""
    return f"{BACKTESTS}{backtest_id}.json"


def rescoring_keys(rescoring_id: str) -> tuple[str, str]:
    """Where the record of a rescoring stands, and its predictions."""
    return f"{RESCORINGS}{rescoring_id}.json", f"{RESCORINGS}{rescoring_id}.csv"


def shards_prefix(work_id: str) -> str:
    """Below where the shards of some work stand."""
    return f"{SHARDS}{work_id}/"


def champions_prefix(environment: Environment) -> str:
    """Where the champion pointer of an environment stands."""
    return f"{MODELS}champion/{environment}/"


def bundle_prefix(version: str) -> str:
    """Where the files of a model bundle stand."""
    return f"{MODELS}bundles/{version}/"


def drift_report_key(week: str, sha256: str) -> str:
    """Where the report on what was watched in a week stands; one made later of more data is another."""
    return f"{WATCHED}{week}-{sha256[:16]}.html"
