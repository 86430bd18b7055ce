"""Whether what a trace shows is what was recorded: each part of it held against what vouches for it.

A part is held by the **chain** (a link names the receipt's hash, or that of the record itself, and the receipt has the
part's), by the **receipt** alone (no link names it yet), by **nothing**, or it is **ALTERED**. Links themselves, and
whether they are those that there were, `verify` looks at.
"""

import csv
import hashlib
import io
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.audit.distance import MOST_ULP, float32_ulps
from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.forecast_evidence import ForecastEvidence
from crypto_ml.audit.forecast_trace import CHANGED, DELETED, ForecastTrace
from crypto_ml.audit.replay import published_stands
from crypto_ml.audit.tolerance import USUAL
from crypto_ml.audit.trace import EarlierRow, Line, Trace
from crypto_ml.audit.vouching import Claim
from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.ledger.chain import AT_ONCE, EvidenceChain, moment
from crypto_ml.ledger.formats.chain_v1 import Link
from crypto_ml.ledger.formats.forecast_v1 import ForecastReceipt
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import (
    ANSWERS,
    APPENDS,
    FORECAST_RECEIPTS,
    REQUESTS,
    forecast_receipt_key,
    retraction_key,
)
from crypto_ml.ledger.registry import champion_in
from crypto_ml.ledger.requests import pack_key, time_of
from crypto_ml.stages.delivery_scoring import score_delivery
from crypto_ml.stages.evidence_chain import LATE
from crypto_ml.stages.next_opens import forecast, last_days_of
from crypto_ml.storage.failures import ObjectMissing, VersionsNotListed
from crypto_ml.storage.objects import ObjectStore, StoredObject, StoredVersion

By = Literal["chain", "receipt", "nothing", "ALTERED"]
MOST_ROWS: Final = 200_000
"""Rows of an answer that are scored again to hold one of them against the receipt's hash; of more `replay` does it."""

MOST_BYTES: Final = 64 << 20
"""Of a published file in which a row is looked up."""

FEW: Final = 4
"""Links that are read one after the other, before many are at once."""

OF_A_DELIVERY: Final = re.compile(rf"(?:{ANSWERS}|{APPENDS})(\d{{8}})[-/]")
OF_A_REQUEST: Final = re.compile(rf"{REQUESTS}(\d{{18}})\.zip")
OF_A_DAY: Final = re.compile(rf"{FORECAST_RECEIPTS}(\d{{4}}-\d\d-\d\d)-")
"""Keys of records that say when they can have come first."""

OTHER_ROWS: Final = "the earlier rows that are read now are not those that the receipt has the hash of"


@dataclass(frozen=True)
class Held:
    """By what a part of a trace is held, and why in words."""

    by: By
    why: str


Holding = Mapping[str, Held]
"""By the parts of a trace: `receipt`, `upload`, `rows`, `model`, `approval`, `published`, and of one row `number` and
`earlier_rows`, and `retraction` where there is one."""


class EvidenceAltered(Refused):
    """A trace of which some part is not what was recorded."""


def document(holding: Holding) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "altered": any(one.by == "ALTERED" for one in holding.values()),
        "verified": {part: asdict(one) for part, one in holding.items()},
    }


def altered(holding: Holding) -> list[str]:
    """The parts that are not what was recorded, in sentences."""
    return [f"{part}: {one.why}" for part, one in holding.items() if one.by == "ALTERED"]


def told(lines: Iterable[Line], holding: Holding) -> Iterator[str]:
    """Lines of a trace, each behind what holds it, and why that is at the end."""
    for part, line in lines:
        yield f"{holding[part].by if part in holding else 'nothing':<9}{line}"
    yield ""
    for part, one in holding.items():
        yield f"{one.by:<9}{part.replace('_', ' '):<15} {one.why}"


class Links:
    """The links of a store's chain, in which records are looked up."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._chain = EvidenceChain(store)
        self._listed = self._chain.listed()
        self._read: dict[str, tuple[Link, str]] = {}

    def hold(self, key: str, claimed: str | None = None) -> Held:
        """A record as it stands, by the first link that names it. claimed: the time that the record gives itself.

        A record that was changed may be named by a later link as well, as it is now. So links are looked at in order,
        from what its key says of when it can have come first: its delivery, its moment, its day. Else from when S3 says
        that it was written, or it says so itself. All others are looked at after these.
        """
        found = self._store.head(key)
        if found is None:
            return Held("ALTERED", f"{self._store.uri(key)} is gone")
        if len(versions := list(self._versions_of(key))) > 1:
            times = ", ".join(moment(one.last_modified) for one in versions)
            return Held("ALTERED", f"{self._store.uri(key)} is written once, and S3 has versions of {times}")
        begin = self._begin(key, min([found.last_modified, *([datetime.fromisoformat(claimed)] if claimed else [])]))
        sha256 = sha256_of(self._store.read(key))
        for number in self._in_memory((*range(begin, len(self._listed)), *reversed(range(begin)))):
            link, content_sha256 = self._link(self._listed[number])
            record = next((record for record in link.records if record.key == key), None)
            if record is None:
                continue
            if record.sha256 != sha256 and not record.open:
                what = f"link {link.number} of {link.at} has another sha256 of {self._store.uri(key)}"
                return Held("ALTERED", f"{what}, which S3 says was written {moment(found.last_modified)}")
            behind = self._listed[number + 1 : number + 2]
            if behind and self._link(behind[0])[0].previous != content_sha256:
                return Held("ALTERED", f"link {link.number}, which names it, is not the one that the next link names")
            return Held("chain", f"link {link.number} of {link.at} has the sha256 of {self._store.uri(key)}")
        return self._of_no_link(key, found, claimed)

    def _begin(self, key: str, written: datetime) -> int:
        """The place of the link from which on a record is looked for."""
        if delivery := OF_A_DELIVERY.match(key):
            number = int(delivery[1])
            begin = bisect_left(self._listed, number, key=lambda one: self._link(one)[0].deliveries)
            # of a look that made several links, receipts come before their deliveries
            while 0 < begin < len(self._listed) and self._at(begin - 1) == self._at(begin):
                begin -= 1
            return begin
        if request := OF_A_REQUEST.match(key):
            written = min(written, time_of(request[1]))
        elif day := OF_A_DAY.match(key):  # no day is forecast before the day before it
            written = min(written, datetime.fromisoformat(day[1]).replace(tzinfo=UTC) - timedelta(days=1))
        since = written - LATE
        return next((place for place, one in enumerate(self._listed) if one.last_modified >= since), len(self._listed))

    def _in_memory(self, places: Sequence[int]) -> Iterator[int]:
        """The places of links, each when it was read: most records are in one of the first few, and for others many
        links are read at once."""
        yield from places[:FEW]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for place, _ in ahead(lambda one: (one, self._link(self._listed[one])), places[FEW:], pool, AT_ONCE):
                yield place

    def _at(self, number: int) -> str:
        return self._link(self._listed[number])[0].at

    def _versions_of(self, key: str) -> Iterator[StoredVersion]:
        """What S3 has kept of a record, where it keeps that and says so."""
        with suppress(VersionsNotListed):
            yield from (one for one in self._store.versions(key) if one.key == key)

    def _of_no_link(self, key: str, found: StoredObject, claimed: str | None) -> Held:
        written = moment(found.last_modified)
        if claimed and self._listed and USUAL.refuted(Claim("it is", claimed), found.last_modified):
            return Held("ALTERED", f"it says that it is of {claimed}, and S3 that it was written {written}")
        return Held("nothing", f"no link names {self._store.uri(key)} yet; S3 says that it was written {written}")

    def _link(self, listed: StoredObject) -> tuple[Link, str]:
        if listed.key not in self._read:
            content = self._store.read_pinned(listed)
            self._read[listed.key] = self._chain.parsed(listed, content).link, sha256_of(content)
        return self._read[listed.key]


@dataclass(frozen=True)
class _ByReceipt:
    """What the receipt vouches for is held by whatever holds the receipt. store: where its objects are."""

    receipt: Held
    store: ObjectStore

    def yes(self, what: str) -> Held:
        if self.receipt.by == "ALTERED":
            return Held("nothing", "the receipt that vouches for it was altered")
        return Held("chain" if self.receipt.by == "chain" else "receipt", f"the receipt has {what}")

    def objects(self, vouched: Mapping[str, str]) -> Held:
        """Stored objects, by their keys, that have to have these hashes."""
        for key, sha256 in vouched.items():
            try:
                found = _sha256_at(key, self.store)
            except ObjectMissing:
                return Held("ALTERED", f"{self.store.uri(key)} is gone")
            if found != sha256:
                return Held("ALTERED", f"{self.store.uri(key)} has another sha256 than the receipt says")
        return self.yes("its sha256" if len(vouched) == 1 else "their sha256")

    def looked(self, look: Callable[[], None], what: str) -> Held:
        """What a look that raises Differs finds."""
        try:
            look()
        except Differs as found:
            return Held("ALTERED", found.why)
        return self.yes(what)


def of_answer(found: Trace, store: ObjectStore) -> dict[str, Held]:
    """By what each part of a trace of an answer is held."""
    receipt, links = found.receipt, Links(store)
    container = pack_key(receipt.inputs.delivery) if found.pack else receipt.key
    held = {"receipt": links.hold(container, receipt.timings.answered_at)}
    with TemporaryDirectory(prefix="crypto_ml-trace-") as name:
        evidence = Evidence.of(receipt.answer_id, store, Path(name))
        by = _ByReceipt(held["receipt"], evidence.store)
        named = {part: vouched for part, vouched in receipt.evidence.items() if part not in ("champion", "bundle")}
        held["rows"] = by.objects({vouched.key: vouched.sha256 for vouched in named.values()})
        if found.kept:
            held["upload"] = by.looked(lambda: _upload_stands(evidence), "the sha256 of its bytes")
        held |= _of_a_model(receipt, by, links)
        if receipt.published:
            held["published"] = by.looked(lambda: published_stands(evidence), "the sha256 of what was published")
        if found.row:
            row, content = found.row, _published(receipt, "predictions", evidence.store)
            held["number"] = _number(row.prediction_id, row.pred_open, content, by)
            held["earlier_rows"] = by.looked(lambda: _rows_stand(evidence), "the hash of the rows it was made from")
            if receipt.rows.accepted > MOST_ROWS:
                held["earlier_rows"] = Held(
                    "nothing", f"of {receipt.rows.accepted:,} rows `crypto-ml replay` holds all"
                )
            else:
                held["earlier_rows"] = _came_from(row.earlier_rows, held["earlier_rows"], links, store)
    return held | _retractions(found.retracted, links)


def of_forecast(found: ForecastTrace, store: ObjectStore) -> dict[str, Held]:
    """By what each part of a trace of a forecast is held."""
    receipt, links = found.receipt, Links(store)
    held = {"receipt": links.hold(forecast_receipt_key(receipt.forecast_id), receipt.timings.made_at)}
    by = _ByReceipt(held["receipt"], store)
    held |= _of_a_model(receipt, by, links)
    wrong = [f"{store.uri(key)} {said}" for key, said in found.published.items() if said in (DELETED, CHANGED)]
    held["published"] = Held("ALTERED", "; ".join(wrong)) if wrong else by.yes("the sha256 of what was published")
    if found.row:
        row = found.row
        held["number"] = _number(row.prediction_id, row.pred_open, _published(receipt, "forecast", store), by)
        stand = by.looked(lambda: _forecast_rows_stand(receipt, store), "the hash of the rows it was made from")
        held["earlier_rows"] = _came_from(row.earlier_rows, stand, links, store)
    return held | _retractions(found.retracted, links)


def _sha256_at(key: str, store: ObjectStore) -> str:
    found, digest = store.head(key), hashlib.sha256()
    if found is None:
        raise ObjectMissing(f"{store.uri(key)} is gone")
    for piece in store.chunks(found):
        digest.update(piece)
    return digest.hexdigest()


def _of_a_model(receipt: Receipt | ForecastReceipt, by: _ByReceipt, links: Links) -> dict[str, Held]:
    """Model and approval: the manifest, which vouches for every file of a bundle, and the entry of the pointer."""
    manifest, entry = receipt.evidence["bundle"], receipt.evidence["champion"]
    held = {"model": by.objects({manifest.key: manifest.sha256}), "approval": by.objects({entry.key: entry.sha256})}
    number = receipt.inputs.champion_pointer
    chained = links.hold(entry.key)
    if chained.by == "ALTERED":
        held["approval"] = chained
    elif held["approval"].by != "ALTERED":
        pointed = champion_in(number, by.store.read(entry.key), by.store.uri(entry.key))
        if not pointed.is_repeated_by(receipt.champion):
            held["approval"] = Held("ALTERED", f"the receipt repeats another entry than {by.store.uri(entry.key)}")
        elif chained.by == "chain" and by.receipt.by != "ALTERED":
            held["approval"] = chained
    return held


def _upload_stands(evidence: Evidence) -> None:
    """The bytes that were kept are those that were received. Raises Differs."""
    kept, sha256 = evidence.kept, evidence.receipt.inputs.upload_sha256
    if kept is None or sha256 is None:
        return
    found = (
        _sha256_at(kept.key, evidence.store)
        if kept.begin is None
        else sha256_of(at_stage("raw_uploads", lambda: kept.read(evidence.store)))
    )
    if found != sha256:
        raise Differs("raw_uploads", f"the bytes in {kept.told(evidence.store)} are not those that were received")


def _rows_stand(evidence: Evidence) -> None:
    """The rows that an answer was made from have the hashes that its receipt has. Raises Differs."""
    receipt = evidence.receipt
    if receipt.rows.accepted > MOST_ROWS:
        return
    names, directory = {evidence.file: receipt.answer_id}, evidence.directory / "held"
    directory.mkdir()
    sources = evidence.sources(evidence.series)
    made = at_stage(
        "market_history",
        lambda: score_delivery(evidence.cleaned, names, sources, directory, evidence.file)[evidence.file],
    ).fingerprints
    if made.accepted_rows != receipt.fingerprints.accepted_rows:
        raise Differs("cleaned_features", "the accepted rows are not those that the receipt has the hash of")
    if made.earlier_rows != receipt.fingerprints.earlier_rows:
        raise Differs("market_history", f"{OTHER_ROWS}: `crypto-ml replay` says where")


def _forecast_rows_stand(receipt: ForecastReceipt, store: ObjectStore) -> None:
    evidence = ForecastEvidence(receipt, store)
    sources = evidence.sources(evidence.series)
    with TemporaryDirectory(prefix="crypto_ml-trace-") as name:
        days = last_days_of(sources.history, sources.history_version)
        made = at_stage("market_history", lambda: forecast(sources, days, Path(name)))
    if made.fingerprints.earlier_rows != receipt.fingerprints.earlier_rows:
        raise Differs("market_history", f"{OTHER_ROWS}: `crypto-ml replay` says where")


def _came_from(rows: Sequence[EarlierRow], stand: Held, links: Links, store: ObjectStore) -> Held:
    """Earlier rows that stand, and also that the uploads they came from are those that wrote them: records of appends
    vouch for the data files, and the chain for the records."""
    if stand.by not in ("chain", "receipt"):
        return stand
    why = stand.why
    for delivery in sorted({row.upload_id.partition(".")[0] for row in rows}):
        for record in store.list(f"{APPENDS}{delivery}-"):
            found = links.hold(record.key)
            if found.by == "ALTERED":
                return found
            if found.by == "nothing":
                stand = Held("receipt", f"{why}; which uploads they came from no link says yet")
            for key, sha256 in store.read_json(record.key)["objects"].items():
                if store.head(key) is None or _sha256_at(key, store) != sha256:
                    return Held("ALTERED", f"{store.uri(key)} is not what {store.uri(record.key)} says was appended")
    return stand


def _published(receipt: Receipt | ForecastReceipt, what: str, store: ObjectStore) -> str | None:
    """What was published, where it still stands as it was and is not too large to look into."""
    vouched = receipt.published.get(what)
    there = store.head(vouched.key) if vouched else None
    if vouched is None or there is None or there.size > MOST_BYTES:
        return None
    content = store.read(vouched.key)
    return content.decode() if sha256_of(content) == vouched.sha256 else None


def _number(prediction_id: str, made: float, content: str | None, by: _ByReceipt) -> Held:
    """The number that comes out again now, against the one that was published."""
    if content is None:
        return Held("nothing", "it was computed again now; what was published does not stand there any more")
    for row in csv.DictReader(io.StringIO(content, newline="")):
        if row["prediction_id"] == prediction_id:
            published = float(row["pred_open"])
            if published == made:
                return by.yes("the sha256 of the file, which has this number; it comes out again to the last bit")
            if (apart := float32_ulps(published, made)) <= MOST_ULP:
                return by.yes(
                    f"the sha256 of the file, which has {published!r}: {max(apart, 1)} ulp of a float32 from it"
                )
            return Held("ALTERED", f"{published!r} was published, and {made!r} comes out now")
    return Held("ALTERED", "what was published has no such row")


def _retractions(retracted: Mapping[str, Any], links: Links) -> dict[str, Held]:
    held = [links.hold(retraction_key(upload), one.at) for upload, one in retracted.items()]
    order: dict[str, int] = {"ALTERED": 0, "nothing": 1, "receipt": 2, "chain": 3}
    return {"retraction": min(held, key=lambda one: order[one.by])} if held else {}
