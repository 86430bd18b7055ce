"""The retraction of an upload, since 0.3: which upload, who decided so, when and why. Frozen.

It is the decision; that the rows are void says the market history itself, with the time of the decision.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from crypto_ml.ledger.deliveries import Upload
from crypto_ml.storage.caller import who

KIND: Final = "retraction"
FORMAT: Final = 1


@dataclass(frozen=True)
class Retraction:
    """upload_id: `<delivery>.<file>`, by which the history names the upload. at: ISO 8601, UTC, from when on its rows
    count as void. decision: the id of the decision, which may take back several uploads.
    acted_as: whose credentials or user decided, `kind` and `name` (see `storage.caller`); not recorded before 0.7.
    """

    upload_id: str
    upload: Upload
    by: str
    why: str
    at: str
    decision: str
    kind: str = KIND
    format: int = FORMAT
    acted_as: Mapping[str, str] | None = None

    @property
    def delivery(self) -> str:
        return self.upload_id.partition(".")[0]

    @property
    def decided_by(self) -> str:
        """Who decided, in words: the name that was given, and who acted under it."""
        return who(self.by, self.acted_as)

    def said(self) -> Mapping[str, Any]:
        """What the record says, as it is written (but for its seal)."""
        return asdict(self)


def notice(retraction: Retraction) -> dict[str, Any]:
    """What is said beside predictions: it is about them where the report beside them is of the same delivery."""
    return {
        "format": FORMAT,
        "retracted": True,
        "delivery": retraction.delivery,
        "upload_id": retraction.upload_id,
        "upload": asdict(retraction.upload),
        "by": retraction.by,
        "why": retraction.why,
        "at": retraction.at,
    }
