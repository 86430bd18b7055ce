"""What somebody decides goes into the chain of evidence at once, and to its witnesses: a promotion, a retraction."""

from datetime import datetime

from crypto_ml.deployment import Deployment
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.chain import EvidenceChain
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.stages.witnesses import tell_witnesses


def chained_decision(what: str, deployment: Deployment, now: datetime) -> list[str]:
    """Take in a decision that stands, and tell the witnesses. What could not be done, in sentences: the decision stands
    all the same, and the next look takes it in. So does the first look, where there is no chain yet: whoever decides
    does not wait until all that earlier releases left is read."""
    try:
        if EvidenceChain(deployment.store).head() is None:
            return []
        head = extend(deployment.store, now, everything=False).head
        told = tell_witnesses(head, deployment.store, deployment.settings, now, at_once=True) if head else []
    except CryptoMLError as error:
        return [f"{what} stands, and is not in the chain of evidence yet; the next look takes it in: {error}"]
    return [f"{what} stands, and one witness was not told: {one}" for one in told if one.problem]
