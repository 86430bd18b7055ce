"""crypto-ml drop, against a real store; whole answers are waited for in test_demo."""

import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crypto_ml.cli import main
from crypto_ml.commands.drop import drop, wait_for_answers
from crypto_ml.ledger.reports import Report, write_report
from crypto_ml.storage.objects import ObjectStore


@pytest.fixture
def settings(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that leads to `store`."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "a b.csv"
    path.write_bytes(b"symbol\n")
    return path


def crypto_ml_drop(*words: object) -> Result:
    return CliRunner().invoke(main, ["drop", *map(str, words)])


def report(key: str, etag: str, outcome: str, at: str) -> Report:
    timings = {"answered_at": at}
    upload = {"key": key, "etag": etag}
    said: dict[str, object] = {
        "outcome": outcome,
        "reason": "why",
        "upload": upload,
        "predictions": None,
        "timings": timings,
    }
    said |= {"rows": {"received": 3, "refused": 1, "predicted": 2, "seed": 0}, "notes": ["what\nto know"]}
    return Report({**said, "delivery": "00000001"})


def test_a_file_stands_under_uploads_with_its_name_or_the_one_given(
    settings: None, upload: Path, store: ObjectStore
) -> None:
    done = crypto_ml_drop(upload)
    assert (done.exit_code, done.stdout) == (0, f"{store.uri('uploads/a b.csv')}\n")
    assert store.read("uploads/a b.csv") == upload.read_bytes()
    assert crypto_ml_drop(upload, "--as", "x/y.csv").exit_code == 0
    assert store.read("uploads/x/y.csv") == upload.read_bytes()


@pytest.mark.parametrize("wrong", ["absent.csv", "notes.txt", "other/a b.csv"])
def test_one_file_that_cannot_be_dropped_means_none_is(
    settings: None, upload: Path, store: ObjectStore, wrong: str
) -> None:
    (upload.parent / "other").mkdir()
    (upload.parent / "notes.txt").write_text("notes")
    (upload.parent / "other/a b.csv").write_text("symbol\n")
    done = crypto_ml_drop(upload, upload.parent / wrong)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert Path(wrong).name in done.stderr
    assert list(store.list()) == []


@pytest.mark.parametrize("name", ["../x.csv", "x//y.csv", "/x.csv", "./x.csv", "x\udcff.csv"])
def test_a_name_that_no_object_has_or_other_tools_cannot_reach_is_refused(
    settings: None, upload: Path, store: ObjectStore, name: str
) -> None:
    done = crypto_ml_drop(upload, "--as", name)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "name it with --as" in done.stderr
    assert list(store.list()) == []


def test_one_name_for_several_files_is_wrong_usage(settings: None, upload: Path) -> None:
    assert crypto_ml_drop(upload, upload, "--as", "x.csv").exit_code == 2


def test_no_answer_in_time_sends_to_the_doctor(settings: None, upload: Path) -> None:
    done = crypto_ml_drop(upload, "--wait", "--timeout", "0.2")
    assert done.exit_code == 1
    assert "no answer to uploads/a b.csv" in done.stderr
    assert "crypto-ml doctor" in done.stderr


@pytest.mark.parametrize(("outcome", "code"), [("PREDICTED", 0), ("SKIPPED", 0), ("REJECTED", 1)])
def test_the_exit_code_is_1_where_a_file_is_rejected(
    settings: None, upload: Path, store: ObjectStore, outcome: str, code: int
) -> None:
    key = "uploads/a b.csv"

    def answer() -> None:
        while (found := store.head(key)) is None:
            pass
        write_report(report(key, found.etag, outcome, "now"), store)

    answering = threading.Thread(target=answer)
    answering.start()
    done = crypto_ml_drop(upload, "--wait", "--timeout", "30")
    answering.join()
    assert done.exit_code == code, done.stderr
    assert done.stdout.splitlines()[-1] == f"{key} {outcome} why"
    told = [
        f"note on {key}: what\\nto know",
        f"1 {outcome}; 3 rows received, 1 refused, 2 predicted, 0 with too few earlier rows",
    ]
    assert list(filter(None, done.stderr.splitlines()))[:2] == told


def test_an_answer_to_other_bytes_or_to_an_earlier_drop_is_not_this_ones(upload: Path, store: ObjectStore) -> None:
    first = drop(upload, "uploads/a.csv", store)
    write_report(report(first.key, first.etag, "PREDICTED", "at one"), store)
    again = drop(upload, "uploads/a.csv", store)
    assert wait_for_answers([again], store, 0) == {}
    write_report(report(first.key, "0" * 32, "PREDICTED", "at two"), store)
    assert wait_for_answers([again], store, 0) == {}
    write_report(report(first.key, again.etag, "SKIPPED", "at three"), store)
    assert wait_for_answers([again], store, 0)[first.key].outcome == "SKIPPED"
