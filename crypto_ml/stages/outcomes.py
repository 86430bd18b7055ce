"""What becomes of an upload, decided from what was found: the one table of outcomes.

| found | outcome | published |
|---|---|---|
| its bytes were gone before they could be read | SKIPPED | report |
| refused as a whole | REJECTED | report, refused rows |
| in the same delivery a later upload has the same answer's name | SKIPPED | nothing |
| the predictions of a newer delivery stand | SKIPPED | nothing |
| the predictions that stand answer these very bytes already | SKIPPED | the same again, as this delivery's |
| they do, and the upload that they answer was retracted | PREDICTED | predictions, report, refused rows |
| nothing of that | PREDICTED | predictions, report, refused rows |

A file that is refused or gone is so whatever stands; its report never takes the place of a newer one.
"""

from dataclasses import dataclass
from typing import Literal

from crypto_ml.ledger.formats.receipt_v2 import Outcome

Publishing = Literal["nothing", "report", "answer", "repeat"]


@dataclass(frozen=True)
class Standing:
    """The report that stands under an upload's answer name. answer_id: of the predictions it names, None without.
    retracted: whether the upload that it is on, or that those answer, was retracted."""

    delivery: str
    upload_key: str
    upload_sha256: str | None
    outcome: Outcome
    answer_id: str | None
    retracted: bool = False


@dataclass(frozen=True)
class Situation:
    """What is known of one upload of a delivery.

    gone, refusal: why it could not be read, or was refused as a whole. owner: the upload of this delivery to which the
    answer's name belongs: the last one with that name.
    """

    delivery: str
    upload_key: str
    upload_sha256: str | None
    owner: str
    gone: str | None = None
    refusal: str | None = None
    standing: Standing | None = None


@dataclass(frozen=True)
class Decided:
    """What becomes of an upload. repeats: the answer that its bytes have already. replaces: the one it corrects."""

    outcome: Outcome
    reason: str | None
    publishing: Publishing
    repeats: str | None = None
    replaces: str | None = None


def decide(found: Situation) -> Decided:
    """The outcome of one upload; see the table above. Pure, and the same for the same situation."""
    outranked = _outranked(found)
    own: Publishing = "nothing" if outranked else "report"
    if found.gone or found.refusal:
        return Decided("SKIPPED" if found.gone else "REJECTED", found.gone or found.refusal, own)
    if outranked:
        return Decided("SKIPPED", outranked, "nothing")
    standing = found.standing
    if standing is None or standing.answer_id is None or standing.upload_key != found.upload_key:
        return Decided("PREDICTED", None, "answer")
    corrects = standing.upload_sha256 != found.upload_sha256
    same_delivery = standing.delivery == found.delivery
    anew = standing.outcome != "SKIPPED" if same_delivery else standing.retracted
    if corrects or anew:
        return Decided("PREDICTED", None, "answer", replaces=standing.answer_id if corrects else None)
    reason = f"the same bytes under the same key were answered before, by answer {standing.answer_id}"
    return Decided("SKIPPED", reason, "repeat", repeats=standing.answer_id)


def _outranked(found: Situation) -> str | None:
    """Why the answer that stands, or is about to, is not replaced by this one.

    A newer upload that was rejected published no predictions, so those of this one have their place.
    """
    if found.owner != found.upload_key:
        return f"{found.owner} came in the same delivery, and its answer has the same name; rename one of them"
    standing = found.standing
    if standing is None or int(standing.delivery) <= int(found.delivery) or standing.answer_id is None:
        return None
    same = standing.upload_key == found.upload_key
    newer = "a newer version of the file" if same else f"a newer upload, {standing.upload_key},"
    return f"{newer} was answered in delivery {standing.delivery}; its answer stays"
