"""Random lives of a drop box over real HTTP, and the truth about them, kept by whoever drops the files."""

import csv
import io
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from threading import Barrier, Lock
from typing import Any
from unittest.mock import patch

import pandas as pd

from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, Identity, Upload
from crypto_ml.ledger.giving_up import give_up
from crypto_ml.ledger.layout import UPLOADS, answer_keys, answered_key, received_key
from crypto_ml.ledger.listing import UploadListing
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.reports import read_report
from crypto_ml.stages.retraction import Decision, NotAnsweredYet, NothingToRetract, retract
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import NOW, Road, upload

MARKETS, BURST = 6, 12
KEYS = ("a.csv", "b.csv", "in/c.csv", "in/d.csv")


class Crash(BaseException):
    """The process is gone, in the middle of what it was doing."""


@dataclass(frozen=True)
class Body:
    """A file's bytes and what its answer must hold, in order; no rows where it must be refused."""

    content: bytes
    val_open: tuple[float, ...] = ()


@cache
def bodies() -> list[Body]:
    """What is dropped: a few small markets, whose days overlap, and files that cannot be read."""
    made = []
    for seed in range(MARKETS):
        rows = market({"BTC": 3 + seed, "NEW": seed}, seed=seed)
        made.append(Body(upload(rows), tuple(rows["open"])))
    return [*made, Body(b"symbol,date\nBTC,2018-01-01\n"), Body(b"\x00")]


def opens(content: bytes) -> dict[tuple[str, str], float]:
    """(symbol, day) → open of each row of a file."""
    return {(row["symbol"], row["date"]): float(row["open"]) for row in csv.DictReader(io.StringIO(content.decode()))}


@contextmanager
def crashing(store: ObjectStore, after: int) -> Iterator[None]:
    """The process dies at its write number `after` (from 0), before or after the store has done it."""
    lock, seen = Lock(), Counter[str]()
    moment = "before-call" if after % 2 else "after-call"

    def die(**_: Any) -> None:
        with lock:
            seen["writes"] += 1
            if seen["writes"] > after // 2:
                raise Crash

    def put(*asked: Any) -> Any:
        if moment == "before-call":
            die()
        etag = quick(*asked)
        if moment == "after-call" and etag is not None:  # else the SDK is asked, and dies behind its call
            die()
        return etag

    assert store.quick
    quick = store.quick.put
    names = [f"{moment}.s3.{operation}" for operation in ("PutObject", "CompleteMultipartUpload")]
    for name in names:
        store.client.meta.events.register(name, die)
    try:
        with patch.object(store.quick, "put", put):
            yield
    finally:
        for name in names:
            store.client.meta.events.unregister(name, die)


@dataclass(frozen=True)
class Version:
    """One version of an upload: what became of it, and what its bytes were. read: whether they could still be had.
    given_up: no run came to an outcome. retracted: the last delivery that there was when it was taken back."""

    upload: Upload
    delivery: str
    outcome: str
    body: Body
    read: bool
    given_up: bool
    retracted: int | None

    @property
    def answerable(self) -> bool:
        """Whether its predictions must stand, where no newer version's do."""
        return self.read and not self.given_up and bool(self.body.val_open)

    def repeated_by(self, later: "Version") -> bool:
        """Whether a later version may have been skipped because this one had the same bytes."""
        taken_back = self.retracted is not None and self.retracted < int(later.delivery)
        return self.body == later.body and self.read and not taken_back


@dataclass
class Box:
    """A drop box, the processes that look at it, and everything that was ever to be seen in it."""

    store: ObjectStore
    current: dict[str, Body] = field(default_factory=dict)
    """What stands under uploads/ now, by key."""
    by_etag: dict[tuple[str, str], Body] = field(default_factory=dict)
    """The bytes of each version, by key and ETag."""
    seen: set[Identity] = field(default_factory=set)
    """The versions that were there when somebody looked."""
    pending: dict[str, tuple[str, str, Body]] = field(default_factory=dict)
    """Multipart uploads that are begun: key → upload id, ETag of its part, body."""
    given_up: set[int] = field(default_factory=set)
    retracted: dict[str, int] = field(default_factory=dict)
    """The last delivery that there was when an upload, by its id, was taken back."""
    retracting: set[str] = field(default_factory=set)
    """The uploads whose retraction broke off."""

    def __post_init__(self) -> None:
        self.road = Road(self.store)
        self.looked_at_the_clock = 0
        self.restart()

    def restart(self) -> None:
        """Another process: nothing is remembered."""
        self.log, self.listing = DeliveryLog(self.store), UploadListing(self.store)

    def put(self, key: str, body: Body) -> None:
        self.store.replace(UPLOADS + key, body.content)
        self._stands(key, body)

    def delete(self, key: str) -> None:
        self._delete(UPLOADS + key)
        self.current.pop(key, None)

    def begin(self, key: str, body: Body) -> None:
        """Begin a multipart upload, which shows only once it is completed, with the time at which it began."""
        where: Any = {"Bucket": self.store.bucket, "Key": self.store.physical(UPLOADS + key)}
        begun = self.store.client.create_multipart_upload(**where)["UploadId"]
        part = self.store.client.upload_part(**where, UploadId=begun, PartNumber=1, Body=body.content)
        self.pending[key] = begun, part["ETag"], body

    def complete(self, key: str) -> None:
        begun, etag, body = self.pending.pop(key)
        where: Any = {"Bucket": self.store.bucket, "Key": self.store.physical(UPLOADS + key)}
        parts: Any = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        self.store.client.complete_multipart_upload(**where, UploadId=begun, MultipartUpload=parts)
        self._stands(key, body)

    def tick(self) -> list[Delivery]:
        self._look()
        return self.log.assign_new(NOW, self.listing.look())

    def ticks_at_once(self) -> None:
        """Two daemons look at the same moment, one of them new."""
        self._look()
        start = Barrier(2)

        def look(log: DeliveryLog) -> None:
            start.wait()
            log.assign_new(NOW)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(look, [self.log, DeliveryLog(self.store)]))

    def answer(self, number: int) -> None:
        self.road.now = self._some_time()
        self.road.answer(number)

    def _some_time(self) -> datetime:
        """Clocks agree about nothing: no order of ours may rest on one."""
        self.looked_at_the_clock += 1
        return NOW + timedelta(minutes=self.looked_at_the_clock * 7_919 % 1_440)

    def put_burst(self, seed: int) -> None:
        """More files than one digit counts, for the same days."""
        for number in range(BURST):
            self.put(f"burst/{number:02d}.csv", bodies()[(seed + number) % MARKETS])

    def answer_and_crash(self, number: int, after: int) -> None:
        try:
            with crashing(self.store, after):
                self.road.answer(number)
        except Crash:
            pass

    def answer_two_at_once(self, one: int, other: int) -> None:
        """Two runs at the same time, of one delivery or of two."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.road.answer, [one, other]))

    def give_up(self, number: int) -> None:
        """Close a delivery whose runs are all dead, as the sensor does."""
        if number in self.log.unanswered():
            give_up(self.log.get(number), "gave up: its process died", "run", self.store)
            self.given_up.add(number)

    def retract(self, number: int, file: int, after: int | None) -> None:
        """Take an upload of a delivery back; the process may die while it does."""
        delivery = self.log.get(number)
        upload = f"{delivery.id}.{file % len(delivery.uploads)}"
        self.log.catch_up()
        try:
            with crashing(self.store, after) if after is not None else nullcontext():
                self._retract(upload)
        except Crash:
            self.retracting.add(upload)
        except (NotAnsweredYet, NothingToRetract):
            pass

    def _retract(self, upload: str) -> None:
        retract(Decision(upload, "ann", "wrong"), self.store, self.road.history, self._some_time())
        self.retracted.setdefault(upload, self.log.last_number)
        self.retracting.discard(upload)

    def deliveries(self) -> list[Delivery]:
        log = DeliveryLog(self.store)
        log.catch_up()
        return [log.get(number) for number in range(1, log.last_number + 1)]

    def settle(self, shuffle: random.Random) -> None:
        """Whatever was begun comes to its end; what is unanswered is run, in any order, until nothing is."""
        for key in list(self.pending):
            self.complete(key)
        self.restart()
        while self.tick() or self.log.unanswered():
            waiting = self.log.unanswered()
            shuffle.shuffle(waiting)
            for number in waiting:
                self.answer(number)
        for unfinished in sorted(self.retracting):
            self._retract(unfinished)

    def check(self) -> None:
        """Every version that somebody could see has one delivery and one outcome, and the newest answer stands."""
        deliveries = self.deliveries()
        assigned = Counter(one.identity for delivery in deliveries for one in delivery.uploads)
        assert self.seen <= set(assigned), "lost"
        assert set(assigned.values()) <= {1}, "assigned twice"
        versions: dict[str, list[Version]] = {}
        for delivery in deliveries:
            marker = self.store.read_json(answered_key(delivery.id))
            assert set(marker) == {one.key for one in delivery.uploads}
            for number, one in enumerate(delivery.uploads):
                versions.setdefault(one.key, []).append(self._version(delivery, number, marker[one.key]))
        for key, told in versions.items():
            self._check_key(key, told)
        self._check_current(versions)
        assert {found.key for found in self.store.list(UPLOADS)} == {UPLOADS + key for key in self.current}
        for key, body in self.current.items():
            assert self.store.read(UPLOADS + key) == body.content

    def _check_current(self, versions: "dict[str, list[Version]]") -> None:
        """What history says of a day is what the last file taken in said that was not retracted, in the order of
        deliveries and files."""
        history = self.road.history
        taken_in = set(history.scan(["upload_id"]).read_all()["upload_id"].to_pylist())
        expected: dict[tuple[str, str], float] = {}
        answerable = {one.upload.identity for of_key in versions.values() for one in of_key if one.answerable}
        for delivery in self.deliveries():
            for number, one in enumerate(delivery.uploads):
                upload = f"{delivery.id}.{number}"
                if upload in self.retracted:
                    assert upload in taken_in
                elif upload in taken_in:
                    expected |= opens(self.by_etag[one.key, one.etag].content)
                else:
                    assert one.identity not in answerable
        current = history.current_rows(["symbol", "date", "open"]).to_pylist()
        assert {(row["symbol"], row["date"].isoformat()): row["open"] for row in current} == expected

    def _version(self, delivery: Delivery, number: int, outcome: dict[str, Any]) -> "Version":
        one = delivery.uploads[number]
        if outcome["answer_id"] is not None:
            receipt = read_receipt(outcome["answer_id"], self.store)
            assert receipt.upload == one
            assert outcome["outcome"] in (receipt.outcome, "SKIPPED")
        given_up = outcome["answer_id"] is None
        assert not given_up or delivery.number in self.given_up
        try:
            files = self.store.read_json(received_key(delivery.id))["files"]
            read = next(file["sha256"] for file in files if file["upload"]["key"] == one.key) is not None
        except ObjectMissing:
            read = False
        body, retracted = self.by_etag[one.key, one.etag], self.retracted.get(f"{delivery.id}.{number}")
        return Version(one, delivery.id, str(outcome["outcome"]), body, read, given_up, retracted)

    def _check_key(self, key: str, told: "list[Version]") -> None:
        newest, report = told[-1], read_report(key, self.store)
        assert report is not None
        assert report.document["upload"]["etag"] == newest.upload.etag
        assert (report.delivery, report.outcome) == (newest.delivery, newest.outcome)
        for at, one in enumerate(told):
            if one.given_up:
                newer = any(other.answerable for other in told[at + 1 :])
                assert one.outcome == "REJECTED" or (one.outcome == "SKIPPED" and newer)
            elif not one.read:
                assert one.outcome in {"REJECTED", "SKIPPED"}
            elif not one.body.val_open:
                assert one.outcome == "REJECTED"
            elif one.outcome != "PREDICTED":
                assert one.outcome == "SKIPPED"
                newer = any(other.answerable for other in told[at + 1 :])
                assert newer or any(other.repeated_by(one) for other in told[:at])
        expected = [one for one in told if one.answerable]
        if expected:
            answer = pd.read_csv(io.BytesIO(self.store.read(answer_keys(key).predictions)))
            assert tuple(answer["val_open"]) == expected[-1].body.val_open
        else:
            assert self.store.head(answer_keys(key).predictions) is None

    def _stands(self, key: str, body: Body) -> None:
        self.current[key] = body
        found = self.store.head(UPLOADS + key)
        assert found is not None
        self.by_etag[UPLOADS + key, found.etag] = body

    def _look(self) -> None:
        self.seen |= {Upload.of(found).identity for found in self.store.list(UPLOADS)}

    def _delete(self, key: str) -> None:
        self.store.client.delete_object(Bucket=self.store.bucket, Key=self.store.physical(key))
