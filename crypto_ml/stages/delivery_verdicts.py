"""What is to be said of a delivery as a whole: its verdicts, in one sentence each that names the files concerned."""

from collections.abc import Iterable, Sequence
from typing import Final

from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import UPLOADS
from crypto_ml.stages.cleaned_features import Cleaned
from crypto_ml.stages.raw_uploads import Received

MOST_NAMED: Final = 5
LONGEST_REASON: Final = 160


def no_row_refused(received: Received, cleaned: Cleaned) -> Verdict:
    """Whether every row of every file that could be read was accepted, and no file was refused as a whole."""
    files = [(received.files[number].upload.key, file) for number, file in cleaned.files.items()]
    whole = [f"{_name(key)}: {_short(file.refusal)}" for key, file in files if file.refusal]
    some = [f"{_name(key)}: {file.refused:,}" for key, file in files if file.refused and not file.refusal]
    refused, rows = sum(file.refused for _, file in files), sum(file.received for _, file in files)
    said = [f"{len(whole)} of {_files(len(files))} refused as a whole: {_listed(whole)}"] if whole else []
    said += [f"{refused:,} of {rows:,} rows refused{': ' + _listed(some) if some else ''}"] if refused else []
    return Verdict(
        passed=not said,
        numbers={"rows": rows, "refused_rows": refused, "files": len(files), "refused_files": len(whole)},
        threshold=0,
        explanation="; ".join(said) or f"all {rows:,} rows of {_files(len(files))} accepted",
    )


def every_upload_predicted(receipts: Sequence[Receipt]) -> Verdict:
    """Whether no file of a delivery was refused; one that was skipped was not."""
    refused = [f"{_name(one.upload.key)}: {_short(one.reason)}" for one in receipts if one.outcome == "REJECTED"]
    skipped = sum(one.outcome == "SKIPPED" for one in receipts)
    predicted = len(receipts) - len(refused) - skipped
    said = f"{len(refused)} of {_files(len(receipts))} refused: {_listed(refused)}" if refused else "no file refused"
    rest = [f"{count} {word}" for count, word in ((predicted, "predicted"), (skipped, "skipped")) if count]
    return Verdict(
        passed=not refused,
        numbers={"files": len(receipts), "refused": len(refused), "skipped": skipped, "predicted": predicted},
        threshold=0,
        explanation="; ".join([said, *rest]),
    )


def every_row_answered(receipts: Iterable[Receipt]) -> Verdict:
    """Whether the predictions of each file have each of its accepted rows once."""
    predicted = [one for one in receipts if one.outcome == "PREDICTED"]
    rows = sum(one.rows.accepted for one in predicted)
    missing = {one.upload.key: one.rows.accepted - one.rows.predicted - one.rows.seed for one in predicted}
    wrong = [f"{_name(key)}: {count:+,}" for key, count in missing.items() if count]
    return Verdict(
        passed=not wrong,
        numbers={"rows": rows, "unanswered_rows": sum(missing.values()), "unanswered_files": len(wrong)},
        threshold=0,
        explanation=(
            f"rows without an answer in {len(wrong)} of {_files(len(predicted))}: {_listed(wrong)}"
            if wrong
            else f"{rows:,} accepted rows of {_files(len(predicted))}, and each is answered once"
        ),
    )


def _name(key: str) -> str:
    return key.removeprefix(UPLOADS)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _short(reason: str | None) -> str:
    text = reason or "no reason recorded"
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _listed(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - MOST_NAMED:,} more"] if len(texts) > MOST_NAMED else []
    return "; ".join([*texts[:MOST_NAMED], *more])
