"""The road of an upload: raw_uploads → cleaned_features → market_history → predictions, one partition per delivery."""

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.failures import explained
from crypto_ml.defs.freshness import DAILY
from crypto_ml.defs.machine import taken
from crypto_ml.defs.partitions import DELIVERIES, delivery_of
from crypto_ml.defs.presentation import (
    check_result,
    column_schema,
    days,
    link,
    links,
    looked_at,
    records,
    table,
)
from crypto_ml.defs.resources import CHAMPION_KEY, Platform
from crypto_ml.defs.waterfall import waterfall
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import UPLOADS, received_key
from crypto_ml.stages.spent import CLEANING, PUBLISHING, READING, REMEMBERING
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.ledger.formats.receipt_v2 import Receipt
    from crypto_ml.stages.cleaned_features import Cleaned
    from crypto_ml.stages.raw_uploads import Received

MOST_LISTED: Final = 20


def delivery_check(name: str, asset: str, description: str) -> dg.AssetCheckSpec:
    """A check whose result stands on the delivery that it was made for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of `partitions_def`; what it does is held by a test
        return dg.AssetCheckSpec(name, asset=asset, description=description, partitions_def=DELIVERIES)


@dg.asset(
    kinds={"s3", "csv"},
    code_version=code_version("crypto_ml.stages.raw_uploads"),
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
)
def raw_uploads(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """The bytes of a delivery's uploads: pinned to the version that was noticed, hashed, kept once under `raw/`."""
    from crypto_ml.stages.road import receive_uploads

    with explained(), platform.working(READING):
        store = platform.deployment.store
        received = receive_uploads(delivery_of(context, store), platform.deployment, datetime.now(UTC))
    uploads = [file.upload for file in received.files]
    size = sum(upload.size for upload in uploads)
    context.log.info("delivery %s: %s bytes in %d files received", received.delivery, f"{size:,}", len(uploads))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(received.data_version),
        metadata={
            "received": records([_file_row(file) for file in received.files[:MOST_LISTED]]),
            "files": len(uploads),
            "bytes": size,
            "uploads": links([upload.key for upload in uploads], store),
            "kept": links(received.kept_keys, store),
            "dagster/uri": store.uri(received_key(received.delivery)),
        },
    )


@dg.asset(
    deps=[raw_uploads],
    kinds={"pandas", "duckdb", "parquet"},
    code_version=code_version("crypto_ml.stages.cleaned_features"),
    check_specs=[
        delivery_check("no_row_refused", "cleaned_features", "Every file could be read, and every row was accepted.")
    ],
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
)
def cleaned_features(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """A delivery's accepted rows, sorted, with the features a row has by itself; refused rows with reasons beside."""
    from crypto_ml.stages.cleaned_features import ACCEPTED_SCHEMA
    from crypto_ml.stages.delivery_verdicts import no_row_refused
    from crypto_ml.stages.raw_uploads import read_received
    from crypto_ml.stages.road import clean_rows

    with explained(), platform.working(CLEANING):
        store = platform.deployment.store
        received = read_received(delivery_of(context, store), store)
        cleaned = clean_rows(received, platform.deployment, platform.champion)
    verdict = no_row_refused(received, cleaned)
    context.log.info("delivery %s: %s", received.delivery, visible(verdict.explanation))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(cleaned.accepted_sha256),
        metadata={
            "dagster/row_count": cleaned.accepted_rows,
            "dagster/column_schema": column_schema(ACCEPTED_SCHEMA),
            "dagster/uri": store.uri(cleaned.accepted_key),
            "files": records(_cleaned_rows(received, cleaned)),
            "preview": records([_without(row, "file", "line") for row in cleaned.preview]),
            "accepted_rows": cleaned.accepted_rows,
            "refused_rows": sum(file.refused for file in cleaned.files.values()),
            **days((cleaned.first_day, cleaned.last_day)),
            "accepted": link(cleaned.accepted_key, store),
            "refused": link(cleaned.refused_key, store),
        },
        check_results=[check_result("no_row_refused", verdict, dg.AssetCheckSeverity.WARN)],
    )


@dg.asset(
    deps=[cleaned_features],
    kinds={"deltalake", "s3"},
    code_version=code_version("crypto_ml.stages.market_history"),
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
    freshness_policy=DAILY,
)
def market_history(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Every accepted observation ever received, append-only, with the time it became known (Delta Lake)."""
    from crypto_ml.stages.cleaned_features import read_cleaned
    from crypto_ml.stages.raw_uploads import read_received
    from crypto_ml.stages.road import remember_rows
    from crypto_ml.storage.history import SCHEMA

    with explained(), platform.working(REMEMBERING):
        deployment = platform.deployment
        received = read_received(delivery_of(context, deployment.store), deployment.store)
        cleaned = read_cleaned(received.delivery, deployment.settings, deployment.store)
        remembered = remember_rows(received, cleaned, deployment)
    context.log.info(
        "delivery %s: %s rows of %s series stand in version %s of the history, which has %s rows",
        received.delivery,
        f"{remembered.appended:,}",
        f"{remembered.symbols:,}",
        remembered.version,
        f"{remembered.total:,}",
    )
    version = {} if remembered.version is None else {"table_version": remembered.version}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"{remembered.version}"),
        metadata={
            "dagster/row_count": remembered.total,
            "dagster/column_schema": column_schema(SCHEMA),
            "dagster/uri": deployment.history.uri,
            "preview": records(remembered.brought),
            "series": remembered.symbols,
            "rows": remembered.appended,
            **days((cleaned.first_day, cleaned.last_day)),
            "rows_in_all": remembered.total,
            **days(remembered.days, "_in_all"),
            **version,
        },
    )


@dg.asset(
    deps=[cleaned_features, market_history, CHAMPION_KEY],
    kinds={"onnx", "csv", "s3"},
    code_version=code_version("crypto_ml.stages.predictions"),
    check_specs=[
        delivery_check("every_upload_predicted", "predictions", "No upload was refused."),
        delivery_check("every_row_answered", "predictions", "Each accepted row is answered once."),
    ],
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
)
def predictions(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """The answers to a delivery: predictions, report and refused rows of each upload, published beside it."""
    from crypto_ml.forecasting.sorting import as_frame
    from crypto_ml.ledger.metrics import answer_metrics, was_answered
    from crypto_ml.ledger.receipts import document
    from crypto_ml.ledger.reports import report_key_of
    from crypto_ml.stages.cleaned_features import read_cleaned
    from crypto_ml.stages.raw_uploads import read_received
    from crypto_ml.stages.road import answer_uploads

    with explained(), platform.working(PUBLISHING) as spent:
        deployment, champion = platform.deployment, platform.champion
        store = deployment.store
        received = read_received(delivery_of(context, store), store)
        cleaned = read_cleaned(received.delivery, deployment.settings, store)
        answered_before = was_answered(received.delivery, store)
        answers = answer_uploads(received, cleaned, deployment, champion, context.run.run_id)
    published = time.time()
    receipts = answers.receipts
    _log_answers(context.log, received.delivery, receipts)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(answers.data_version),
        metadata={
            "dagster/row_count": sum(receipt.rows.predicted + receipt.rows.seed for receipt in receipts),
            "dagster/column_schema": column_schema(answers.preview.schema),
            **looked_at(answers.looked_at),
            **waterfall(context, received, spent, published),
            **taken(),
            "outcomes": records([_answer_row(receipt) for receipt in receipts[:MOST_LISTED]]),
            "preview": table(as_frame(answers.preview.select(["symbol", "date", "pred_open", "val_open", "status"]))),
            **answer_metrics(receipts, again=answered_before),
            "predicted_rows": sum(receipt.rows.predicted for receipt in receipts),
            "refused_rows": sum(receipt.rows.refused for receipt in receipts),
            "model_version": champion.version,
            "champion_pointer": champion.pointer,
            **({"history_version": receipts[0].history.read} if receipts and receipts[0].history.read else {}),
            "published": links(list(answers.published), store),
            "reports": links([report_key_of(receipt, store) for receipt in receipts], store),
            "receipts": links(list(dict.fromkeys(receipt.key for receipt in receipts)), store),
            **({"receipt": dg.MetadataValue.json(document(receipts[0]))} if len(receipts) == 1 else {}),
        },
        check_results=list(_answer_checks(receipts)),
    )


def _log_answers(log: dg.DagsterLogManager, delivery: str, receipts: "Sequence[Receipt]") -> None:
    """What became of each upload, a line each; of a large delivery, of the first ones that were not predicted."""
    told = [receipt for receipt in receipts if receipt.outcome != "PREDICTED" or len(receipts) <= MOST_LISTED]
    for receipt in told[:MOST_LISTED]:
        rows = receipt.rows
        said = receipt.reason or f"{rows.predicted:,} rows predicted, {rows.seed:,} as seed, {rows.refused:,} refused"
        line = visible(f"{receipt.upload.key}: {receipt.outcome} (answer {receipt.answer_id}): {said}")
        (log.info if receipt.outcome == "PREDICTED" else log.warning)("delivery %s: %s", delivery, line)
    if len(told) < len(receipts) or len(told) > MOST_LISTED:
        counts = Counter(receipt.outcome for receipt in receipts)
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
        log.info("delivery %s: %s; the report beside each answer says more", delivery, outcomes)


def _answer_checks(receipts: "Sequence[Receipt]") -> Iterator[dg.AssetCheckResult]:
    from crypto_ml.stages.delivery_verdicts import every_row_answered, every_upload_predicted

    refused = [
        {"upload": receipt.upload.key.removeprefix(UPLOADS), "reason": receipt.reason}
        for receipt in receipts
        if receipt.outcome == "REJECTED"
    ]
    yield check_result(
        "every_upload_predicted",
        every_upload_predicted(receipts),
        dg.AssetCheckSeverity.WARN,
        **({"refused_files": records(refused[:MOST_LISTED])} if refused else {}),
    )
    yield check_result("every_row_answered", every_row_answered(receipts), dg.AssetCheckSeverity.ERROR)


def _answer_row(receipt: "Receipt") -> dict[str, Any]:
    rows = receipt.rows
    return {
        "upload": receipt.upload.key.removeprefix(UPLOADS),
        "outcome": receipt.outcome,
        "predicted": rows.predicted,
        "seed": rows.seed,
        "refused": rows.refused,
        "reason": receipt.reason or "",
    }


def _file_row(file: Any) -> dict[str, Any]:
    return {
        "upload": file.upload.key.removeprefix(UPLOADS),
        "bytes": file.upload.size,
        "sha256": (file.sha256 or "")[:16],
        "outcome": file.outcome or "",
        "reason": file.reason or "",
    }


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _cleaned_rows(received: "Received", cleaned: "Cleaned") -> list[dict[str, Any]]:
    return [
        {
            "upload": received.files[number].upload.key.removeprefix(UPLOADS),
            "received": file.received,
            "accepted": file.accepted,
            "refused": file.refused,
            "repeated": file.repeated,
            "refusal": file.refusal or "",
            "ignored columns": ", ".join(file.ignored_columns),
        }
        for number, file in list(cleaned.files.items())[:MOST_LISTED]
    ]
