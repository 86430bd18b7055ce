"""The road of an upload: raw_uploads → cleaned_features → market_history → predictions, one partition per delivery."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_ml.defs.failures import explained
from crypto_ml.defs.partitions import DELIVERIES
from crypto_ml.defs.presentation import column_schema, link, links, records, table
from crypto_ml.defs.resources import CHAMPION_KEY, Platform
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import raw_key, receipt_key, received_key
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.ledger.formats.receipt_v2 import Receipt
    from crypto_ml.stages.cleaned_features import Cleaned
    from crypto_ml.stages.raw_uploads import Received


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

    with explained():
        store = platform.deployment.store
        received = receive_uploads(context.partition_key, platform.deployment, datetime.now(UTC))
    uploads = [file.upload for file in received.files]
    kept = [raw_key(file.sha256) for file in received.files if file.sha256]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(received.data_version),
        metadata={
            "uploads": links([upload.key for upload in uploads], store),
            "files": len(uploads),
            "bytes": sum(upload.size for upload in uploads),
            "kept": links(kept, store),
            "dagster/uri": store.uri(received_key(received.delivery)),
            "preview": records([_file_row(file) for file in received.files[:20]]),
        },
    )


@dg.asset(
    deps=[raw_uploads],
    kinds={"pandas", "duckdb", "parquet"},
    code_version=code_version("crypto_ml.stages.cleaned_features"),
    check_specs=[dg.AssetCheckSpec("no_row_refused", asset="cleaned_features", description="Every row was accepted.")],
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
)
def cleaned_features(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """A delivery's accepted rows, sorted, with the features a row has by itself; refused rows with reasons beside."""
    from crypto_ml.stages.cleaned_features import ACCEPTED_SCHEMA
    from crypto_ml.stages.raw_uploads import read_received
    from crypto_ml.stages.road import clean_rows

    with explained():
        store = platform.deployment.store
        received = read_received(context.partition_key, store)
        cleaned = clean_rows(received, platform.deployment, platform.champion)
    refused = sum(file.refused for file in cleaned.files.values())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(cleaned.accepted_sha256),
        metadata={
            "dagster/row_count": cleaned.accepted_rows,
            "dagster/column_schema": column_schema(ACCEPTED_SCHEMA),
            "dagster/uri": store.uri(cleaned.accepted_key),
            "refused_rows": refused,
            "accepted": link(cleaned.accepted_key, store),
            "refused": link(cleaned.refused_key, store),
            "files": records(_cleaned_rows(received, cleaned)),
            "preview": records(cleaned.preview),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="no_row_refused",
                passed=not refused and not any(file.refusal for file in cleaned.files.values()),
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"refused_rows": refused, "files": records(_cleaned_rows(received, cleaned))},
            )
        ],
    )


@dg.asset(
    deps=[cleaned_features],
    kinds={"deltalake", "s3"},
    code_version=code_version("crypto_ml.stages.market_history"),
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
)
def market_history(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Every accepted observation ever received, append-only, with the time it became known (Delta Lake)."""
    from crypto_ml.stages.cleaned_features import read_cleaned
    from crypto_ml.stages.raw_uploads import read_received
    from crypto_ml.stages.road import remember_rows
    from crypto_ml.storage.history import SCHEMA

    with explained():
        deployment = platform.deployment
        received = read_received(context.partition_key, deployment.store)
        cleaned = read_cleaned(context.partition_key, deployment.settings, deployment.store)
        remembered = remember_rows(received, cleaned, deployment)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"{remembered.version}"),
        metadata={
            "dagster/row_count": remembered.total,
            "dagster/partition_row_count": remembered.appended,
            "dagster/column_schema": column_schema(SCHEMA),
            "dagster/uri": deployment.history.uri,
            "table_version": remembered.version if remembered.version is not None else "no table yet",
        },
    )


@dg.asset(
    deps=[cleaned_features, market_history, CHAMPION_KEY],
    kinds={"onnx", "csv", "s3"},
    code_version=code_version("crypto_ml.stages.predictions"),
    check_specs=[
        dg.AssetCheckSpec("every_upload_predicted", asset="predictions", description="No upload was refused."),
        dg.AssetCheckSpec("every_row_answered", asset="predictions", description="Each accepted row is answered once."),
    ],
    partitions_def=DELIVERIES,
    group_name="uploads",
    owners=["team:data"],
)
def predictions(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """The answers to a delivery: predictions, report and refused rows of each upload, published beside it."""
    from crypto_ml.forecasting.answers import PREDICTIONS
    from crypto_ml.ledger.metrics import answer_metrics
    from crypto_ml.ledger.receipts import document
    from crypto_ml.ledger.reports import report_key_of
    from crypto_ml.stages.cleaned_features import read_cleaned
    from crypto_ml.stages.raw_uploads import read_received
    from crypto_ml.stages.road import answer_uploads

    with explained():
        deployment, champion = platform.deployment, platform.champion
        store = deployment.store
        received = read_received(context.partition_key, store)
        cleaned = read_cleaned(context.partition_key, deployment.settings, store)
        answers = answer_uploads(received, cleaned, deployment, champion, context.run.run_id)
    receipts = answers.receipts
    for receipt in receipts:
        if receipt.outcome != "PREDICTED":
            context.log.warning(visible(f"{receipt.upload.key}: {receipt.outcome}: {receipt.reason}"))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(answers.data_version),
        metadata={
            "dagster/row_count": sum(receipt.rows.predicted + receipt.rows.seed for receipt in receipts),
            "dagster/column_schema": column_schema(PREDICTIONS),
            "outcomes": records([_answer_row(receipt) for receipt in receipts[:20]]),
            "published": links(list(answers.published), store),
            "reports": links([report_key_of(receipt, store) for receipt in receipts], store),
            **({"receipt": dg.MetadataValue.json(document(receipts[0]))} if len(receipts) == 1 else {}),
            "receipts": links([receipt_key(receipt.answer_id) for receipt in receipts], store),
            **answer_metrics(receipts),
            "model_version": champion.version,
            "champion_pointer": champion.pointer,
            "history_version": str(receipts[0].history.read if receipts else None),
            "preview": table(answers.preview),
        },
        check_results=list(_answer_checks(receipts)),
    )


def _answer_checks(receipts: "Sequence[Receipt]") -> Iterator[dg.AssetCheckResult]:
    refused = [receipt for receipt in receipts if receipt.outcome == "REJECTED"]
    yield dg.AssetCheckResult(
        check_name="every_upload_predicted",
        passed=not refused,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"refused": records([_answer_row(receipt) for receipt in refused])},
    )
    unanswered = [r for r in receipts if r.outcome == "PREDICTED" and r.rows.predicted + r.rows.seed != r.rows.accepted]
    yield dg.AssetCheckResult(
        check_name="every_row_answered",
        passed=not unanswered,
        metadata={"unanswered": records([_answer_row(receipt) for receipt in unanswered])},
    )


def _answer_row(receipt: "Receipt") -> dict[str, Any]:
    rows = receipt.rows
    return {
        "upload": receipt.upload.key,
        "outcome": receipt.outcome,
        "reason": receipt.reason or "",
        "received": rows.received,
        "refused": rows.refused,
        "predicted": rows.predicted,
        "seed": rows.seed,
        "answer": receipt.answer_id,
    }


def _file_row(file: Any) -> dict[str, Any]:
    return {
        "upload": file.upload.key,
        "bytes": file.upload.size,
        "sha256": (file.sha256 or "")[:16],
        "outcome": file.outcome or "",
        "reason": file.reason or "",
    }


def _cleaned_rows(received: "Received", cleaned: "Cleaned") -> list[dict[str, Any]]:
    return [
        {
            "upload": received.files[number].upload.key,
            "received": file.received,
            "accepted": file.accepted,
            "refused": file.refused,
            "repeated": file.repeated,
            "refusal": file.refusal or "",
            "ignored columns": ", ".join(file.ignored_columns),
        }
        for number, file in list(cleaned.files.items())[:20]
    ]
