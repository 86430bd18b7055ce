"""What a stored record says: of its own time, of the hashes of other objects, of answers, and of what was published.

Belongs here: each kind of record read for that, in whichever format. Does not belong here: whether it is true, which
`agreement` holds, and `vouched` of the bytes of objects.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.ledger.chain import is_record
from crypto_ml.ledger.forecasts import ForecastOrder, forecast_receipt_in
from crypto_ml.ledger.formats.reading import read_record
from crypto_ml.ledger.formats.receipt_v2 import Receipt
from crypto_ml.ledger.layout import (
    ANSWERED,
    ANSWERS,
    APPENDS,
    COMPACTIONS,
    DELIVERIES,
    FORECAST_RECEIPTS,
    MODELS,
    RAW,
    REQUESTS,
    RETRACTIONS,
    TRAINING_SETS,
)  # fmt: skip
from crypto_ml.ledger.receipts import SEAL, receipts_in, sealed
from crypto_ml.ledger.registry import champion_in
from crypto_ml.stages.cleaned_features import Cleaned
from crypto_ml.stages.raw_uploads import received_in
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.packed import unpacked

CHAMPION: Final = f"{MODELS}champion/"
BUNDLES: Final = f"{MODELS}bundles/"


@dataclass(frozen=True)
class Claim:
    """A time that a record gives (ISO 8601), and of what: `the answer was given`."""

    what: str
    at: str


@dataclass(frozen=True)
class Published:
    """What an answer published: what → key and sha256. earlier: the answer that its predictions are those of."""

    delivery: int
    upload: str
    answer: str
    outcome: str
    objects: Mapping[str, tuple[str, str]]
    earlier: str | None = None


@dataclass(frozen=True)
class Said:
    """What a record says. records, objects: key → sha256 of what it vouches for. answers: those whose receipts it has.
    answered: upload key → (answer, outcome) of a delivery. champions: the pointer's entries as receipts repeat them, by
    their keys. forecast: of a forecast's receipt its id, its place among all (a greater one is newer), when it was
    made. contradicts: what contradicts itself in it, in sentences."""

    claims: Sequence[Claim] = ()
    records: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[str, str] = field(default_factory=dict)
    answers: Sequence[str] = ()
    answered: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)
    delivery: int = 0
    published: Sequence[Published] = ()
    forecasts: Mapping[str, str] = field(default_factory=dict)
    forecast: tuple[str, int, str] = ("", 0, "")
    champions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    contradicts: Sequence[str] = ()


def said_by(key: str, content: bytes, where: str) -> Said:
    """What the record under a key says. Raises whatever reading one that is damaged does."""
    for prefix, read in _KINDS.items():
        if key.startswith(prefix):
            return read(key, content, where)
    return Said()


def _delivery(_key: str, content: bytes, _where: str) -> Said:
    return Said([Claim("its uploads were noticed", json.loads(content)["noticed_at"])])


def _received(_key: str, content: bytes, where: str) -> Said:
    received = received_in(content, where)
    kept: dict[str, str] = {}
    for number, file in enumerate(received.files):
        if one := received.kept(number):
            kept[one.key] = str(file.sha256 if one.begin is None else received.together)
    return Said([Claim("its uploads were received", received.at)], objects=kept)


def _cleaned(_key: str, content: bytes, where: str) -> Said:
    cleaned = read_record(Cleaned, json.loads(content), where)
    return Said(objects={cleaned.accepted_key: cleaned.accepted_sha256})


def _objects_of_a_commit(_key: str, content: bytes, _where: str) -> Said:
    return Said(objects=json.loads(content)["objects"])


def _bundle(key: str, content: bytes, _where: str) -> Said:
    prefix = key.removesuffix("bundle.json")
    return Said(objects={prefix + name: sha256 for name, sha256 in json.loads(content)["files"].items()})


def _training_set(_key: str, content: bytes, _where: str) -> Said:
    scaler = json.loads(content).get("scaler", {})
    return Said(objects={scaler["key"]: scaler["sha256"]} if "key" in scaler else {})


def _pointer(key: str, content: bytes, where: str) -> Said:
    number = int(key.rpartition("/")[2].removesuffix(".json"))
    return Said([Claim("it was decided", champion_in(number, content, where).at)])


def _retraction(_key: str, content: bytes, _where: str) -> Said:
    document = json.loads(content)
    whole = document.get(SEAL) == sealed(document)[SEAL]
    return Said(
        [Claim("it was decided", document["at"])],
        contradicts=() if whole else ["its seal does not follow from what it says"],
    )


def _outcomes(key: str, content: bytes, _where: str) -> Said:
    said = {name: (one["answer_id"], one["outcome"]) for name, one in json.loads(content).items()}
    return Said(answered=said, delivery=int(key.removeprefix(ANSWERED).removesuffix(".json")))


def _receipts(key: str, content: bytes, where: str) -> Said:
    return _said_by_receipts(receipts_in(key, content, where))


def _said_by_receipts(receipts: Sequence[Receipt]) -> Said:
    records: dict[str, str] = {}
    objects: dict[str, str] = {}
    champions: dict[str, Mapping[str, Any]] = {}
    contradicts = []
    for receipt in receipts:
        for part, vouched in receipt.evidence.items():
            known = records if is_record(vouched.key) else objects
            if known.get(vouched.key, vouched.sha256) != vouched.sha256:
                contradicts.append(f"two of its receipts name another {vouched.key}")
            known[vouched.key] = vouched.sha256
            if part == "champion":
                champions[vouched.key] = receipt.champion
    return Said(
        [Claim(f"answer {one.answer_id} was given", one.timings.answered_at) for one in receipts],
        records=records, objects=objects, answers=[one.answer_id for one in receipts],
        published=[_published(one) for one in receipts], champions=champions, contradicts=contradicts,
    )  # fmt: skip


def _published(receipt: Receipt) -> Published:
    objects = {what: (vouched.key, vouched.sha256) for what, vouched in receipt.published.items()}
    return Published(
        int(receipt.inputs.delivery), receipt.upload.key, receipt.answer_id, receipt.outcome, objects,
        receipt.earlier_answer,
    )  # fmt: skip


def _forecast(key: str, content: bytes, where: str) -> Said:
    receipt = forecast_receipt_in(key, content, where)
    records = {one.key: one.sha256 for one in receipt.evidence.values()}
    return Said(
        [Claim("the forecast was made", receipt.timings.made_at)],
        records=records,
        forecasts={one.key: one.sha256 for one in receipt.published.values()},
        forecast=(receipt.forecast_id, ForecastOrder.of(receipt).place, receipt.timings.made_at),
        champions={receipt.evidence["champion"].key: receipt.champion} if "champion" in receipt.evidence else {},
    )


def _pack(_key: str, content: bytes, where: str) -> Said:
    """A pack vouches for all that is in it; what its receipts name of it is looked up there."""
    entries = unpacked(content, where)
    found = [receipts_in(key, entry, where) for key, entry in entries.items() if key.startswith(ANSWERS)]
    said = _said_by_receipts([receipt for some in found for receipt in some])
    contradicts = list(said.contradicts)
    for key, sha256 in {**said.records, **said.objects}.items():
        if key in entries and sha256_of(entries[key]) != sha256:
            contradicts.append(f"its receipts name another {key} than it has")
    return Said(
        said.claims,
        records={key: sha256 for key, sha256 in said.records.items() if key not in entries},
        objects={key: sha256 for key, sha256 in said.objects.items() if key not in entries},
        champions=said.champions,
        contradicts=contradicts,
    )


_KINDS: Final[Mapping[str, Callable[[str, bytes, str], Said]]] = {
    DELIVERIES: _delivery,
    f"{RAW}received/": _received,
    f"{RAW}cleaned/": _cleaned,
    APPENDS: _objects_of_a_commit,
    COMPACTIONS: _objects_of_a_commit,
    ANSWERED: _outcomes,
    ANSWERS: _receipts,
    REQUESTS: _pack,
    RETRACTIONS: _retraction,
    FORECAST_RECEIPTS: _forecast,
    CHAMPION: _pointer,
    BUNDLES: _bundle,
    TRAINING_SETS: _training_set,
}


def repeated_otherwise(said: Said, store: ObjectStore, entries: dict[str, Any]) -> Iterator[str]:
    """Entries of the champion pointer that receipts repeat, and that are not so. entries: those read before."""
    for key, repeated in said.champions.items():
        if key not in entries:
            number = int(key.rpartition("/")[2].removesuffix(".json"))
            entries[key] = champion_in(number, store.read(key), store.uri(key))
        if not entries[key].is_repeated_by(repeated):
            yield f"it repeats another entry of the champion pointer than {key}"
