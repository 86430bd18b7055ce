"""The chain of evidence held against what its witnesses were told: whether it is the one that there was."""

from dataclasses import replace

from crypto_ml.audit.verified import Finding, Verified, counted
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.chain import EvidenceChain
from crypto_ml.settings import Settings
from crypto_ml.stages.witnesses import Witness, witnesses
from crypto_ml.storage.objects import ObjectStore


def compared(found: Verified, store: ObjectStore, settings: Settings) -> Verified:
    """What a look found, and what the witnesses say. A witness that cannot be asked is a finding: it may be why."""
    findings, notes = list(found.findings), list(found.notes)
    for witness in witnesses(settings, store):
        try:
            wrong, note = _held_against(witness, store)
        except CryptoMLError as error:
            wrong, note = [Finding("witness", witness.name, f"it could not be asked: {error}")], None
        findings += wrong
        notes += [note] if note else []
    return replace(
        found,
        findings=tuple(findings),
        notes=tuple(notes),
        state=found.state if len(findings) == len(found.findings) else None,
    )


def _held_against(witness: Witness, store: ObjectStore) -> tuple[list[Finding], str | None]:
    heads = witness.heads(store.uri(""))
    chain = EvidenceChain(store)
    there = {found.key: found for found in chain.listed()}
    findings = []
    for head in heads:
        key = chain.key(head.number)
        listed = there.get(key)
        if listed is None:
            what = f"{witness.name} was told of link {head.number}, and it is gone"
        elif chain.sha256_at(listed) != head.sha256:
            what = f"{witness.name} was told of another link {head.number} than there is: the chain was made anew"
        else:
            continue
        findings.append(Finding("witness", key, what, head.number, head.at))
    if not heads:
        return findings, f"{witness.name} was never told of this chain"
    last = heads[-1]
    return (
        findings,
        f"{witness.name} knows {counted(len(heads), 'link')} of this chain, the last is {last.number} of {last.at}",
    )
