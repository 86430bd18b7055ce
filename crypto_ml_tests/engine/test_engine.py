"""Results are written once and stand: what was computed is not computed again, and what is damaged is named."""

import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crypto_ml.deployment import Deployment
from crypto_ml.engine.cluster import BadClusterAddress, Cluster, ClusterLost, checked_address
from crypto_ml.engine.computing import OtherSoftware, ShardFailed, compute_message, message, outcome
from crypto_ml.engine.mapping import Engine, Ran
from crypto_ml.engine.results import ShardDamaged, read_tables, write_tables
from crypto_ml.engine.work import Work
from crypto_ml.errors import Blocked
from crypto_ml.settings import Settings
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.engine.counted import begun, work


def deployment_on(store: ObjectStore) -> Deployment:
    return Deployment(Settings(bucket=store.bucket, prefix=store.prefix.rstrip("/")), store=store)


def squares(engine: Engine, asked: Work, ran: Ran | None = None) -> list[float]:
    """What comes of the work, in the order in which it comes."""
    found = []
    for shard, tables in engine.results(asked, ran=ran):
        number, square = list(tables)
        assert number["number"].to_pylist() == [shard.asked["number"]]
        found.append(square["square"][0].as_py())
    return found


def test_a_shard_that_stands_is_not_computed_again_whatever_the_others_are(store: ObjectStore, tmp_path: Path) -> None:
    engine = Engine(deployment_on(store))
    first, ran = work(tmp_path, 3), Ran()
    assert squares(engine, first, ran) == [0.0, 1.0, 4.0]
    assert (ran.shards, ran.stood, ran.computed) == (3, 0, {"this process": 3})
    more, ran = work(tmp_path, 5), Ran()
    assert squares(engine, more, ran) == [0.0, 1.0, 4.0, 9.0, 16.0]
    assert (ran.stood, len(begun(tmp_path))) == (3, 5)
    assert {found.key for found in store.list()} == {more.key(shard) for shard in more.shards}
    assert squares(engine, work(tmp_path, 3, other="question")) == [0.0, 1.0, 4.0]
    assert len(begun(tmp_path)) == 8


def test_a_run_that_ends_in_the_middle_leaves_what_it_computed_to_the_next(store: ObjectStore, tmp_path: Path) -> None:
    engine = Engine(deployment_on(store))
    with pytest.raises(ValueError, match="nobody expected"):
        squares(engine, work(tmp_path, 4, broken=2))
    assert [number for number, _ in begun(tmp_path)] == [0, 1, 2]
    with pytest.raises(ValueError, match="nobody expected"):
        squares(engine, work(tmp_path, 4, broken=2))
    assert [number for number, _ in begun(tmp_path)] == [0, 1, 2, 2]


def test_a_result_that_was_damaged_or_is_gone_when_it_is_read_is_computed_again_and_stands(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = Engine(deployment_on(store)), work(tmp_path, 2)
    squares(engine, asked)
    key = asked.key(asked.shards[1])
    content = store.read(key)
    for damaged in (content[:80] + bytes([content[80] ^ 1]) + content[81:], content[:-1], b""):
        store.replace(key, damaged)
        assert squares(engine, asked, ran := Ran()) == [0.0, 1.0]
        assert ran.stood == 2
        assert store.read(key) == content
    assert len(begun(tmp_path)) == 5
    download = ObjectStore.download_whole

    def swept_before(self: ObjectStore, wanted: str, path: Path) -> None:
        if wanted == key:
            store.client.delete_object(Bucket=store.bucket, Key=store.physical(key))
            monkeypatch.undo()
        download(self, wanted, path)

    monkeypatch.setattr(ObjectStore, "download_whole", swept_before)
    assert squares(engine, asked) == [0.0, 1.0]
    assert store.read(key) == content
    assert len(begun(tmp_path)) == 6


def test_a_damaged_file_is_named_before_any_table_of_it_comes(tmp_path: Path) -> None:
    write_tables([pa.table({"a": [1]})], tmp_path / "result")
    content = (tmp_path / "result").read_bytes()
    (tmp_path / "result").write_bytes(content[:-1])
    with pytest.raises(ShardDamaged, match="it is not as it was written"):
        read_tables(tmp_path / "result", "it")


def test_tables_of_any_schemas_come_back_as_they_were(tmp_path: Path) -> None:
    tables = [
        pa.table({"a": [1.5, float("nan")], "b": ["x", None]}).replace_schema_metadata({b"what": b"first"}),
        pa.table({"c": pa.array([], pa.date32())}),
        pa.table({"a": [-0.0]}),
    ]
    write_tables(tables, tmp_path / "result")
    found = list(read_tables(tmp_path / "result", "it"))
    assert [one.schema for one in found] == [one.schema for one in tables]
    assert [one.schema.metadata for one in found] == [one.schema.metadata for one in tables]
    assert repr([one.to_pydict() for one in found]) == repr([one.to_pydict() for one in tables])


def test_a_worker_with_other_software_computes_nothing_and_says_so(store: ObjectStore, tmp_path: Path) -> None:
    asked, deployment = work(tmp_path, 1), deployment_on(store)
    (shard,) = asked.shards
    told = compute_message({**message(asked, shard, deployment), "made_by": "another release"}, "tcp://there")
    with pytest.raises(Blocked, match="the worker tcp://there has another state of the code"):
        outcome(told, asked, shard)
    assert issubclass(OtherSoftware, Blocked)
    assert not begun(tmp_path)
    made = outcome(compute_message(message(asked, shard, deployment), "tcp://there"), asked, shard)
    assert (made.worker, len(begun(tmp_path))) == ("tcp://there", 1)
    broken = work(tmp_path, 1, broken=0)
    told = compute_message(message(broken, shard, deployment), "tcp://there")
    with pytest.raises(ShardFailed, match="counting, number 0: ValueError: a shard that nobody expected"):
        outcome(told, broken, shard)


@pytest.mark.parametrize(
    "address", ["tls://scheduler.internal:8786", "tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:1"]
)
def test_an_address_is_taken_where_nobody_else_can_send_code(address: str) -> None:
    assert checked_address(address, unencrypted=False) == address


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:8786", "tcp://localhost.example.org:8786"])
def test_an_address_without_tls_is_refused_unless_somebody_vouches_for_the_network(address: str) -> None:
    with pytest.raises(BadClusterAddress, match="could run any code: use tls://"):
        checked_address(address, unencrypted=False)
    assert checked_address(address, unencrypted=True) == address


@pytest.mark.parametrize(
    "address", ["scheduler:8786", "tls://scheduler", "https://scheduler:8786", "tls://a:b", "\x1b[2J"]
)
def test_what_is_no_address_of_a_scheduler_is_refused(address: str) -> None:
    with pytest.raises(
        BadClusterAddress, match=r"^CRYPTO_ML_CLUSTER is .*; it must be the address of a scheduler"
    ) as e:
        checked_address(address, unencrypted=True)
    assert "\x1b" not in str(e.value)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadClusterAddress, match="certificates") as told:
        checked_address("tls://somebody:geheim@scheduler.internal:8786", unencrypted=False)
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize(
    ("protocol", "why"), [("tcp", "TimeoutError|OSError: Timed out"), ("tls", "there are no certificates")]
)
def test_who_listens_and_never_answers_is_no_cluster_and_leaves_no_client_behind(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, why: str
) -> None:
    from distributed import Client

    made: list[str] = []
    init = Client.__init__

    def noted(self: Client, *words: Any, **named: Any) -> None:
        made.append(protocol)
        init(self, *words, **named)

    monkeypatch.setattr(Client, "__init__", noted)
    monkeypatch.setattr("crypto_ml.engine.cluster.SECONDS_TO_CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{protocol}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterLost, match=why):
            squares(Engine(deployment_on(store), Cluster(address)), work(tmp_path, 1))
    assert not made
    assert not begun(tmp_path)
