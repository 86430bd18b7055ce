"""Random lives of a drop box over real HTTP, and the truth about them, kept by whoever drops the files."""

import io
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import Barrier, Lock
from typing import Any

import pandas as pd

from crypto_ml.ledger.deliveries import Delivery, DeliveryLog, Identity, Upload
from crypto_ml.ledger.layout import UPLOADS, answer_keys, answered_key
from crypto_ml.ledger.listing import UploadListing
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import NOW, Road, upload

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
    for seed in range(6):
        rows = market({"BTC": 3 + seed, "NEW": seed}, seed=seed)
        made.append(Body(upload(rows), tuple(rows["open"])))
    return [*made, Body(b"symbol,date\nBTC,2018-01-01\n"), Body(b"\x00")]


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

    names = [f"{moment}.s3.{operation}" for operation in ("PutObject", "CompleteMultipartUpload")]
    for name in names:
        store.client.meta.events.register(name, die)
    try:
        yield
    finally:
        for name in names:
            store.client.meta.events.unregister(name, die)


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

    def __post_init__(self) -> None:
        self.road = Road(self.store)
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
        self.road.answer(number)

    def answer_and_crash(self, number: int, after: int) -> None:
        try:
            with crashing(self.store, after):
                self.road.answer(number)
        except Crash:
            pass

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

    def check(self) -> None:
        """Every version that somebody could see has one delivery and one outcome, and the newest answer stands."""
        deliveries = self.deliveries()
        assigned = Counter(one.identity for delivery in deliveries for one in delivery.uploads)
        assert self.seen <= set(assigned), "lost"
        assert set(assigned.values()) <= {1}, "assigned twice"
        outcomes: dict[str, list[tuple[Upload, str]]] = {}
        for delivery in deliveries:
            marker = self.store.read_json(answered_key(delivery.id))
            assert set(marker) == {one.key for one in delivery.uploads}
            for one in delivery.uploads:
                outcomes.setdefault(one.key, []).append((one, str(marker[one.key]["outcome"])))
                read_receipt(marker[one.key]["answer_id"], self.store)
        for key, ends in outcomes.items():
            self._check_key(key, ends, deliveries)
        assert {found.key for found in self.store.list(UPLOADS)} == {UPLOADS + key for key in self.current}
        for key, body in self.current.items():
            assert self.store.read(UPLOADS + key) == body.content

    def _check_key(self, key: str, ends: list[tuple[Upload, str]], deliveries: list[Delivery]) -> None:
        newest, outcome = ends[-1]
        report = read_report(key, self.store)
        assert report is not None
        assert report.document["upload"]["etag"] == newest.etag
        assert report.delivery == next(one.id for one in deliveries if newest in one.uploads)
        assert report.outcome == outcome
        body = self.by_etag[key, newest.etag]
        gone = "replaced or deleted before it could be read" in str(report.document["reason"])
        assert gone or outcome in ({"PREDICTED", "SKIPPED"} if body.val_open else {"REJECTED"})
        predicted = [one for one, end in ends if end == "PREDICTED"]
        if predicted:
            answer = pd.read_csv(io.BytesIO(self.store.read(answer_keys(key).predictions)))
            assert tuple(answer["val_open"]) == self.by_etag[key, predicted[-1].etag].val_open
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
