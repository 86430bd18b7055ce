"""Which answers to requests were settled: that their predictions are in the log, and which deliveries these were.

Each record has a name that its writer makes of the moment, as deliveries of requests have, so any number of processes
write them without asking each other; whoever follows them looks a little before where it was last.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.ahead import ahead
from crypto_ml.ledger.formats.reading import read_record, too_new
from crypto_ml.ledger.layout import SETTLED, SWEPT
from crypto_ml.ledger.requests import BY_CHANCE, first_of, time_of
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.storage.objects import ObjectStore

FORMAT: Final = 1
AT_ONCE: Final = 16
LATE: Final = timedelta(minutes=15)
"""How far the clocks of those who answer may be apart, and how long a pack may be on its way to the store."""

RECENT: Final = (timedelta(hours=1), timedelta(days=7))
"""How far a look for the last sweep goes back at first: sweeps are written down every few minutes, for ever."""


@dataclass(frozen=True)
class SettledDelivery:
    """The requests of one delivery: their answers, how many of them were rejected as a whole, their rows, the model."""

    delivery: str
    answers: Sequence[str]
    rejected: int
    received_rows: int
    predicted_rows: int
    refused_rows: int
    model_version: str


@dataclass(frozen=True)
class Settlement:
    """What was settled at once. name: 18 digits, of which the first 13 are the milliseconds since 1970, and the others
    the same wherever the same deliveries are settled."""

    name: str
    deliveries: Sequence[SettledDelivery]
    format: int = FORMAT

    @classmethod
    def of(cls, deliveries: Sequence[SettledDelivery], now: datetime) -> "Settlement":
        """What is settled now."""
        of_them = int(sha256_of("\n".join(sorted(one.delivery for one in deliveries)).encode())[:8], 16)
        return cls(str(int(first_of(now)) + of_them % 10**BY_CHANCE), tuple(deliveries))

    def repeats(self, other: "Settlement") -> bool:
        """Whether both are about the same deliveries: somebody was not sure whether it was written down before."""
        return {one.delivery for one in self.deliveries} == {one.delivery for one in other.deliveries}


def record_settlement(settlement: Settlement, store: ObjectStore) -> None:
    """Write down what was settled."""
    store.create_json(f"{SETTLED}{settlement.name}.json", asdict(settlement))


def settlement_names(store: ObjectStore, after: str | None = None, until: str | None = None) -> Iterator[str]:
    """The names of what was settled, in their order, behind one of them, and up to another."""
    for found in store.list(SETTLED, start_after=None if after is None else f"{SETTLED}{after}.json"):
        name = found.key.removeprefix(SETTLED).removesuffix(".json")
        if until is not None and name > until:
            return
        yield name


def read_settlement(name: str, store: ObjectStore) -> Settlement:
    """What was settled, by its name. Raises ObjectMissing, RecordDamaged, RecordTooNew."""
    key = f"{SETTLED}{name}.json"
    settlement = read_record(Settlement, store.read_json(key), store.uri(key))
    if settlement.format > FORMAT:
        raise too_new("record of what was settled", store.uri(key), settlement.format, FORMAT)
    return settlement


def settlements(store: ObjectStore, after: str | None = None) -> Iterator[Settlement]:
    """What was settled, in the order of the names, behind one of them. Raises RecordDamaged, RecordTooNew."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = settlement_names(store, after)
        yield from ahead(lambda name: read_settlement(name, store), names, pool, AT_ONCE)


def record_sweep(until: datetime, store: ObjectStore) -> None:
    """Write down up to which moment whatever was left behind is settled."""
    try:
        store.create_json(f"{SWEPT}{first_of(until)}.json", {"format": FORMAT})
    except AlreadyExists:  # two swept up to the very same moment
        return


def last_sweep(store: ObjectStore, now: datetime) -> datetime | None:
    """Up to which moment whatever was left behind is settled; None where nobody has swept."""
    for begin in (*(f"{SWEPT}{first_of(now - before)}" for before in RECENT), None):
        last = None
        for found in store.list(SWEPT, start_after=begin):
            last = found.key.removeprefix(SWEPT).removesuffix(".json")
        if last is not None:
            return time_of(last)
    return None


def is_settled(delivery: str, store: ObjectStore, now: datetime) -> bool:
    """Whether what the requests of a delivery predicted has been logged. Costs the settlements since, or since the last
    sweep. Raises RecordDamaged, RecordTooNew."""
    asked, swept = time_of(delivery), last_sweep(store, now)
    if swept is not None and swept - LATE > asked:
        return True
    return any(
        one.delivery == delivery for found in settlements(store, first_of(asked - LATE)) for one in found.deliveries
    )
