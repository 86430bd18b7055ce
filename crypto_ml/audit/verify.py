"""The whole record held against the chain of evidence: every link, every record it names, what those vouch for.

What S3 itself says is believed: whoever writes an object cannot choose when it was written (LastModified), and of what
was replaced or deleted the versions stay, where the bucket keeps them. What a record claims about its own time is
held against that.

A record or an object that was read and found right is not read again as long as S3 says that it was not written since
(`verified.State`). What that state says only saves time; whoever does not trust where it was kept verifies without it.

Belongs here: in which order things are held. Does not belong here: the rules. Those of links are in `walk`, of records
in `recorded`, of what they say in `agreement`, of what they vouch for in `vouched`, of what is published in `published`
and `notices`, of what was replaced in `versions`; how far times may be apart is in `tolerance`.
"""

from datetime import UTC, datetime

from crypto_ml.audit.agreement import Agreement
from crypto_ml.audit.hashed import Hashes
from crypto_ml.audit.listing import RECORDED_IN, Listing
from crypto_ml.audit.notices import wrong_notices
from crypto_ml.audit.published import Standing, Stood
from crypto_ml.audit.recorded import Recorded
from crypto_ml.audit.tolerance import USUAL, Tolerance
from crypto_ml.audit.verified import NOTHING, Findings, State, Verified
from crypto_ml.audit.vouched import Vouched
from crypto_ml.audit.walk import NO_HEAD, Chained, Walk
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.ledger.chain import is_record
from crypto_ml.ledger.layout import CHAIN, PREDICTIONS
from crypto_ml.storage.objects import ObjectStore


def verify(
    store: ObjectStore,
    *,
    state: State | None = None,
    since: int | datetime | None = None,
    tolerance: Tolerance = USUAL,
    tell: Tell = tell_nobody,
    now: datetime | None = None,
) -> Verified:
    """Look at everything. state: of an earlier look, None: read it all. since: only what came with the links from this
    number, or time, on. now: None: by the clock. Raises StoreUnavailable, NoChain."""
    now = now or datetime.now(UTC)
    listing, hashes, chained = Listing(store), Hashes(store, tell), Chained()
    findings = Findings(chained.links, chained.times)
    walk = Walk(store, listing, chained, findings, tolerance)
    before = walk.along(state, tell) or NOTHING

    first = chained.first_link(since)
    there = {key: found for key, found in listing.of(RECORDED_IN).items() if is_record(key)}
    recorded = Recorded(there, chained, findings, store)
    asked = recorded.to_read(before.records, first)
    waiting = recorded.waiting(tolerance.late) if first is None else {}
    said = recorded.read(asked, tell)
    unnamed = Agreement(said, there, chained, findings, store).hold(tolerance)
    vouched = Vouched(before.objects, listing, chained, findings)
    objects = vouched.hold(said, hashes)

    after = None
    if first is None:
        over = now - tolerance.longest_run - tolerance.clocks
        standing = Standing(before.published, before.stood, store, over)
        for one in said.values():
            standing.add(one)
        stood = Stood(before.stood, standing, listing, store)
        for key, what in stood.wrong(waiting, chained.records, hashes).items():
            findings.add("published", key, what)
        for key, what in wrong_notices(listing.of([PREDICTIONS]), over, store):
            findings.add("published", key, what)
        for key, what in vouched.unvouched(standing, tolerance.late):
            findings.add("extra", key, what)
        if walk.head and not findings.found:
            after = State(
                walk.head, chained.records, chained.links, chained.times, vouched.right, standing.kept(), stood.seen,
                chained.began_with, chained.complete, chained.first_look, chained.first_written,
            )  # fmt: skip

    # what versions say is listed anew each time, and no state has it
    for key, what in listing.replaced(vouched.right, chained.begin(since)):
        number = key.removeprefix(CHAIN).removesuffix(".json")
        findings.add("versions", key, what, int(number) if number.isdecimal() else None)

    notes = [note for note in (unnamed, recorded.note, listing.versions.note) if note]
    return Verified(
        tuple(findings.found), tuple(notes), walk.head or NO_HEAD, walk.began, walk.count, len(chained.records),
        len(said), objects, recorded.bytes_read + hashes.bytes_read, len(waiting), listing.versions.compared, after,
    )  # fmt: skip
