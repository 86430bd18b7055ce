"""requests_sensor: shows in Dagster which requests were answered, without anybody having waited for that.

It follows what was settled. A tick is one listing, and each record that is new is read once; all of them are one event
of `served_predictions`, which names them. What was told already is what such events name, so that a tick that died, a
lost cursor or two daemons tell nothing twice. Names are of the moment by their writers' clocks: a tick looks back as
far as these may be apart, and what is named later than that is left until then. Nothing is launched.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from crypto_ml.defs.assets.requests import served_predictions
from crypto_ml.defs.presentation import links, records
from crypto_ml.defs.resources import Platform
from crypto_ml.digest import sha256_of
from crypto_ml.errors import CryptoMLError
from crypto_ml.ledger.formats.reading import RecordDamaged
from crypto_ml.ledger.requests import BY_CHANCE, DIGITS, first_of, pack_key, time_of
from crypto_ml.ledger.settlements import LATE, SettledDelivery, Settlement, read_settlement, settlement_names
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible

SECONDS_BETWEEN_LOOKS: Final = 15
MOST_PER_TICK: Final = 200
"""Records that are read and told of at once; where more are new, the next ticks go on."""

EVENTS_LOOKED_AT: Final = 100
"""Events in which it is looked up what was told: more than there are ticks in the time that is looked back."""

AT_ONCE: Final = 16
MOST_LISTED: Final = 20
TOLD: Final = "settlements"
"""The entry of an event that names what it tells of."""


@dataclass(frozen=True)
class Followed:
    """What is new: its names, up to where it has been followed then, and what is to be told of it. damaged: names of
    records that cannot be read any more."""

    names: Sequence[str]
    up_to: str
    settlements: Sequence[Settlement]
    damaged: Sequence[str] = ()


@dg.sensor(
    name="requests_sensor",
    target=None,
    minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Follows which requests were answered, and shows them as materializations of served_predictions; it "
    "launches nothing.",
)
def requests_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    try:
        store = platform.deployment.store
        followed = follow(store, context.cursor, context.instance, datetime.now(UTC))
    except CryptoMLError as error:  # a failed look is never "nothing new": say so, and look again
        return dg.SkipReason(f"could not look at what was settled: {visible(str(error))}")
    if not followed.names:
        return dg.SensorResult(skip_reason="no request was answered since the last look", cursor=followed.up_to)
    return dg.SensorResult(asset_events=[event(followed, store)], cursor=followed.up_to)


def follow(store: ObjectStore, cursor: str | None, instance: dg.DagsterInstance, now: datetime) -> Followed:
    """What was settled and not told yet, MOST_PER_TICK records at most. Raises RecordTooNew, StoreUnavailable …"""
    told: set[str] | None = None
    if cursor is None or len(cursor) != DIGITS or not cursor.isdecimal():
        told = _told(instance)
        cursor = max(told, default=None)
    after = None if cursor is None else first_of(time_of(cursor) - LATE)
    listed: list[str] = []
    new: list[str] = []
    for name in settlement_names(store, after, until=first_of(now + LATE)):
        told = _told(instance) if told is None else told
        listed.append(name)
        new += [] if name in told else [name]
        if len(new) == MOST_PER_TICK:
            return _read(new, listed, min(name, first_of(now)), store)
    return _read(new, listed, first_of(now), store)


def _told(instance: dg.DagsterInstance) -> set[str]:
    """The names that the last events tell of."""
    found = instance.fetch_materializations(served_predictions.key, limit=EVENTS_LOOKED_AT).records
    told: set[str] = set()
    for record in found:
        shown = record.asset_materialization.metadata.get(TOLD) if record.asset_materialization else None
        if shown is not None and isinstance(shown.value, list):
            told.update(map(str, shown.value))
    return told


def _read(new: Sequence[str], listed: Sequence[str], up_to: str, store: ObjectStore) -> Followed:
    """What the new names are of, but for what another record tells of too."""

    def read(name: str) -> Settlement | None:
        try:
            return read_settlement(name, store)
        except RecordDamaged:
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(new, pool.map(read, new), strict=True))
    alike: dict[str, list[str]] = {}
    for name in listed:
        alike.setdefault(name[-BY_CHANCE:], []).append(name)
    settled: list[Settlement] = []
    for name, one in found.items():
        before = [other for other in alike[name[-BY_CHANCE:]] if other < name or other not in found]
        others = (found[other] if other in found else read(other) for other in before)
        if one is not None and not any(other and one.repeats(other) for other in others):
            settled.append(one)
    return Followed(new, up_to, settled, [name for name, one in found.items() if one is None])


def event(followed: Followed, store: ObjectStore) -> dg.AssetMaterialization:
    """What is told of some settlements."""
    deliveries = sorted(_deliveries(followed), key=lambda one: one.delivery)
    answers = [{"answer": answer, "model": one.model_version} for one in deliveries for answer in one.answers]
    metadata: dict[str, Any] = {
        "requests": len(answers),
        "deliveries": len(deliveries),
        "received_rows": sum(one.received_rows for one in deliveries),
        "predicted_rows": sum(one.predicted_rows for one in deliveries),
        "refused_rows": sum(one.refused_rows for one in deliveries),
        "rejected_requests": sum(one.rejected for one in deliveries),
        "model_versions": ", ".join(sorted({one.model_version for one in deliveries})),
        "answers": records(answers[:MOST_LISTED]),
        "packs": links([pack_key(one.delivery) for one in deliveries], store),
        TOLD: dg.MetadataValue.json(list(followed.names)),
    }
    if deliveries:
        ends = (time_of(deliveries[0].delivery), time_of(deliveries[-1].delivery))
        metadata |= {"first": dg.MetadataValue.timestamp(ends[0]), "last": dg.MetadataValue.timestamp(ends[1])}
    if followed.damaged:
        metadata["damaged"] = dg.MetadataValue.json(list(followed.damaged))
    version = sha256_of(json.dumps([one.delivery for one in deliveries]).encode())
    return dg.AssetMaterialization(
        served_predictions.key,
        description=f"{len(answers):,} requests were answered",
        metadata=metadata,
        tags={"dagster/data_version": version},
    )


def _deliveries(followed: Followed) -> Iterator[SettledDelivery]:
    for one in followed.settlements:
        yield from one.deliveries
