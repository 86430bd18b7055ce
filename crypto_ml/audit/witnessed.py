"""The chain of evidence held against what its witnesses were told: whether it is the one that there was."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from crypto_ml.audit.verified import Finding, Verified, counted
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.chain import EvidenceChain
from crypto_ml.ledger.formats.witnessed_v1 import WitnessedHead
from crypto_ml.settings import Settings
from crypto_ml.stages.witnesses import EVERY, Witness, witnesses
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
        what = "it was never told of this chain, or has lost it: it vouches for nothing; evidence_chain tells it again"
        return [Finding("witness", witness.name, what)], None
    return findings, "; ".join(_said(witness, sorted(heads, key=lambda head: head.number), len(there)))


def _said(witness: Witness, heads: Sequence[WitnessedHead], links: int) -> Iterator[str]:
    """What a witness knows, and between which links it was told nothing: those could have been others then."""
    last = heads[-1]
    yield f"{witness.name} knows {counted(len(heads), 'link')} of this chain, the last is {last.number} of {last.at}"
    if links > last.number:
        yield f"of the {counted(links - last.number, 'link')} since then it knows nothing"
    for before, behind in pairwise(heads):
        if datetime.fromisoformat(behind.at) - datetime.fromisoformat(before.at) > 2 * EVERY:
            yield f"it was told nothing between link {before.number} of {before.at} and {behind.number} of {behind.at}"
