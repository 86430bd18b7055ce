"""Files put together hold the same rows at every version, whoever appends meanwhile, and rows are rewritten seldom."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.digest import sha256_of
from crypto_ml.storage import history, prediction_log
from crypto_ml.storage.history import SCHEMA, MarketHistory
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml.storage.tables import compaction
from crypto_ml.storage.tables.commits import Commit, commit_key, commits_after
from crypto_ml.storage.tables.compaction import (
    SIZES,
    TINY_TOGETHER,
    TOGETHER,
    CompactionEvidence,
    FileChanged,
    compact,
    evidence_of,
    groups_of,
    is_compacted,
    without_evidence,
)
from crypto_ml.storage.tables.growing import CommitEvidence

DAY = date(2018, 3, 26)
KNOWN = datetime(2018, 3, 27, tzinfo=UTC)
COINS = ("BTC", "ETH", "ünï/😀")


@pytest.fixture(autouse=True)
def few_files_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files are put together, so that few appends make a history of several compactions."""
    monkeypatch.setattr(compaction, "TINY_TOGETHER", 3)


def rows(number: int, count: int, slug: str | None = None, void: bool | None = None) -> pa.Table:
    """Rows of delivery `number`."""
    return pa.Table.from_pylist(
        [
            {
                "symbol": COINS[(number + line) % len(COINS)],
                "date": DAY + timedelta(days=number + line // 2),
                **dict.fromkeys(("open", "high", "low", "close"), number + line / 3),
                "market": None if line % 2 else 5e-324,
                "slug": slug,
                "known_at": KNOWN + timedelta(hours=number, microseconds=line),
                "upload_id": f"{number}.0",
                "line": line,
                "cleaning": 1,
                "void": void,
            }
            for line in range(count)
        ],
        schema=SCHEMA,
    )


def contents(of: MarketHistory, version: int) -> list[str]:
    """Every row at a version, as text, in one order."""
    return sorted(map(str, of.scan(version=version).read_all().to_pylist()))


def anew(store: ObjectStore) -> MarketHistory:
    """The history as a process sees it that was just started."""
    return MarketHistory(connect(store.bucket, store.prefix))


def holds(objects: Mapping[str, str], store: ObjectStore) -> bool:
    return all(sha256_of(store.read(key)) == sha256 for key, sha256 in objects.items())


class Grown:
    """A history that grows, with what was recorded of each append and of each compaction."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.history = MarketHistory(store)
        self.appended: dict[int, CommitEvidence] = {}
        self.read: dict[int, list[str]] = {}
        self.compacted: list[CompactionEvidence] = []

    def append(self, count: int) -> int:
        number = len(self.appended) + 1
        known_at = KNOWN + timedelta(hours=number)
        version = self.history.append(rows(number, count), append_id=f"id{number}", known_at=known_at)
        self.appended[version] = self.history.commit_evidence(version)
        self.read[version] = contents(self.history, version)
        return version

    def compact(self, meanwhile: int = 0) -> None:
        """Put files together; so many appends come between reading them and committing that."""
        left = [meanwhile]

        def vouched(commit: Commit) -> Mapping[str, str]:
            while left[0]:
                left[0] -= 1
                self.append(2)
            return self.appended[commit.version].objects if commit.version in self.appended else {}

        for evidence in compact(self.history.table, history.ARRANGED, vouched):
            self.compacted.append(evidence)
            self.read[evidence.version] = contents(self.history, evidence.version)


HISTORIES = st.lists(
    st.integers(0, 4) | st.sampled_from(["compact", "compact beside an append"]), min_size=3, max_size=7
)


@settings(max_examples=4)
@given(HISTORIES)
def test_every_version_reads_the_same_rows_and_each_append_still_stands(
    store: ObjectStore, done: list[int | str]
) -> None:
    grown = Grown(connect(store.bucket, f"{store.prefix}{uuid4().hex}"))
    for one in [1, 2, 3, *done, "compact"]:
        if isinstance(one, int):
            grown.append(one)
        else:
            grown.compact(meanwhile=int("beside" in one))
    again = anew(grown.store)
    assert {version: contents(again, version) for version in grown.read} == grown.read
    for version, evidence in grown.appended.items():
        assert again.commit_evidence(version).objects == evidence.objects
        assert again.version_known_by(KNOWN + timedelta(hours=list(grown.appended).index(version) + 1)) == version
    assert again.append(rows(1, 1), append_id=f"id{len(grown.appended)}", known_at=KNOWN) == max(grown.appended)
    for found in grown.compacted:
        assert holds(found.objects, grown.store)
        before = max(version for version in grown.read if version < found.version)
        assert grown.read[found.version] == grown.read[before]
    files = anew(grown.store).table.at()
    assert files is not None
    assert not groups_of(files.files)


def test_a_compaction_tells_what_it_read_and_wrote_and_is_no_append(store: ObjectStore) -> None:
    grown = Grown(store)
    for count in (2, 3, 1):
        grown.append(count)
    grown.compact(meanwhile=1)
    (found,) = grown.compacted
    appended = {key: sha256 for one in list(grown.appended.values())[:3] for key, sha256 in one.objects.items()}
    assert found.version == 5  # the append came first
    assert found.rows == 6
    assert found.removed == {key: sha256 for key, sha256 in appended.items() if key.endswith(".zstd.parquet")}
    assert commit_key("market_history", found.version) in found.objects
    assert [is_compacted(key) for key in found.objects if key.endswith(".parquet") and "_log" not in key] == [True]
    assert evidence_of(grown.history.table, found.version) == found
    (commit,) = commits_after(4, 10, store)
    assert commit.compacts
    assert commit == Commit(5, None)
    assert grown.history.version_known_by(KNOWN + timedelta(hours=99)) == 4
    assert without_evidence(grown.history.table, []) == [5]
    assert without_evidence(grown.history.table, [5]) == []


def test_rows_stand_by_series_and_files_of_two_roads_are_never_put_together(store: ObjectStore) -> None:
    grown, log = Grown(store), PredictionLog(store)
    for count in (5, 4, 3):
        grown.append(count)
    grown.compact()
    state = grown.history.table.at()
    assert state is not None
    read = state.dataset.to_table().select(["symbol", "date"]).to_pylist()
    assert read == sorted(read, key=lambda row: (row["symbol"], row["date"]))
    for number in range(6):
        road = "forecast" if number % 2 else "upload"
        made = {"answer_id": f"{number}-a", "line": 1, "road": road, "model_version": "m", "symbol": "BTC", "date": DAY}
        row = pa.Table.from_pylist(
            [made | {"pred_open": float(number), "made_at": KNOWN}], schema=prediction_log.SCHEMA
        )
        log.append(row, append_id=str(number))
    assert len(list(compact(log.table, prediction_log.ARRANGED, lambda _: {}))) == 2
    logged = log.table.at()
    assert logged is not None
    assert logged.files["num_records"].to_pylist() == [3, 3]
    assert [log.rows(f"{number}-a")["pred_open"].to_pylist() for number in range(6)] == [[float(n)] for n in range(6)]
    assert log.recent("forecast", ["BTC"], DAY)["pred_open"].to_pylist() == [5.0]


def test_a_file_that_is_not_what_was_appended_is_put_together_with_nothing(store: ObjectStore) -> None:
    grown = Grown(store)
    for count in (2, 2, 2):
        grown.append(count)
    key = next(key for key in grown.appended[2].objects if key.endswith(".zstd.parquet"))
    content = store.read(key)
    store.replace(key, content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(FileChanged, match="is not what was written: restore it"):
        grown.compact()
    assert grown.history.version() == 3
    store.replace(key, content)
    grown.compact()
    assert [found.version for found in grown.compacted] == [4]


def test_a_change_of_the_columns_that_comes_first_ends_a_compaction(store: ObjectStore) -> None:
    grown = Grown(store)
    for count in (2, 2, 2):
        grown.append(count)
    widened = json.dumps({"metaData": {"id": "x"}})

    def vouched(commit: Commit) -> Mapping[str, str]:
        if commit.version == 1:
            store.create(commit_key("market_history", 4), widened.encode())
        return {}

    assert list(compact(grown.history.table, history.ARRANGED, vouched)) == []
    assert store.head(commit_key("market_history", 5)) is None


def files_of(sizes: Mapping[str, int]) -> pa.Table:
    return pa.table(
        {
            "path": pa.array(list(sizes), pa.string()),
            "size_bytes": pa.array(list(sizes.values()), pa.int64()),
            "modification_time": pa.array(range(len(sizes)), pa.int64()),
        }
    )


def grown_by(size: int, appends: int) -> Iterator[tuple[int, int]]:
    """Files, and bytes written again in all, after each of some appends of one size."""
    sizes, written = dict[str, int](), 0
    for number in range(appends):
        sizes[f"append {number}"] = size
        while groups := groups_of(files_of(sizes)):
            merged = sum(sizes.pop(path) for path in groups[0])
            written += merged
            sizes[f"compacted {number} {written}"] = merged
        yield len(sizes), written


@pytest.mark.parametrize("size", [4_000, 500_000, 30_000_000])
def test_files_stay_few_and_their_bytes_are_rewritten_a_few_times(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "TINY_TOGETHER", TINY_TOGETHER)
    appends = 600
    done = list(grown_by(size, appends))
    full = appends * size // SIZES[-1]
    assert max(files for files, _ in done) < TINY_TOGETHER + TOGETHER * len(SIZES) + 2 * full
    assert done[-1][1] <= (len(SIZES) + 1) * appends * size
