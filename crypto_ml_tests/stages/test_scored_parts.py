"""However a delivery is cut, and whoever computes the parts, its answer is the one of a delivery in one piece."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.audit.references import resolve
from crypto_ml.audit.replay import replay
from crypto_ml.audit.trace import trace
from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of_file
from crypto_ml.engine.cluster import Cluster
from crypto_ml.engine.mapping import Engine
from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.onnx_graph import onnx_bytes
from crypto_ml.forecasting.scoring import witness_of
from crypto_ml.forecasting.sorting import as_rows
from crypto_ml.ledger.registry import Registry
from crypto_ml.settings import Settings
from crypto_ml.stages import scored_parts
from crypto_ml.stages.cleaned_features import ACCEPTED_SCHEMA, Cleaned, CleanedFile
from crypto_ml.stages.delivery_scoring import PREDICTED_PARQUET, Scored, Sources, score_delivery
from crypto_ml.stages.rescoring import Asked, period, rescore
from crypto_ml.stages.scaler import choose
from crypto_ml.stages.scored_rows import Scoring
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.series.cache import SeriesCache
from crypto_ml.storage.series.reading import Sizes
from crypto_ml_tests.forecasting.markets import FIRST_DAY, market, relative_model, statistics
from crypto_ml_tests.forecasting.networks import random_weights
from crypto_ml_tests.stages.road import NOW, Road, upload

WORKERS = (1, 2, 3)


@pytest.fixture(scope="module")
def clusters(s3_environment: dict[str, str]) -> Iterator[list[Cluster]]:
    """Clusters of one, two and three workers, in this process."""
    from distributed import LocalCluster

    with ExitStack() as stack:
        found = []
        for count in WORKERS:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=False,
                protocol="tcp",
                host="127.0.0.1",
                dashboard_address=":0",
            )
            found.append(Cluster(stack.enter_context(cluster).scheduler_address))
        yield found


HISTORY = market({"BTC": 150, "ETH": 90, "btc": 40, "NEW": 60, "new": 30, "OLD:old": 33}, 3)
"""What a history knows, of series that the model knows and of others, some of which look alike."""


def history_of(road: Road) -> None:
    """Days before those that are asked about, and between them."""
    road.drop(earlier=upload(HISTORY))
    road.answer_new()


@st.composite
def deliveries(draw: st.DrawFn) -> list[pd.DataFrame]:
    """The accepted rows of some files, some of them of series that the history has, with slugs, jumps and holes."""
    files = []
    for file in range(draw(st.integers(1, 3))):
        names = st.sampled_from(["BTC", "ETH", "Eth", "btc", "bTc", "NEW", "New", "LTC", "é", "É", "ZZZ"])
        lengths = draw(st.dictionaries(names, st.integers(1, 40), min_size=1, max_size=6))
        rows = market(lengths, draw(st.integers(0, 99)), file=file)
        if draw(st.booleans()):  # weekly
            rows["date"] = pd.Timestamp(FIRST_DAY) + pd.to_timedelta(7 * rows.groupby("symbol").cumcount(), unit="D")
        rows["date"] = (rows["date"] + timedelta(days=draw(st.integers(0, 160)))).astype("datetime64[s]")
        rows["slug"] = rows["symbol"].map({name: draw(st.sampled_from([None, "own", "bitcoin"])) for name in lengths})
        jumps = np.random.default_rng(draw(st.integers(0, 9))).random(len(rows)) < draw(st.sampled_from([0.0, 0.2]))
        rows.loc[jumps, ["open", "high", "low", "close"]] *= 100.0
        files.append(rows)
    return files


def stored(files: list[pd.DataFrame], path: Path, rows_of_a_group: int) -> None:
    """Accepted rows as they are stored, in row groups that may cut a series."""
    rows = pa.concat_tables(as_rows(rows, file=file) for file, rows in enumerate(files))
    without = pa.nulls(rows.num_rows, pa.float64())
    columns = [rows[name] if name in rows.schema.names else without for name in ACCEPTED_SCHEMA.names]
    pq.write_table(pa.table(columns, schema=ACCEPTED_SCHEMA), path, row_group_size=rows_of_a_group)


def content(scored: dict[int, Scored], directory: Path) -> object:
    """All there is of an answer, but for where it stands."""
    logged = pq.read_table(directory / PREDICTED_PARQUET).to_pydict()
    said = {number: {**vars(one), "path": one.path.read_bytes(), "preview": None} for number, one in scored.items()}
    return repr((said, logged))


@pytest.fixture(scope="module")
def known(bucket: str, s3_environment: dict[str, str]) -> Road:
    """A road with a history, that tests only read from."""
    from crypto_ml.storage.objects import connect

    road = Road(connect(bucket, f"tests/parts-{np.random.default_rng().integers(1 << 60)}"))
    history_of(road)
    return road


def bundle_named(which: str) -> ModelBundle:
    """A model with statistics of each series, which knows which coin BTC is, or one with a rule for all."""
    if which == "rule":
        return relative_model()
    return make_bundle(
        label="slugs",
        target="gap",
        scaler=statistics(),
        slugs={"BTC": "bitcoin"},
        network_onnx=onnx_bytes(random_weights(0)),
        weights_sha256="random",
        about={},
        documents={},
    )


@settings(max_examples=8)
@given(
    files=deliveries(),
    which=st.sampled_from(["rule", "statistics"]),
    rows=st.integers(1, 120),
    group=st.integers(5, 60),
    workers=st.sampled_from([0, *WORKERS]),
    cumulative=st.booleans(),
    refreshed=st.booleans(),
)
def test_a_delivery_in_parts_is_the_delivery_in_one_piece_to_the_last_byte(
    *,
    known: Road,
    clusters: list[Cluster],
    files: list[pd.DataFrame],
    which: str,
    rows: int,
    group: int,
    workers: int,
    cumulative: bool,
    refreshed: bool,
) -> None:
    bundle = bundle_named(which)
    Registry(known.store).add(bundle)
    deployment = Deployment(Settings(recovery="cumulative" if cumulative else "one_step"), store=known.store)
    unread = SeriesCache(known.store, known.history, sizes=Sizes(tail_rows=0))  # as of a long history, never refreshed
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scored_parts, "ROWS_OF_A_PART", rows)
        made = []
        for in_parts in (False, True):
            directory = Path(name) / str(in_parts)
            directory.mkdir()
            stored(files, directory / "accepted.parquet", group)
            cleaned = Cleaned(
                delivery="00000002",
                code="code",
                accepted_sha256=sha256_of_file(directory / "accepted.parquet"),
                files={n: CleanedFile(len(one), len(one), 0, 0, None, (), None) for n, one in enumerate(files)},
                renamed={},
                named_by={},
                preview=(),
            )
            known.store.create_or_same(cleaned.accepted_key, (directory / "accepted.parquet").read_bytes())
            sources = Sources(
                known.store,
                known.history,
                known.history.version(),
                bundle,
                known.serving(),
                deployment.settings,
                "run",
                series=deployment.series if in_parts or refreshed else unread,
                engine=Engine(deployment, clusters[workers - 1] if workers else None) if in_parts else None,
            )
            answers = {number: f"00000002-{number}" for number in range(len(files))}
            made.append(content(score_delivery(cleaned, answers, sources, directory), directory))
    assert made[0] == made[1]


def test_a_part_that_was_made_from_other_features_than_its_rows_have_is_refused(known: Road, tmp_path: Path) -> None:
    bundle = relative_model()
    Registry(known.store).add(bundle)
    rows = market({"BTC": 30, "ZZZ": 25}, 5)
    stored([rows], tmp_path / "accepted.parquet", 10)
    known.store.create_or_same("raw/accepted-of-a-part", (tmp_path / "accepted.parquet").read_bytes())
    deployment = Deployment(Settings(), store=known.store)
    scoring = Scoring(bundle, known.history, known.history.version(), deployment.series, "one_step", 0.9)
    parts = scored_parts.cut(tmp_path / "accepted.parquet", scoring)
    work = scored_parts.work_of(parts, scoring, "raw/accepted-of-a-part", told="work")
    (shard,) = work.shards
    tables = list(scored_parts.score_part(work.asked, shard.asked, deployment))

    def taken(rows: pd.DataFrame) -> int:
        together = scored_parts.Together(parts.series, bundle)
        chunks = together.take(as_rows(rows, file=0), iter(tables), witness_of(bundle))
        return sum(chunk.num_rows for chunk in chunks)

    assert taken(rows) == len(rows)
    with pytest.raises(scored_parts.PartDiffers, match="other features"):
        taken(rows.assign(high=rows["high"] * 1.0000001))
    with pytest.raises(scored_parts.PartDiffers):
        taken(pd.concat([rows, market({"ZZZZ": 2}, 5)]))


def test_a_large_upload_has_the_same_answer_receipt_and_replay_whoever_scored_it(
    road: Road, store: ObjectStore, clusters: list[Cluster]
) -> None:
    history_of(road)
    rows = market({"BTC": 30, "ETH": 20, "NEW": 25, "neW": 12}, 8)
    road.drop(large=upload(rows.assign(date=rows["date"] + timedelta(days=140))))
    (delivery,) = road.assign()
    road.settings = Settings(cluster=clusters[1].address, cluster_from_rows=50)
    (receipt,) = road.answer(delivery.number).receipts
    shards = [found.key for found in store.list("cache/shards/")]
    assert len(shards) == 1
    answered = store.read("predictions/large_preds.csv")
    for at_hand in (Settings(), Settings(cluster=clusters[2].address, cluster_from_rows=50)):
        road.settings = at_hand
        (again,) = road.answer(delivery.number).receipts
        assert again == receipt
        assert store.read("predictions/large_preds.csv") == answered
    assert [found.key for found in store.list("cache/shards/")] == shards
    assert replay(receipt.answer_id, store).outcome == "IDENTICAL"
    row = trace(resolve(f"{receipt.answer_id}-2", store), store).row
    assert row is not None
    assert (row.symbol, len(row.earlier_rows) > 0) == ("BTC", True)
    road.drop(quoted=upload(rows.replace({"symbol": {"neW": 'n,"w'}})))
    road.settings = Settings(cluster="tcp://127.0.0.1:9", cluster_from_rows=50)  # where nobody is
    assert road.answer_new()[0].reports[0].outcome == "PREDICTED"


def test_a_training_set_read_in_shards_is_the_same_set_with_the_same_name(
    known: Road, clusters: list[Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_of, asked = FIRST_DAY + timedelta(days=100), ("2018-04-01", FIRST_DAY + timedelta(days=100))
    manifest, rows = choose(*asked, known.history, NOW + timedelta(days=1))
    assert len(rows) > 200
    assert str(as_of) == manifest["as_of"]
    deployment = Deployment(Settings(), store=known.store)
    for machines, at_once in ((None, 1), (clusters[1], 1), (clusters[2], 150), (None, 10_000)):
        monkeypatch.setattr("crypto_ml.stages.ranges.ROWS_OF_A_RANGE", at_once)
        again, same_rows = choose(*asked, known.history, NOW + timedelta(days=1), Engine(deployment, machines))
        assert again == manifest
        pd.testing.assert_frame_equal(same_rows, rows, check_exact=True)


@pytest.mark.parametrize("which", ["rule", "statistics"])
def test_days_scored_again_are_what_a_drop_of_their_rows_is_answered_with_whatever_the_shards(
    road: Road, store: ObjectStore, clusters: list[Cluster], which: str, tmp_path: Path
) -> None:
    road.bundle = bundle_named(which)
    first = FIRST_DAY + timedelta(days=35)
    of_days = HISTORY["date"].dt.date.between(first, first + timedelta(days=30))
    road.drop(before=upload(HISTORY[HISTORY["date"].dt.date < first]))
    road.answer_new()
    road.drop(days=upload(HISTORY[of_days]))
    road.answer_new()
    answered = road.predictions("days")
    road.drop(after=upload(HISTORY[~of_days & (HISTORY["date"].dt.date > first)]))
    road.answer_new()
    asked = Asked(first, first + timedelta(days=30))
    made = set()
    for machines, most_symbols in ((None, 500), (None, 1), (clusters[2], 2)):
        engine, ran = Engine(road.deployment, machines), None
        done = rescore(asked, road.deployment, engine, NOW, out=tmp_path / "again.csv", most_symbols=most_symbols)
        assert done.ran is not None
        assert done.ran.stood == 0
        ran = done.ran
        assert sum(ran.computed.values()) == ran.shards == -(-6 // most_symbols)
        made.add(((tmp_path / "again.csv").read_bytes(), json.dumps(done.document, sort_keys=True)))
        stands = rescore(asked, road.deployment, engine, NOW)
        assert (stands.ran, stands.document) == (None, done.document)
        for key in (done.key, done.predictions):
            store.client.delete_object(Bucket=store.bucket, Key=store.physical(key))
    assert len(made) == 1
    again = pd.read_csv(tmp_path / "again.csv", keep_default_na=False)
    assert again.columns.tolist() == [name for name in answered.columns if name != "prediction_id"]
    pd.testing.assert_frame_equal(again, answered.drop(columns="prediction_id"), check_exact=True)


def test_a_period_is_two_days_a_month_or_a_day() -> None:
    assert period("2018-02") == (date(2018, 2, 1), date(2018, 2, 28))
    assert period("2018-12..2019-01-05") == (date(2018, 12, 1), date(2019, 1, 5))
    assert period("2018-03-25") == (date(2018, 3, 25), date(2018, 3, 25))
    assert period("8999-12") == (date(8999, 12, 1), date(8999, 12, 31))
    for wrong in ("2018-03-25..2018-03-24", "March", "2018-13", "", "2018-W10", "20180325", "9999-12", "2018-03.."):
        with pytest.raises(ValueError):
            period(wrong)
