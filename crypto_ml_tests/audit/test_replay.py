"""An answer comes out again to the last bit, and whatever is not as it was is named by its stage."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.audit.distance import float32_ulps
from crypto_ml.audit.references import resolve
from crypto_ml.audit.replay import replay
from crypto_ml.audit.rows_read import CACHE_DIFFERS, FOLDED, cache_note
from crypto_ml.audit.trace import trace
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.running import SeriesBook
from crypto_ml.ledger.deliveries import delivery_id
from crypto_ml.ledger.layout import raw_key
from crypto_ml.ledger.receipts import read_receipt, receipts_of
from crypto_ml.settings import Settings
from crypto_ml.stages.raw_uploads import SMALL
from crypto_ml.stages.series_by_name import FromHistory
from crypto_ml.storage.failures import StoreUnavailable
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.road import Road, upload

PACKAGE = Path(__file__).resolve().parents[2] / "crypto_ml"


@pytest.fixture
def road(store: ObjectStore) -> Road:
    """Two deliveries: one file whose series the model knows and does not, and a day later with a refused row."""
    made = Road(store)
    rows = market({"BTC": 12, "NEW": 14})
    made.drop(first=upload(rows[rows["date"] < "2018-01-12"]), bad=b"not,a,market\n")
    made.answer_new()
    made.drop(second=upload(rows[rows["date"] >= "2018-01-12"]) + b"BTC,2018-02-01,-1,1,1,1,1\n")
    made.answer_new()
    return made


def verdict(road: Road, name: str) -> str:
    return str(replay(str(road.report(name)["answer_id"]), road.store))


def stage(road: Road, name: str) -> str:
    """The stage that a verdict names; the verdict itself where it names none."""
    return verdict(road, name).removeprefix("DIFFERS AT ").partition(":")[0]


def test_every_answer_comes_out_again_predicted_or_not(road: Road) -> None:
    assert [verdict(road, name) for name in ("first", "second", "bad")] == ["IDENTICAL"] * 3


def test_an_answer_comes_out_again_after_a_correction_a_promotion_and_a_repeat(road: Road) -> None:
    old = {name: str(road.report(name)["answer_id"]) for name in ("first", "second")}
    other = model("change", label="other")
    road.registry.add(other)
    road.registry.promote(other.version, by="ann", why="better", at=road.now)
    repeated = road.store.read("uploads/second.csv")
    road.drop(first=upload(market({"BTC": 12, "NEW": 14}, seed=2)))
    road.answer_new()
    road.store.replace("uploads/second.csv", repeated)
    road.answer_new()
    assert [str(replay(answer, road.store)) for answer in old.values()] == ["IDENTICAL"] * 2
    assert verdict(road, "first") == "IDENTICAL"
    for delivery in (1, 2, 3, 4):
        for receipt in receipts_of(delivery_id(delivery), road.store):
            assert str(replay(receipt.answer_id, road.store)) == "IDENTICAL", receipt.outcome


@pytest.mark.parametrize("recovery", ["one_step", "cumulative"])
def test_the_settings_of_the_answer_count_not_those_of_today(
    store: ObjectStore, recovery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = Road(store, settings=Settings.recorded({"recovery": recovery}))
    road.drop(prices=upload(market({"BTC": 12})))
    road.answer_new()
    monkeypatch.setenv("CRYPTO_ML_RECOVERY", "one_step")
    assert verdict(road, "prices") == "IDENTICAL"


STAGES = {
    "receipts/deliveries/": "raw_uploads",
    "receipts/answers/": "receipt",
    "receipts/answered/": "predictions",
    "raw/received/": "raw_uploads",
    "raw/uploads/": "raw_uploads",
    "raw/cleaned/": "cleaned_features",
    "raw/appends/": "market_history",
    "market_history/": "market_history",
    "models/champion/": "champion_model",
    "models/bundles/": "trained_model",
    "predictions/second_preds.csv": "predictions",
    "predictions/second_rejected_rows.csv": "predictions",
    "predictions/second_report.json": "report",
}
"""What a flipped byte in an object below a prefix makes differ."""

NOT_BEHIND_IT = (
    "uploads/",
    "predictions/first",
    "predictions/bad",
    "market_history/_delta_log/_",
    "cache/",
    "prediction_log/",
)
"""What the answer to `second` does not rest on: what users own, other answers, Delta Lake's hint where to begin, what
may be deleted at any time, and what was logged of answers, whose rows are compared."""


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_one_flipped_byte_in_any_object_behind_an_answer_is_noticed_and_its_stage_named(road: Road) -> None:
    answer = str(road.report("second")["answer_id"])
    receipt = read_receipt(answer, road.store)
    delivery = receipt.inputs.delivery
    looked: set[str] = set()
    for key in sorted(road.objects()):
        belongs = [prefix for prefix in STAGES if key.startswith(prefix)]
        of_another_delivery = key.startswith(("receipts/", "raw/")) and delivery not in key and "appends" not in key
        of_another_upload = key.startswith("raw/uploads/") and str(receipt.inputs.upload_sha256) not in key
        if key.startswith(NOT_BEHIND_IT) or (of_another_delivery and "raw/uploads/" not in key) or of_another_upload:
            continue
        assert belongs, f"{key} is behind the answer, and nothing vouches for it"
        content = road.store.read(key)
        for at in {0, len(content) // 3, len(content) - 2}:
            road.store.replace(key, flipped(content, at))
            found = str(replay(answer, road.store))
            assert found.startswith(f"DIFFERS AT {STAGES[belongs[0]]}: "), (key, at, found)
        road.store.replace(key, content)
        looked.add(belongs[0])
    assert looked == set(STAGES)
    for key in (one.key for one in list(road.store.list("cache/"))):
        content = road.store.read(key)
        road.store.replace(key, flipped(content, len(content) // 3))
    assert verdict(road, "second") == "IDENTICAL"


@pytest.fixture
def folded(store: ObjectStore) -> Road:
    """A series the model does not know, in three deliveries; of the third answer the first one's rows are folded."""
    made = Road(store)
    rows = market({"BTC": 56, "NEW": 56})
    for name, begin, end in (("oldest", 0, 16), ("before", 16, 55), ("last", 55, 56)):
        days = rows.groupby("symbol").cumcount()
        made.drop(**{name: upload(rows[(days >= begin) & (days < end)])})
        made.answer_new()
    return made


def test_a_folded_answer_comes_out_again_with_and_without_the_cache_and_full_reads_what_is_folded(folded: Road) -> None:
    answer = str(folded.report("last")["answer_id"])
    receipt = read_receipt(answer, folded.store)
    assert receipt.inputs.earlier == "folded-1"
    assert receipt.history.read is not None
    for _ in range(2):
        found, whole = replay(answer, folded.store), replay(answer, folded.store, full=True)
        assert (str(found), found.note) == ("IDENTICAL", FOLDED)
        assert (str(whole), whole.note) == ("IDENTICAL", None)
        folded.deployment.series.refresh(receipt.history.read)
    (oldest,) = (
        key
        for found in folded.store.list("raw/appends/00000001-")
        for key in folded.store.read_json(found.key)["objects"]
        if key.endswith(".parquet")
    )
    content = folded.store.read(oldest)
    folded.store.replace(oldest, flipped(content, len(content) // 3))
    assert str(replay(answer, folded.store)) == "IDENTICAL"
    assert str(replay(answer, folded.store, full=True)).startswith("DIFFERS AT market_history: ")
    folded.store.replace(oldest, content)
    (before,) = (found.key for found in folded.store.list("raw/appends/00000002-"))
    written = [key for key in folded.store.read_json(before)["objects"] if key.endswith(".parquet")]
    folded.store.replace(written[0], flipped(folded.store.read(written[0]), 40))
    assert str(replay(answer, folded.store)) == (
        f"DIFFERS AT market_history: {folded.store.uri(written[0])} is not what it was"
    )


def test_a_cache_that_says_otherwise_than_the_history_is_named(folded: Road) -> None:
    version = folded.history.version()
    assert version is not None

    class Forged(FromHistory):
        def book(self, symbols: Collection[str] | None, version: int) -> SeriesBook:
            book = super().book(symbols, version)
            sums = pc.add(book.states["sum_open"], 1e-9)
            at = book.states.schema.get_field_index("sum_open")
            return SeriesBook(book.states.set_column(at, "sum_open", sums), book.rows)

    history = folded.history
    assert cache_note(["BTC", "NEW"], version, folded.deployment.series, history) is None
    assert cache_note(["BTC", "NEW"], version, Forged(history), history) == CACHE_DIFFERS


def test_the_files_of_a_delivery_share_their_evidence_and_each_byte_of_it_is_vouched_for(store: ObjectStore) -> None:
    road = Road(store)
    one, other = upload(market({"BTC": 12})), upload(market({"NEW": 14}, seed=2))
    road.put({"one.csv": one, "other.csv": other, "same.csv": one, "bad.csv": b"", "large.csv": other + b" " * SMALL})
    road.answer_new()
    before = road.objects()
    (together,) = (key for key in before if key.startswith("raw/together/"))
    (receipts,) = (key for key in before if key.startswith("receipts/answers/"))
    assert store.read(together) == one + other
    assert [key for key in before if key.startswith("raw/uploads/")] == [raw_key(sha256_of(other + b" " * SMALL))]
    road.answer(1)
    assert road.objects() == before
    answers = [road.report(name)["answer_id"] for name in ("one", "other", "same", "bad", "large")]
    assert sorted(receipt.answer_id for receipt in receipts_of("00000001", store)) == sorted(answers)
    assert {road.report(name)["receipt"] for name in ("one", "bad", "large")} == {receipts}
    assert [str(replay(answer, store)) for answer in answers] == ["IDENTICAL"] * 5
    row = trace(resolve(f"{answers[1]}-3", store), store).row
    assert row
    assert row.as_received == other.decode().splitlines()[2]
    for key, stage in ((together, "raw_uploads"), (receipts, "receipt")):
        content = store.read(key)
        for at in (0, len(content) // 3, len(content) - 2):
            store.replace(key, flipped(content, at))
            assert str(replay(answers[0], store)).startswith(f"DIFFERS AT {stage}: "), (key, at)
        store.replace(key, content)


def test_evidence_that_is_gone_is_named_by_its_stage(road: Road) -> None:
    receipt = read_receipt(str(road.report("second")["answer_id"]), road.store)
    key = receipt.evidence["accepted"].key
    road.store.client.delete_object(Bucket=road.store.bucket, Key=road.store.physical(key))
    assert verdict(road, "second").startswith("DIFFERS AT cleaned_features: evidence is gone: There is no object")


def rewrite_log(store: ObjectStore, rows: pa.Table) -> None:
    """Put another log of predictions in the place of the one there is."""
    for found in list(store.list("prediction_log/")):
        store.client.delete_object(Bucket=store.bucket, Key=store.physical(found.key))
    PredictionLog(store).append(rows, append_id="forged")


def edited(rows: pa.Table, at: int, column: str, value: Any) -> pa.Table:
    """Rows of which one has another value."""
    return pa.Table.from_pylist(
        [row | ({column: value} if n == at else {}) for n, row in enumerate(rows.to_pylist())], rows.schema
    )


def test_a_logged_prediction_that_was_changed_lost_doubled_or_added_is_named(road: Road) -> None:
    log, answer = PredictionLog(road.store), str(road.report("second")["answer_id"])
    rows, other = log.predictions(answer), log.predictions(str(road.report("first")["answer_id"]))
    line = f"{answer}-{rows['line'][0].as_py()}"
    forged = {
        f"{line} is not what was predicted": edited(
            rows, 0, "pred_open", float(np.nextafter(rows["pred_open"][0].as_py(), 0))
        ),
        f"{line} is not what was predicted ": edited(rows, 0, "model_version", "another"),
        f"{line} is not there": rows[1:],
        f"{line} stands there more than once": pa.concat_tables([rows, rows[:1]]),
        f"{answer}-77 is there, and was never predicted": pa.concat_tables([rows, edited(rows[:1], 0, "line", 77)]),
        f"no prediction of {answer} is there": rows[:0],
    }
    for said, table in forged.items():
        rewrite_log(road.store, pa.concat_tables([other, table]))
        assert str(replay(answer, road.store)) == f"DIFFERS AT prediction_log: {said.strip()}"
        assert verdict(road, "first") == "IDENTICAL"
    rewrite_log(road.store, pa.concat_tables([other, rows]))
    assert verdict(road, "second") == "IDENTICAL"


EDITS = {
    "forecasting/features.py": ("spread = high - low", "spread = (high - low) * 1.0000001", "features"),
    "forecasting/cleaning.py": ("np.where(finite, market, 0.0)", "market * 0.0", "cleaned_features"),
    "forecasting/scoring.py": ("previous + prediction.change", "previous + prediction.change * 1.001", "predictions"),
    "stages/earlier_rows.py": ("self.first - self.look_back", "self.first - self.look_back + 1", "market_history"),
}


@pytest.mark.parametrize("module", EDITS)
def test_one_constant_changed_in_the_code_is_named_by_its_stage(
    road: Road, module: str, tmp_path: Path, s3_environment: dict[str, str]
) -> None:
    before, after, named = EDITS[module]
    shutil.copytree(PACKAGE, tmp_path / "crypto_ml", ignore=shutil.ignore_patterns("__pycache__"))
    source = (tmp_path / "crypto_ml" / module).read_text()
    assert before in source
    (tmp_path / "crypto_ml" / module).write_text(source.replace(before, after))
    answer = str(road.report("second")["answer_id"])
    script = (
        "import sys; from crypto_ml.audit.replay import replay; from crypto_ml.storage.objects import connect; "
        "verdict = replay(sys.argv[1], connect(*sys.argv[2:])); print(verdict)"
    )
    command = [sys.executable, "-c", script, answer, road.store.bucket, road.store.prefix]
    environment = os.environ | s3_environment | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=tmp_path)
    assert done.stdout.startswith(f"DIFFERS AT {named}: "), done.stdout


def test_a_store_that_does_not_answer_is_no_verdict(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreUnavailable):
        replay("00000001-0123456789abcdef", connect(road.store.bucket, road.store.prefix))


@given(value=st.floats(1e-6, 1e9), steps=st.integers(0, 40))
def test_the_distance_of_two_numbers_is_counted_in_float32_steps(value: float, steps: int) -> None:
    one = other = np.float32(value)
    for _ in range(steps):
        other = np.nextafter(other, np.float32(np.inf))
    assert float32_ulps(float(one), float(other)) == float32_ulps(float(other), float(one)) == steps


def test_numbers_that_another_processor_rounds_otherwise_are_equal_within_some_ulp(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's last bit is moved, as another processor would: no second processor is at hand."""
    from crypto_ml.forecasting.inference import Network

    predict = Network.predict

    def moved(network: Network, windows: Any) -> Any:
        return np.nextafter(predict(network, windows).astype(np.float32), np.float32(9)).astype(np.float64)

    monkeypatch.setattr(Network, "predict", moved)
    found = replay(str(road.report("second")["answer_id"]), road.store)
    assert found.outcome == "EQUAL"
    assert found.ulp is not None
    assert 1 <= found.ulp <= 16
    assert str(found) == f"EQUAL WITHIN {found.ulp} ulp"


def test_a_verdict_is_plain_data(road: Road) -> None:
    found = replay(str(road.report("first")["answer_id"]), road.store)
    assert asdict(found)["outcome"] == "IDENTICAL"
    assert replace(found, note=None) == found
