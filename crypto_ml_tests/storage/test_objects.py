"""Objects: what comes back, who wins, and what a failure is called."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.storage import multipart
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.failures import (
    AlreadyExists,
    Conflict,
    ObjectChanged,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)
from crypto_ml.storage.objects import ORDER, QUICK_BYTES, ObjectStore, connect, time_of

ODD_KEYS = [
    "a b",
    "a+b",
    "a%20b",
    "a%2Fb",
    "ünï/çödé",
    "日本/😀.csv",
    "../outside.csv",
    "in/../side.csv",
    "./here",
    "double//slash",
    "question?x=1#y",
    "a&b=c;d",
    "line\nfeed",
    "quote\"'<>",
    "~tilde/back\\slash",
]
WORD = st.text("abcXYZ019 ._-/=", min_size=1, max_size=12).map(str.strip).filter(bool)


def outcomes(writers: int, write: Callable[[int], object]) -> list[object]:
    """What `write(i)` of writers that start together returned or raised."""
    start = Barrier(writers)

    def attempt(number: int) -> object:
        start.wait()
        try:
            return write(number)
        except AlreadyExists as e:
            return e

    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(attempt, range(writers)))


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_key_comes_back_from_put_list_head_and_get(store: ObjectStore, key: str) -> None:
    store.create(f"uploads/{key}", key.encode())
    (listed,) = store.list("uploads/")
    assert listed.key == f"uploads/{key}"
    assert store.read_pinned(listed) == store.read(f"uploads/{key}") == key.encode()
    headed = store.head(listed.key)
    assert headed is not None
    assert (headed.etag, headed.size) == (listed.etag, len(key.encode()))


@given(key=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60))
def test_any_printable_key_is_listed_as_it_was_written(store: ObjectStore, key: str) -> None:
    store.replace(f"uploads/{key}", b"x")
    assert f"uploads/{key}" in {o.key for o in store.list("uploads/")}


def test_an_object_is_described_by_its_size_etag_and_aware_time(store: ObjectStore) -> None:
    etag = store.create("a", b"bytes", content_type="text/csv", metadata={"run": "7"})
    assert [(o.key, o.size, o.etag, o.last_modified.tzinfo) for o in store.list()] == [("a", 5, etag, UTC)]


def test_a_listing_of_more_than_a_thousand_keys_is_whole_and_in_order(store: ObjectStore) -> None:
    keys = [f"many/{number:04d} +%" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.replace(key, b"x"), keys))
    assert [o.key for o in store.list("many/")] == keys
    assert [o.key for o in store.list("many/", start_after=keys[1001])] == keys[1002:]


def test_a_store_sees_its_own_prefix_only(store: ObjectStore) -> None:
    inner = ObjectStore(store.client, store.bucket, f"{store.prefix}inner/")
    inner.create("a", b"x")
    store.create("inner2/b", b"x")
    assert [o.key for o in inner.list()] == ["a"]
    assert inner.uri("a") == f"s3://{store.bucket}/{store.prefix}inner/a"


def test_of_twenty_racing_creators_exactly_one_wins_and_its_bytes_stay(store: ObjectStore) -> None:
    found = outcomes(20, lambda number: (number, store.create("claim", str(number).encode())))
    winners = [outcome for outcome in found if isinstance(outcome, tuple)]
    assert len(winners) == 1
    assert store.read("claim") == str(winners[0][0]).encode()


def test_creating_the_same_bytes_again_is_told_from_creating_others(store: ObjectStore) -> None:
    assert store.create_or_same("raw/1", b"same")
    assert not store.create_or_same("raw/1", b"same")
    with pytest.raises(AlreadyExists):
        store.create_or_same("raw/1", b"other")
    assert store.read("raw/1") == b"same"


def test_equal_documents_are_equal_bytes_and_come_back(store: ObjectStore) -> None:
    store.create_json("one", {"b": [1, "ü"], "a": None})
    store.create_json("two", {"a": None, "b": [1, "ü"]})
    assert store.read("one") == store.read("two")
    assert store.read_json("one") == {"a": None, "b": [1, "ü"]}


def test_a_document_that_is_not_json_is_refused_by_name(store: ObjectStore) -> None:
    store.create("broken.json", b"{")
    with pytest.raises(StoreRefused, match=r"broken\.json is not the JSON"):
        store.read_json("broken.json")


def test_a_replacement_meant_for_an_older_object_is_a_conflict(store: ObjectStore) -> None:
    first = store.replace("pointer", b"1")
    second = store.replace("pointer", b"2", if_match=first)
    with pytest.raises(Conflict):
        store.replace("pointer", b"3", if_match=first)
    with pytest.raises(Conflict):
        store.replace("nowhere", b"3", if_match=first)
    found, body = store.fetch("pointer")
    assert (found.etag, body) == (second, b"2")


def test_what_is_not_there_is_missing_and_not_empty(store: ObjectStore) -> None:
    assert store.head("nothing") is None
    with pytest.raises(ObjectMissing):
        store.read("nothing")


def test_a_pinned_read_of_a_replaced_object_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.replace("upload", b"first")
    (listed,) = store.list("upload")
    store.replace("upload", b"second")
    with pytest.raises(ObjectChanged):
        store.download(listed, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_pinned_read_of_a_deleted_object_is_refused(store: ObjectStore) -> None:
    store.replace("upload", b"first")
    (listed,) = store.list("upload")
    store.client.delete_object(Bucket=store.bucket, Key=store.physical("upload"))
    with pytest.raises(ObjectChanged):
        store.read_pinned(listed)


def test_a_version_id_pins_the_bytes_that_a_replacement_hides(s3_environment: dict[str, str], bucket: str) -> None:
    versioned = ObjectStore(connect(bucket).client, f"{bucket}-versioned")
    ensure_bucket(versioned.client, versioned.bucket)
    versioned.client.put_bucket_versioning(Bucket=versioned.bucket, VersioningConfiguration={"Status": "Enabled"})
    versioned.replace("upload", b"first")
    headed = versioned.head("upload")
    assert headed is not None
    assert headed.version_id
    versioned.replace("upload", b"second")
    assert versioned.read_pinned(headed) == b"first"
    found = connect(versioned.bucket).fetch("upload")
    assert found == versioned.fetch("upload")
    assert found[0] == versioned.head("upload")


def test_a_download_is_the_bytes_and_says_their_hash(store: ObjectStore, tmp_path: Path) -> None:
    body = os.urandom(3_000_001)
    store.create("big", body)
    (listed,) = store.list("big")
    assert store.download(listed, tmp_path / "file") == hashlib.sha256(body).hexdigest()
    assert (tmp_path / "file").read_bytes() == body


def unfinished_uploads(store: ObjectStore) -> int:
    return len(store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix).get("Uploads", []))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of two parts and a bit."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1024) * (2 * multipart.PART_BYTES // 1024) + b"tail")
    return path


def test_a_large_file_arrives_whole_in_parts(store: ObjectStore, large: Path) -> None:
    store.upload_file(large, "raw/large", create_only=True)
    assert store.read("raw/large") == large.read_bytes()
    assert unfinished_uploads(store) == 0


def test_a_large_file_does_not_overwrite_what_is_there(store: ObjectStore, large: Path) -> None:
    store.create("raw/large", b"first")
    with pytest.raises(AlreadyExists):
        store.upload_file(large, "raw/large", create_only=True)
    assert store.read("raw/large") == b"first"


def test_of_racing_large_files_exactly_one_wins_and_nothing_unfinished_stays(store: ObjectStore, large: Path) -> None:
    found = outcomes(3, lambda _: store.upload_file(large, "raw/large", create_only=True))
    assert sum(isinstance(outcome, str) for outcome in found) == 1
    assert unfinished_uploads(store) == 0


def test_a_large_file_replaces_what_is_there_when_told_to(store: ObjectStore, large: Path) -> None:
    store.create("answer", b"old")
    store.upload_file(large, "answer", create_only=False)
    headed = store.head("answer")
    assert headed is not None
    assert headed.size == large.stat().st_size


def test_a_missing_bucket_is_refused_by_every_operation(s3_environment: dict[str, str]) -> None:
    nowhere = connect("crypto-ml-no-such-bucket")
    operations: list[Callable[[], object]] = [
        lambda: list(nowhere.list()),
        lambda: nowhere.head("a"),
        lambda: nowhere.read("a"),
        lambda: nowhere.create("a", b""),
        lambda: nowhere.replace("a", b"", if_match="0"),
    ]
    for operation in operations:
        with pytest.raises(StoreRefused, match="no bucket crypto-ml-no-such-bucket"):
            operation()


def test_a_killed_server_is_unavailable_and_never_an_empty_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedS3(tmp_path) as server:
        for name, value in (server.environment | {"AWS_MAX_ATTEMPTS": "2"}).items():
            monkeypatch.setenv(name, value)
        lost = connect("crypto-ml")
        ensure_bucket(lost.client, lost.bucket)
        lost.create("a", b"x")
        (listed,) = lost.list()
        server.kill()
        operations: list[Callable[[], object]] = [
            lambda: list(lost.list()),
            lambda: lost.head("a"),
            lambda: lost.read_pinned(listed),
            lambda: lost.create("b", b""),
        ]
        for operation in operations:
            with pytest.raises(StoreUnavailable, match="did not answer"):
                operation()


def test_no_region_is_refused_with_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreRefused, match="set AWS_DEFAULT_REGION"):
        connect("crypto-ml")


def test_no_credentials_are_refused_with_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    bare = connect("crypto-ml")
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        list(bare.list())
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        bare.delta_options()


def test_delta_lake_is_given_the_client_s_own_endpoint_region_and_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    given_store = connect("crypto-ml", "team/a")
    assert given_store.delta_uri("market_history") == "s3://crypto-ml/team/a/market_history"
    options = given_store.delta_options()
    assert options["aws_endpoint"] == "http://127.0.0.1:9"
    assert options["aws_allow_http"] == "true"
    assert (options["aws_region"], options["aws_access_key_id"], options["aws_session_token"]) == (
        "eu-west-1",
        "key",
        "token",
    )


@pytest.mark.parametrize("size", [1, multipart.PART_BYTES + 1])
def test_of_writers_in_any_order_the_one_with_the_greatest_order_is_there_in_the_end(
    store: ObjectStore, size: int, tmp_path: Path
) -> None:
    orders = [f"{number:08d}" for number in (3, 1, 5, 2, 4)]
    for order in orders:
        (tmp_path / order).write_bytes(order[-1].encode() * size)
    start = Barrier(len(orders))

    def put(order: str) -> bool:
        start.wait()
        return store.put_newest("answer", tmp_path / order, order)

    with ThreadPoolExecutor(len(orders)) as pool:
        won = dict(zip(orders, pool.map(put, orders), strict=True))
    assert won["00000005"]
    assert store.read("answer") == b"5" * size
    assert not store.put_newest("answer", b"older", "00000004")
    assert store.put_newest("answer", b"again", "00000005")
    assert store.put_newest("answer", b"newer", "00000006")
    assert store.read("answer") == b"newer"


@pytest.mark.parametrize("size", [1, multipart.PART_BYTES + 1])
@pytest.mark.parametrize("ours", [b"a", b"b"], ids=["the same bytes", "other bytes"])
def test_an_older_writer_never_replaces_the_same_bytes_that_a_newer_one_put_meanwhile(
    store: ObjectStore, size: int, ours: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store tells objects apart by their ETags, which are the same for the same bytes sent the same way."""
    standing, older = tmp_path / "standing", tmp_path / "older"
    standing.write_bytes(b"a" * size)
    older.write_bytes(ours * size)
    assert store.put_newest("answer", standing, "3")
    head, looks = ObjectStore.head, iter([True])

    def overtaken(asked: ObjectStore, key: str) -> Any:
        seen = head(asked, key)
        if next(looks, False):
            assert store.put_newest(key, standing, "9")
        return seen

    monkeypatch.setattr(ObjectStore, "head", overtaken)
    assert not store.put_newest("answer", older, "5")
    stored, content = store.fetch("answer")
    assert (stored.metadata[ORDER], content) == ("9", b"a" * size)
    assert store.put_newest("answer", standing, "9")
    assert store.fetch("answer")[0].etag == stored.etag, "put again, although it was there"


def test_an_object_without_an_order_counts_as_older(store: ObjectStore) -> None:
    store.replace("answer", b"from outside")
    assert store.put_newest("answer", b"ours", "00000001")
    assert store.read("answer") == b"ours"


def test_a_first_try_whose_answer_was_lost_is_told_from_another_writer_s(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.quick
    quick, asked = store.quick.put, list[str]()

    def unanswered(key: str, *about: Any) -> None:
        asked.append(key)
        quick(key, *about)

    monkeypatch.setattr(store.quick, "put", unanswered)
    etag = store.create("claim", b"ours")
    assert store.replace("claim", b"ours too", if_match=etag)
    with pytest.raises(AlreadyExists):
        store.create("claim", b"another's")
    with pytest.raises(Conflict):
        store.replace("claim", b"another's", if_match=etag)
    assert store.read("claim") == b"ours too"
    assert asked == [store.physical("claim")] * 4


def test_what_is_small_and_has_a_plain_name_takes_one_request_of_the_quick_client(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        for name in ("put_object", "get_object", "head_object"):
            patch.setattr(store.client, name, never)
        store.create("uploads/a b ü.csv", b"one", content_type="text/csv", metadata={"run": "7"})
        with pytest.raises(AlreadyExists):
            store.create("uploads/a b ü.csv", b"two")
        assert store.put_newest("answer", b"answer", "00000001")
        (listed,) = store.list("uploads/")
        assert store.read_pinned(listed) == b"one"
        assert store.read(listed.key) == b"one"
        with pytest.raises(ObjectMissing):
            store.read("uploads/nothing")
    headed = store.head(listed.key)
    assert headed
    assert headed.metadata["run"] == "7"


@given(
    key=st.sampled_from(ODD_KEYS) | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40),
    body=st.binary(max_size=60),
    metadata=st.dictionaries(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True), WORD, max_size=3),
    content_type=st.sampled_from([None, "text/csv", "application/json"]),
)
def test_both_clients_tell_the_same_of_an_object(
    store: ObjectStore, key: str, body: bytes, metadata: dict[str, str], content_type: str | None
) -> None:
    store.replace(key, body, metadata=metadata, content_type=content_type)
    by_sdk_alone = ObjectStore(store.client, store.bucket, store.prefix)
    (found, content), (told, said) = store.fetch(key), by_sdk_alone.fetch(key)
    assert (found, found.metadata, content) == (told, told.metadata, said)
    assert (found, content, dict(found.metadata) | metadata) == (store.head(key), body, found.metadata)


def test_what_is_too_large_for_the_quick_client_is_fetched_by_the_sdk(store: ObjectStore) -> None:
    body = bytes(QUICK_BYTES + 1)
    store.replace("large", body)
    assert store.quick
    assert store.quick.fetch(store.physical("large"), QUICK_BYTES) is None
    assert store.read("large") == body


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-11-22T10:00:00.123Z", datetime(2026, 11, 22, 10, 0, 0, 123_000, UTC)),
        ("Sun, 22 Nov 2026 10:00:00 GMT", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T12:00:00+02:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("20261122T100000Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("1795341600", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("Sun Nov 22 10:00:00 2026 UTC", datetime(2026, 11, 22, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_the_sdk_reads_it(said: str, meant: datetime) -> None:
    assert time_of(said) == parse_timestamp(said) == meant
    assert time_of(said).tzinfo is not None


def test_a_process_that_was_forked_is_answered_too(store: ObjectStore) -> None:
    store.create("a", b"x")
    (listed,) = store.list("a")
    assert store.quick
    assert store.quick.get(store.physical("a"), etag=listed.etag, version=None) == b"x"
    child = os.fork()
    if not child:  # the client's threads are the parent's: asked here, it would wait for ever
        os._exit(0 if store.quick.get(store.physical("a"), etag=listed.etag, version=None) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
