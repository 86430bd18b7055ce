"""A deployment whose evidence was verified, to change it and look again: what tests of verification share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import pandas as pd

from crypto_ml.audit.tolerance import Tolerance
from crypto_ml.audit.verified import Finding, State, Verified
from crypto_ml.audit.verify import verify
from crypto_ml.ledger.chain import EvidenceChain
from crypto_ml.ledger.formats.chain_v1 import Link
from crypto_ml.ledger.receipts import SEAL, sealed
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.storage.objects import ObjectStore, StoredObject, rendered
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.road import Road, upload

AT_ONCE = Tolerance(late=timedelta(0))


def first_answered(store: ObjectStore) -> tuple[Road, pd.DataFrame]:
    """A road with two files answered, and the market of which the first had all days before 2018-01-10."""
    road = Road(store, now=datetime.now(UTC))
    rows = market({"BTC": 12, "NEW": 14})
    road.drop(first=upload(rows[rows["date"] < "2018-01-10"]), bad=b"not,a,market\n")
    road.answer_new()
    return road, rows


def promote_another(road: Road) -> None:
    """Make another model the champion, by the second entry of the pointer."""
    other = model("change", label="other")
    road.registry.add(other)
    road.registry.promote(other.version, by="ann", why="better", at=datetime.now(UTC))


@dataclass
class Site:
    """A deployment with four deliveries, a promotion and five links, what was verified of it, and its objects."""

    road: Road
    before: Verified
    objects: dict[str, tuple[StoredObject, bytes]]

    @classmethod
    def made(cls, store: ObjectStore) -> Self:
        road, rows = first_answered(store)
        extend(store, road.now)
        for day in ("2018-01-10", "2018-01-11"):
            road.drop(second=upload(rows[rows["date"] == day]) + b"BTC,2018-02-01,-1,1,1,1,1\n")
            road.answer_new()
            extend(store, datetime.now(UTC))
        promote_another(road)
        road.drop(third=upload(rows[rows["date"] == "2018-01-12"]))
        road.answer_new()
        extend(store, datetime.now(UTC))
        extend(store, datetime.now(UTC), everything=True)
        objects = {found.key: store.fetch(found.key) for found in store.list()}
        return cls(road, verify(store, tolerance=AT_ONCE), objects)

    @property
    def store(self) -> ObjectStore:
        return self.road.store

    @property
    def state(self) -> State:
        assert self.before.state is not None
        return self.before.state

    def extend(self) -> None:
        extend(self.store, datetime.now(UTC))

    def look(self, *, anew: bool = True) -> list[Finding]:
        """What is wrong: read anew, or with what was verified before."""
        return list(verify(self.store, state=None if anew else self.state, tolerance=AT_ONCE).findings)

    def kinds(self, *, anew: bool = True) -> dict[str, str]:
        return {found.key: found.kind for found in self.look(anew=anew)}

    def edit(self, key: str, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
        """Change a record, and seal it again where it has a seal."""
        document = self.store.read_json(key)
        change(document)
        self.store.replace(key, rendered(sealed(document) if SEAL in document else document))

    def receipt(self, name: str) -> str:
        """The key of the receipt of an answer that stands."""
        return str(self.road.report(name)["receipt"])

    def links(self) -> list[Link]:
        chain = EvidenceChain(self.store)
        return [chain.parsed(found, content).link for found, content in chain.contents(chain.listed())]

    def forge(self, links: list[Link]) -> None:
        """Put links in the place of those there are, each naming the one before it."""
        chain, previous = EvidenceChain(self.store), None
        for found in chain.listed():
            self.delete(found.key)
        for number, link in enumerate(links, 1):
            forged = replace(link, number=number, previous=previous)
            chain.append(forged)
            previous = chain.sha256_of(forged)

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.store.client.delete_object(Bucket=self.store.bucket, Key=self.store.physical(key))

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Whatever is done within is undone: the bytes and the metadata of every object, not when it was written."""
        before = {found.key: found for found in self.store.list()}
        try:
            yield
        finally:
            after = {found.key: found for found in self.store.list()}
            self.delete(*(after.keys() - before.keys()))
            for key in [key for key, found in before.items() if after.get(key) != found]:
                stored, content = self.objects[key]
                self.store.replace(key, content, metadata=stored.metadata)
