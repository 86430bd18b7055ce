"""How far the times that records claim may be from when S3 says that they were written, and why.

Belongs here: what is held against S3's time, and when it cannot be. Does not belong here: which times a record claims,
which is in `vouching`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from crypto_ml.audit.vouching import Claim
from crypto_ml.ledger.chain import moment


@dataclass(frozen=True)
class Tolerance:
    """How far times may be apart.

    clocks: of whoever writes a record, and of the store. longest_run: between what a run says of the time and what it
    writes. late: how much later than its LastModified an object may come to be listed (see `evidence_chain.LATE`).
    """

    clocks: timedelta = timedelta(minutes=15)
    longest_run: timedelta = timedelta(hours=2)
    late: timedelta = timedelta(hours=1)

    def refuted(self, claim: Claim, written: datetime, *, copied: bool = False) -> str | None:
        """Where a claim about a time cannot be, by when S3 says that it was written; the sentence, else None. copied:
        it may have been written again long after."""
        claimed = datetime.fromisoformat(claim.at)
        if claimed > written + self.clocks:
            return f"it says that {claim.what} {claim.at}, and S3 that it was written before, {moment(written)}"
        if not copied and claimed < written - self.clocks - self.longest_run:
            return f"it says that {claim.what} {claim.at}, and S3 that it was written only {moment(written)}"
        return None


USUAL: Final = Tolerance()
RESTORED: Final = Tolerance(longest_run=timedelta(days=36_525))
"""Of a store that was put back from a copy: S3 says when that was, and no more."""
