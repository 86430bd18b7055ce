"""In a bucket that keeps versions, what was replaced and put back, or deleted and written again, is noticed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from crypto_ml.audit.held import Links
from crypto_ml.audit.verified import Finding, Verified
from crypto_ml.audit.verify import verify
from crypto_ml.ledger.chain import EvidenceChain
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.storage.embedded import ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect, rendered
from crypto_ml.storage.probe import probe_conditional_writes
from crypto_ml_tests.audit.verified_site import AT_ONCE, first_answered, promote_another
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import Road, upload

POINTER = "models/champion/dev/00000002.json"
GAVE_WAY = "receipts/answered/00000003.json"


@dataclass
class Kept:
    """A deployment with all kinds of records in a bucket with versions, and what was verified of it."""

    road: Road
    before: Verified

    @property
    def store(self) -> ObjectStore:
        return self.road.store

    def look(self, *, anew: bool = True) -> Verified:
        return verify(self.store, state=None if anew else self.before.state, tolerance=AT_ONCE)

    def wrong(self, key: str) -> list[Finding]:
        return [one for one in self.look().findings if one.key == key]

    def versions(self, prefix: str) -> list[str]:
        return [str(one.version_id) for one in self.store.versions(prefix)]

    def delete(self, key: str, version: str | None = None) -> None:
        asked = {"VersionId": version} if version else {}
        self.store.client.delete_object(Bucket=self.store.bucket, Key=self.store.physical(key), **asked)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(bucket: str) -> Kept:
    name = f"{bucket}-versions"
    store = connect(name, f"tests/{uuid4().hex}")
    ensure_bucket(store.client, name)
    store.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    probe_conditional_writes(store)
    road, rows = first_answered(store)
    road.drop(first=upload(rows[rows["date"] == "2018-01-10"]))
    road.answer_new()
    extend(store, datetime.now(UTC))
    promote_another(road)
    road.drop(second=upload(rows[rows["date"] == "2018-01-11"]))
    (delivery,) = road.assign()
    given_up = {"uploads/second.csv": {"outcome": "REJECTED", "answer_id": None, "reason": "", "retry": 0}}
    store.create_json(GAVE_WAY, given_up)
    road.answer(delivery.number)
    forecast_now(road)
    forecast_now(road)
    extend(store, datetime.now(UTC), everything=True)
    return Kept(road, verify(store, tolerance=AT_ONCE))


@pytest.fixture
def kept(whole: Kept) -> Iterator[Kept]:
    """The deployment, of which no version stays that a test has made."""
    before = {(one.key, one.version_id) for one in whole.store.versions()}
    yield whole
    for one in list(whole.store.versions()):
        if (one.key, one.version_id) not in before:
            whole.delete(one.key, one.version_id)


def test_a_whole_road_writes_one_version_of_all_that_is_written_once(kept: Kept) -> None:
    assert kept.before.findings == ()
    assert (kept.before.versions_compared, kept.before.notes) == (True, ())
    assert len(kept.versions(GAVE_WAY)) == 2
    assert len(kept.versions("predictions/first_preds.csv")) > 1
    again = kept.look(anew=False)
    assert (again.findings, again.records, again.objects) == ((), 0, 0)


def put_back(kept: Kept, key: str) -> None:
    content = kept.store.read(key)
    kept.store.replace(key, b"something else")
    kept.store.replace(key, content)


def deleted_and_put_again(kept: Kept, key: str) -> None:
    content = kept.store.read(key)
    kept.delete(key)
    kept.store.create(key, content)


@pytest.mark.parametrize("attack", [put_back, deleted_and_put_again])
def test_what_was_replaced_and_put_back_is_noticed_by_its_versions(
    kept: Kept, attack: Callable[[Kept, str], None]
) -> None:
    prefixes = (
        POINTER,
        "receipts/answers/",
        GAVE_WAY,
        "raw/uploads/",
        "market_history/_delta_log/0",
        "receipts/chain/",
    )
    keys = {next(one.key for one in kept.store.list(prefix)) for prefix in prefixes}
    for key in keys:
        attack(kept, key)
    look = kept.look(anew=False)
    assert {(one.key, one.kind) for one in look.findings} == {(key, "versions") for key in keys}
    for one in look.findings:
        assert all(f"(version {version})" in one.what for version in kept.versions(one.key))
    assert Links(kept.store).hold(POINTER).by == "ALTERED"
    assert look.state is not None, "what was read is right, and need not be read again"


def test_the_end_of_the_chain_that_was_deleted_and_a_record_that_no_link_named_are_noticed(kept: Kept) -> None:
    last, unchained = EvidenceChain(kept.store).listed()[-1].key, "receipts/answers/unchained.json"
    kept.store.create(unchained, b"{}")
    kept.delete(unchained)
    kept.delete(last)
    found = {one.key: one for one in kept.look().findings}
    assert found[unchained].kind == found[last].kind == "versions"
    assert (", deleted " in found[last].what, found[last].link) == (True, 2)


def test_a_chain_made_anew_as_a_whole_is_noticed_by_its_versions(kept: Kept) -> None:
    chain = EvidenceChain(kept.store)
    links = [chain.parsed(found, content).link for found, content in chain.contents(chain.listed())]
    previous, keys = None, [found.key for found in chain.listed()]
    for key in keys:
        kept.delete(key)
    assert {one.key for one in kept.look().findings} == set(keys), "gone is another thing than never made"
    for link in links:
        forged = replace(link, previous=previous, complete=False, seen_until=None)
        chain.append(forged)
        previous = chain.sha256_of(forged)
    assert [(one.key, one.kind) for one in kept.look().findings] == [(key, "versions") for key in keys]


def test_of_an_outcome_only_what_was_given_up_gives_way(kept: Kept) -> None:
    key = "receipts/answered/00000001.json"
    kept.store.replace(key, rendered(kept.store.read_json(key)) + b" ")
    assert {one.kind for one in kept.wrong(key)} == {"changed", "versions"}


def test_since_tells_what_came_since(kept: Kept) -> None:
    put_back(kept, POINTER)
    for since, expected in ((1, {POINTER}), (datetime.now(UTC) + timedelta(hours=1), set())):
        look = verify(kept.store, since=since, tolerance=AT_ONCE)
        assert {one.key for one in look.findings} == expected


def test_that_versions_were_not_kept_for_a_while_is_told(kept: Kept) -> None:
    store = kept.store
    try:
        store.client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Suspended"})
        store.create("receipts/claims/meanwhile.json", b"{}")
        kept.road.now = datetime.now(UTC) + timedelta(seconds=1)
        (note,) = kept.look().notes
    finally:
        store.client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})
        kept.delete("receipts/claims/meanwhile.json", "null")
    assert "none of receipts/claims/meanwhile.json" in note


def test_credentials_that_may_not_list_versions_verify_all_else_and_are_told_what_is_missing(kept: Kept) -> None:
    refusal = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": {}}}

    def refuse(**_: Any) -> tuple[Any, Any]:
        return SimpleNamespace(status_code=403), refusal

    store = connect(kept.store.bucket, kept.store.prefix)
    store.client.meta.events.register("before-call.s3.ListObjectVersions", refuse)  # type: ignore[arg-type]
    put_back(kept, POINTER)
    found = verify(store, tolerance=AT_ONCE)
    assert (found.findings, found.versions_compared) == ((), False)
    assert found.document()["versions_compared"] is False
    assert any("not compared" in note and "s3:ListBucketVersions" in note for note in found.notes)
