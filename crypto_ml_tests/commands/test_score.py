"""`crypto-ml score` as a person uses it: what it prints, with which code it ends, what it leaves behind."""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from click.testing import CliRunner, Result

from crypto_ml.cli import DEBUG, main
from crypto_ml.forecasting.answers import PREDICTIONS_READ
from crypto_ml.forecasting.refusals import LISTED
from crypto_ml.forecasting.scaled_by import OWN_SCALED_NAMED
from crypto_ml.forecasting.simulation import simulate_market
from crypto_ml.ledger.registry import Registry
from crypto_ml.model_out import first_bundle
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import model


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    path.write_bytes(sample_upload())
    return path


@pytest.fixture(autouse=True)
def no_room_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)


SCORE: list[str | Path] = [Path(sys.executable).with_name("crypto-ml"), "score"]


def score(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_accepted_row_is_answered_once_without_a_store(upload: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    command = [*SCORE, upload, "-o", out, "--json"]
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "PYTHONPROFILEIMPORTTIME": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(re.findall(r"^import time:.*\| +(\S+)$", result.stderr, re.MULTILINE))
    assert "numpy" in loaded
    assert not loaded & {"pandas.core", "dagster", "boto3", "deltalake", "rich", "sklearn", "tensorflow"}
    answered, given = rows_of(out), rows_of(upload)
    assert [(row["symbol"], row["date"]) for row in answered] == sorted((row["symbol"], row["date"]) for row in given)
    assert list(answered[0]) == PREDICTIONS_READ.names
    counts = json.loads(result.stdout)
    assert counts["received"] == counts["accepted"] == counts["predicted"] + counts["seed"] == len(given)
    assert set(tmp_path.iterdir()) == {upload, out}


def test_the_same_bytes_come_out_however_the_rows_are_cut_and_with_one_thread(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for recovery in ("one_step", "cumulative"):
        assert score(upload, "-o", tmp_path / recovery, "--recovery", recovery).exit_code == 0
    monkeypatch.setattr("crypto_ml.forecasting.file_scoring.PART_ROWS", 30)
    monkeypatch.setattr("crypto_ml.forecasting.file_scoring.THREADS", 1)
    for recovery in ("one_step", "cumulative"):
        assert score(upload, "-o", tmp_path / "again", "--recovery", recovery).exit_code == 0
        assert (tmp_path / "again").read_bytes() == (tmp_path / recovery).read_bytes()


def test_the_summary_goes_to_standard_error_and_the_data_to_standard_output(upload: Path, tmp_path: Path) -> None:
    silent = score(upload, "-o", tmp_path / "out.csv")
    assert silent.stdout == ""
    assert "1,000 rows received, 0 refused, 0 repeated" in silent.stderr
    assert "rows/s" in silent.stderr
    assert json.loads(score(upload, "-o", tmp_path / "out.csv", "--json").stdout)["refused"] == 0


def test_a_folder_and_a_version_name_the_same_model(upload: Path, tmp_path: Path, store: ObjectStore) -> None:
    bundle = first_bundle()
    bundle.write(tmp_path / "bundle")
    registry = Registry(store)
    registry.add(bundle)
    where = {"CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in where.items():
            patch.setenv(name, value)
        for name, model in (("folder", tmp_path / "bundle"), ("version", bundle.version)):
            assert score(upload, "-o", tmp_path / name, "--model", model).exit_code == 0
    assert score(upload, "-o", tmp_path / "default").exit_code == 0
    assert len({(tmp_path / name).read_bytes() for name in ("folder", "version", "default")}) == 1


def test_the_two_recoveries_give_other_numbers(upload: Path, tmp_path: Path) -> None:
    for name in ("one_step", "cumulative"):
        assert score(upload, "-o", tmp_path / name, "--recovery", name).exit_code == 0
    one_step, cumulative = (rows_of(tmp_path / name) for name in ("one_step", "cumulative"))
    assert [row["pred_open"] for row in one_step] != [row["pred_open"] for row in cumulative]
    assert [row["val_open"] for row in one_step] == [row["val_open"] for row in cumulative]


def test_refused_rows_go_beside_the_predictions_with_line_and_reason(upload: Path, tmp_path: Path) -> None:
    with upload.open("a") as file:
        file.write("SIM001,x,y,2023-01-01,-1,2,1,1,0,5\n")
    result = score(upload, "-o", tmp_path / "out.csv")
    assert result.exit_code == 0
    (refused,) = rows_of(tmp_path / "out_rejected_rows.csv")
    assert (refused["line"], refused["reason"]) == ("1002", "open: not positive")


def test_of_very_many_refused_rows_the_first_are_listed_and_the_summary_says_so(upload: Path, tmp_path: Path) -> None:
    with upload.open("a") as file:
        file.write("SIM001,x,y,2023-01-01,-1,2,1,1,0,5\n" * (LISTED + 5))
    result = score(upload, "-o", tmp_path / "out.csv", "--json")
    assert result.exit_code == 0
    assert "10,005 refused" in result.stderr
    assert "(10,000 of 10,005 refused rows are listed)" in result.stderr
    counts = json.loads(result.stdout)
    assert (counts["refused"], counts["listed"]) == (LISTED + 5, LISTED)
    assert [int(row["line"]) for row in rows_of(tmp_path / "out_rejected_rows.csv")] == list(range(1002, 1002 + LISTED))


@pytest.mark.parametrize("content", [b"", b"symbol,date\nBTC,2018-01-01\n", b"\x00\xff\x00garbage"])
def test_a_rejected_file_ends_with_one_line_and_leaves_the_old_output(tmp_path: Path, content: bytes) -> None:
    bad, out = tmp_path / "bad.csv", tmp_path / "out.csv"
    bad.write_bytes(content)
    out.write_text("before")
    result = score(bad, "-o", out)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert out.read_text() == "before"
    assert set(tmp_path.iterdir()) == {bad, out}


def test_the_file_to_be_scored_is_never_replaced(upload: Path) -> None:
    result = score(upload, "-o", upload)
    assert result.exit_code == 1
    assert upload.read_bytes() == sample_upload()


def test_wrong_usage_ends_with_two(upload: Path, tmp_path: Path) -> None:
    assert score().exit_code == 2
    assert score(tmp_path / "absent.csv", "-o", tmp_path / "out.csv").exit_code == 2
    assert score(upload, "-o", tmp_path / "out.csv", "--recovery", "guess").exit_code == 2


def test_a_missing_first_model_says_what_to_do(upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTO_ML_MODEL_OUT", str(tmp_path / "nowhere"))
    result = score(upload, "-o", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert "make model" in result.stderr


# in a process of its own: this one may be busy looking for garbage just while the other writes
TOLD_TO_END = """
import glob, subprocess, sys, time
_, begun, *command = sys.argv
process = subprocess.Popen(command)
while process.poll() is None and not glob.glob(begun, include_hidden=True):
    time.sleep(0.005)
print("begun" if process.poll() is None else "over", end=", ")
process.terminate()
print("ended with", process.wait())
"""


def test_told_to_end_it_leaves_the_old_output_and_nothing_else(tmp_path: Path) -> None:
    upload, out = tmp_path / "long.csv", tmp_path / "out.csv"
    market = pa.Table.from_pandas(simulate_market(600, 2_000, 7, date(2015, 1, 1)), preserve_index=False)
    pa_csv.write_csv(market, upload)  # seconds of work, so that it is interrupted before it ends
    out.write_text("before")
    command = [sys.executable, "-c", TOLD_TO_END, tmp_path / ".out.csv.*.part", *SCORE, upload, "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "begun, ended with 1\n"
    assert done.stderr.strip() == "Aborted!"
    assert out.read_text() == "before"
    assert set(tmp_path.iterdir()) == {upload, out}


def test_an_output_that_is_no_file_is_refused(upload: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for out in ("/dev/null", tmp_path / "pipe", tmp_path):
        result = score(upload, "-o", out)
        assert result.exit_code == 1
        assert "is no ordinary file" in result.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_the_unexpected_is_one_line_too_and_a_traceback_where_asked_for(
    upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(tempfile, "mkdtemp", broken)
    result = score(upload, "-o", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert DEBUG in result.stderr
    monkeypatch.setenv(DEBUG, "1")
    assert isinstance(score(upload, "-o", tmp_path / "out.csv").exception, ZeroDivisionError)


def test_a_pipe_is_scored_once_it_is_read_and_standard_output_is_no_file(upload: Path, tmp_path: Path) -> None:
    pipe, out = tmp_path / "pipe.csv", tmp_path / "out.csv"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["cp", "--", str(upload), str(pipe)])
    try:
        result = score(pipe, "-o", out)
    finally:
        writer.kill()
        writer.wait()
    assert result.exit_code == 0, result.stderr
    assert len(rows_of(out)) == len(rows_of(upload))
    result = score(upload, "-o", "-")
    assert (result.exit_code, "not to standard output" in result.stderr) == (1, True)
    assert not Path("-").exists()


def test_standard_input_is_scored_as_the_file_would_be(upload: Path, tmp_path: Path) -> None:
    assert score(upload, "-o", tmp_path / "file.csv").exit_code == 0
    words = ["score", "-", "-o", str(tmp_path / "stdin.csv")]
    done = CliRunner().invoke(main, words, input=upload.read_bytes())
    assert done.exit_code == 0
    assert "1,000 rows received, 0 refused" in done.stderr.splitlines()[-1]
    assert (tmp_path / "stdin.csv").read_bytes() == (tmp_path / "file.csv").read_bytes()
    nameless = CliRunner().invoke(main, words, input=b"date,open,high,low,close\n2018-03-01,10,12,9,11\n")
    assert (
        "Error: standard input is rejected: the header has the required column symbol missing; add" in nameless.stderr
    )


def test_the_name_of_the_file_and_of_its_columns_are_used_and_what_was_made_of_them_is_told(tmp_path: Path) -> None:
    path = tmp_path / "BTC-USD.csv"
    path.write_text("Date;Apertura;High;Low;Close\n25.03.2018;10,5;12;9;11\n")
    result = score(path, "-o", tmp_path / "out.csv", "--columns", "open=Apertura", "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = rows_of(tmp_path / "out.csv")
    assert (row["symbol"], row["date"], row["val_open"]) == ("BTC", "2018-03-25", "10.5")
    told = result.stderr.splitlines()
    assert told[0].startswith("read as CSV in UTF-8, semicolons between values; a decimal comma; dates as d.m.yyyy")
    assert told[1] == "note: no column says the symbol: every row is BTC, by the name of the file"
    assert json.loads(result.stdout)["read_as"]["symbol"] == "BTC"
    assert score(path, "-o", tmp_path / "out.csv", "--columns", "Apertura").exit_code == 2


def test_series_that_the_model_does_not_scale_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    days = [f"2018-03-{day:02}" for day in range(1, 13)]
    names = [f"OWN{number:02}" for number in range(OWN_SCALED_NAMED + 3)]
    lines = [f"{name},{day},10,12,9,11,1000" for name in names for day in days]
    path.write_text("\n".join(["symbol,date,open,high,low,close,market", *lines]))
    model("gap").write(tmp_path / "model")
    result = score(path, "-o", tmp_path / "out.csv", "--model", tmp_path / "model")
    assert f"note: {', '.join(names[:OWN_SCALED_NAMED])} and 3 more: not known to the model's scaler" in result.stderr
