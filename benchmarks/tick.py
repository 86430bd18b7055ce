"""A look of the sensor with 100,000 old objects under uploads/ and none new, against listing them all.

Embedded S3. The objects are a few bytes, named by day and number, and already assigned to deliveries of 1,000. What is
timed is what `Watch.look` and `Watch.review` do, without the pause in which the sensor waits for uploads; what of it is
this process's own is told apart, as the embedded server sorts all its keys for each listing. Of more than 100,000
objects only the first pages are listed, and the rest is reckoned.

Then what a new process takes of our own, without the server, to learn of very many uploads that are known.

    python -m benchmarks.tick [OBJECTS]
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg

from benchmarks.measure import Missed, median_seconds
from crypto_ml.defs.watch import Wanted, Watch
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.layout import KNOWN, answered_key
from crypto_ml.ledger.listing import UploadListing
from crypto_ml.ledger.log import AppendOnlyLog
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect

OBJECTS = 100_000
PER_DAY = 1_000
LOOKS = 40
PER_SEGMENT = 100_000
TARGET_SECONDS = 2.0


def fill(store: ObjectStore, objects: int) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)

    def put(number: int) -> None:
        day = first + timedelta(days=number // PER_DAY)
        store.replace(f"uploads/{day:%Y-%m-%d}/{number:06d}.csv", b"x")

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(put, range(objects)):
            pass
    log = DeliveryLog(store)
    for delivery in log.assign_new(datetime.now(UTC)):
        store.create_json(answered_key(delivery.id), {})


def look(watch: Watch, instance: dg.DagsterInstance) -> list[Wanted]:
    now = datetime.now(UTC)
    return [*watch.look(now), *watch.review(instance, now).wanted]


def seconds_to_notice(watch: Watch, instance: dg.DagsterInstance, store: ObjectStore, key: str) -> tuple[float, int]:
    """Seconds of looking, and looks, until a new upload is assigned."""
    store.replace(key, b"new")
    began, looks = time.perf_counter(), 1
    while not look(watch, instance):
        looks += 1
    return time.perf_counter() - began, looks


def first_look_that_knows(store: ObjectStore, uploads: int) -> str:
    """What it takes of our own to learn of so many known uploads, in segments of 100,000; nothing else is there."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    segments = AppendOnlyLog(store, KNOWN)
    for number in range(uploads // PER_SEGMENT):
        known = [
            (f"uploads/{day:%Y-%m-%d}/{at:07d}.csv", "9dd4e461268c8034f5c8564e155c67a6", 1, day.isoformat())
            for at in range(number * PER_SEGMENT, (number + 1) * PER_SEGMENT)
            if (day := first + timedelta(days=at // PER_DAY, seconds=at % PER_DAY))
        ]
        segments.append({"uploads": known}, after=number)
    began = time.process_time()
    UploadListing(store).learn(DeliveryLog(store).catch_up())
    return f"learning of {uploads:,} known uploads: {time.process_time() - began:.2f} s of processor time"


def main() -> None:
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else OBJECTS
    with TemporaryDirectory() as name, EmbeddedS3(Path(name)) as server, dg.DagsterInstance.ephemeral() as instance:
        os.environ.update(server.environment)
        store = connect("crypto-ml")
        ensure_bucket(store.client, store.bucket)
        fill(store, objects)
        requests: list[str] = []
        store.client.meta.events.register("before-call.s3", lambda **_: requests.append("request"))
        listed = min(objects, OBJECTS)
        whole = median_seconds(lambda: list(islice(store.list("uploads/"), listed)), 3) * objects / listed
        all_requests = len(requests) // 3 * objects // listed
        watch = Watch(store)
        began = time.perf_counter()
        look(watch, instance)
        first = time.perf_counter() - began
        seconds = []
        requests.clear()
        own = time.process_time()
        for _ in range(LOOKS):
            began = time.perf_counter()
            assert look(watch, instance) == []
            seconds.append(time.perf_counter() - began)
        own = (time.process_time() - own) / LOOKS
        a_look = sorted(seconds)[len(seconds) // 2]
        print(f"{objects:,} objects under uploads/, all known")
        print(f"listing them all: {whole:.2f} s, {all_requests} requests (median of 3)")
        print(f"a look: median {a_look:.3f} s, longest {max(seconds):.3f} s, {len(requests) / LOOKS:.1f} requests")
        print(f"    {own * 1e3:.1f} ms of our processor time")
        print(f"whole listing ÷ a look: {whole / a_look:.0f}")
        print(f"the first look of a new process: {first:.2f} s")
        tail = seconds_to_notice(watch, instance, store, "uploads/2099-01-01/000000.csv")
        print(
            f"a new name at the end is noticed after {tail[0]:.2f} s of looking, in {tail[1]} look{'s' * (tail[1] > 1)}"
        )
        middle = seconds_to_notice(watch, instance, store, "uploads/2026-02-01/000000_late.csv")
        print(f"a new name in an old folder is noticed after {middle[0]:.2f} s of looking, in {middle[1]} looks")
        for number, uploads in enumerate((100_000, 1_000_000)):
            print(first_look_that_knows(connect("crypto-ml", f"known-{number}"), uploads))
        if max(seconds) > TARGET_SECONDS or first > TARGET_SECONDS:
            raise Missed(f"a look took {max(*seconds, first):.1f} s; the target is {TARGET_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
