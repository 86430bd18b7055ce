"""Why `dagster_aws.s3.sensor.get_objects` is not what looks for uploads: on the same histories it loses files."""

import random
import uuid
from collections import Counter
from dataclasses import dataclass, field

import pytest
from dagster_aws.s3.sensor import get_objects

from crypto_ml.ledger.deliveries import Identity, Upload
from crypto_ml.ledger.layout import UPLOADS
from crypto_ml.storage.objects import ObjectStore, StoredObject
from crypto_ml_tests.dropbox.histories import KEYS, Box, bodies

HISTORIES, STEPS = 50, 20


@dataclass
class Documented:
    """A sensor as its documentation has it: the cursor is the last key, and a key is asked for once."""

    store: ObjectStore
    cursor: str | None = None
    asked: set[str] = field(default_factory=set)
    found: set[Identity] = field(default_factory=set)
    raised: int = 0

    def tick(self) -> None:
        try:
            new = get_objects(
                self.store.bucket,
                self.store.physical(UPLOADS),
                since_key=self.cursor,
                client=self.store.client,
            )
        except Exception as error:  # noqa: BLE001 - it raises nothing more special
            assert "`since_key` is not present" in str(error)
            self.raised += 1
            return
        for one in new:
            key = one["Key"].removeprefix(self.store.prefix)
            if key not in self.asked:
                self.asked.add(key)
                etag, written = str(one.get("ETag")).strip('"'), one.get("LastModified")
                assert written is not None
                self.found.add(Upload.of(StoredObject(key, int(one.get("Size") or 0), etag, written)).identity)
        if new:
            self.cursor = new[-1]["Key"]


def live(box: Box, documented: Documented, choose: random.Random) -> None:
    """One history, which both look at, at the same moments."""
    for _ in range(STEPS):
        act, key, body = choose.random(), choose.choice(KEYS), choose.choice(bodies())
        if act < 0.45:
            box.put(key, body)
        elif act < 0.55 and key not in box.pending:
            box.begin(key, body)
        elif act < 0.65 and key in box.pending:
            box.complete(key)
        elif act < 0.72 and key in box.current:
            box.delete(key)
        else:
            box.tick()
            documented.tick()
    for key in list(box.pending):
        box.complete(key)
    box.tick()
    documented.tick()


def test_on_the_same_histories_get_objects_loses_files_and_the_plan_none(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counter[str]()
    for seed in range(HISTORIES):
        box = Box(store.below(f"{store.prefix}{uuid.uuid4().hex}"))
        documented = Documented(box.store)
        live(box, documented, random.Random(seed))  # noqa: S311
        assigned = {one.identity for delivery in box.deliveries() for one in delivery.uploads}
        lost, lost_by_us = box.seen - documented.found, box.seen - assigned
        counts += Counter(
            versions=len(box.seen),
            lost=len(lost),
            lost_by_us=len(lost_by_us),
            histories_with_loss=bool(lost),
            raised=documented.raised,
        )
    with capsys.disabled():
        losses = f"loses {counts['lost']} of them (in {counts['histories_with_loss']} histories)"
        print(
            f"\n{HISTORIES} histories, {counts['versions']} object versions: get_objects {losses} and raises "
            f"{counts['raised']} times; the plan loses {counts['lost_by_us']}"
        )
    assert counts["lost_by_us"] == 0
    assert counts["lost"] > 0
