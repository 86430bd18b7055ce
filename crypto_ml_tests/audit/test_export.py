"""An answer's evidence in a folder: checked by scripts that know nothing of crypto_ml, refused where it is altered."""

import csv
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from crypto_ml.audit.export import CannotExport, export
from crypto_ml.audit.offline.check import WrongError, check, check_chain, check_sums, opened
from crypto_ml.audit.references import resolve
from crypto_ml.cli import main
from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.ledger.receipts import sealed
from crypto_ml.settings import Settings
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.stages.witnesses import tell_witnesses
from crypto_ml.storage.objects import connect
from crypto_ml_tests.forecasting.markets import market, model, relative_model
from crypto_ml_tests.stages.asking import ask, in_json, records
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import Road, upload

ALONE = """
import runpy, sys
for folder in sys.argv[1:]:
    print(folder)
    sys.argv = [folder + "/check.py"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("exit", end.code)
print([name for name in sys.modules if name.partition(".")[0] in ("crypto_ml", "pyarrow", "pandas", "boto3")])
"""


@dataclass
class Site:
    """A deployment that answered files, a request, and made a forecast; what was exported of it, by what it is."""

    road: Road
    witness: Path
    settings: Settings
    folders: dict[str, Path]


def answered(directory: Path, road: Road) -> Site:
    rows = market({"BTC": 60, "NEW": 75, "ETH": 40})
    early, late = rows[rows["date"] < "2018-02-25"], rows[rows["date"] >= "2018-02-25"]
    road.drop(first=upload(early), other=upload(market({"ABC": 3})))
    road.answer_new()
    road.drop(late=upload(late) + b"BTC,2018-02-01,-1,1,1,1,1\n")
    road.answer_new()
    (reply,) = ask(road, records(in_json(rows[rows["date"] >= "2018-03-10"])))
    forecast_now(road)
    witness = directory / "heads.jsonl"
    chosen = Settings(witnesses=SecretStr(f"file://{witness}"))
    now = datetime.now(UTC)
    head = extend(road.store, now).head
    assert head
    tell_witnesses(head, road.store, chosen, now)
    references = {
        "first": "predictions/first_preds.csv",
        "late": str(road.predictions("late")["prediction_id"].iloc[-1]),
        "request": reply.answer_id,
        "forecast": "forecasts/latest.csv",
    }
    folders = {}
    for name, reference in references.items():
        folders[name] = directory / name
        export(resolve(reference, road.store), road.store, chosen, folders[name], now)
    return Site(road, witness, chosen, folders)


@pytest.fixture(scope="module")
def site(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    road = Road(connect(bucket, f"tests/{uuid4().hex}"), bundle=relative_model(), now=datetime.now(UTC))
    return answered(tmp_path_factory.mktemp("exported"), road)


@contextmanager
def altered(folder: Path, name: str, change: Callable[[bytes], bytes], *, summed: bool = False) -> Iterator[None]:
    """A file of a folder with other bytes; summed: and SHA256SUMS made anew for it."""
    path, sums = folder / name, folder / "SHA256SUMS"
    before = path.read_bytes(), sums.read_bytes()
    try:
        path.write_bytes(change(before[0]))
        if summed:
            sum_up(folder)
        yield
    finally:
        path.write_bytes(before[0])
        sums.write_bytes(before[1])


def sum_up(folder: Path) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = [f"{sha256_of_file(folder / name)}  {name}\n" for name in names if name != "SHA256SUMS"]
    (folder / "SHA256SUMS").write_text("".join(sums))


def flipped(content: bytes, at: int, bits: int = 1) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def test_python_alone_checks_a_folder_and_computes_every_number_again_to_the_last_bit(site: Site) -> None:
    command = [sys.executable, "-I", "-c", ALONE, *map(str, site.folders.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *said, modules = done.stdout.splitlines()
    assert modules == "[]"
    assert [line for line in said if line.startswith(("exit", "REFUSED"))] == ["exit 0"] * 4, done.stdout
    assert sum(line.endswith("come out again to the last bit") for line in said) == 4
    assert sum("prices of" in line for line in said) == 3
    row = site.road.predictions("late").iloc[-1]
    assert any(line.endswith(f"pred_open {float(row['pred_open'])!r} (predicted)") for line in said)
    assert sum("witness/1.jsonl says that it was told of link 1" in line for line in said) == 4
    assert not list(site.folders["late"].rglob("__pycache__"))


def test_models_that_scale_each_series_come_out_again_with_the_sums_of_their_first_rows(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = connect(bucket, f"tests/{uuid4().hex}")
    road = Road(place, bundle=model("gap"), settings=Settings(recovery="cumulative"), now=datetime.now(UTC))
    site = answered(tmp_path, road)
    assert (site.folders["late"] / "made_from/states.csv").exists()
    for folder in site.folders.values():
        check(folder)
    assert capsys.readouterr().out.count("come out again to the last bit") == 4


@given(data=st.data())
@settings(max_examples=60)
def test_each_altered_byte_of_each_file_is_named(site: Site, data: st.DataObject) -> None:
    folder = site.folders[data.draw(st.sampled_from(sorted(site.folders)))]
    name = data.draw(st.sampled_from(sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*.*"))))
    at = data.draw(st.integers(0, (folder / name).stat().st_size - 1))
    changed = altered(folder, name, lambda content: flipped(content, at, data.draw(st.integers(1, 255))))
    with changed, pytest.raises(WrongError, match=name.replace(".", r"\.")):
        check(folder, hashes_only=True)


def test_files_that_are_gone_or_added_are_named(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(site.folders["first"], folder)
    (folder / "evidence/more.json").write_text("{}")
    (folder / "made_from/rows.csv").unlink()
    with pytest.raises(WrongError, match=r"made_from/rows\.csv is gone; evidence/more\.json was not exported"):
        check(folder)
    changed = altered(folder, "SHA256SUMS", lambda content: content.upper())
    with changed, pytest.raises(WrongError, match="line 1 of SHA256SUMS was altered"):
        check(folder)


@pytest.mark.parametrize("what", ["first", "late", "request", "forecast"])
def test_what_is_altered_and_summed_up_anew_does_not_follow_from_the_rest(site: Site, what: str) -> None:
    folder = site.folders[what]
    names = [one.relative_to(folder).as_posix() for one in sorted(folder.rglob("*.*")) if one.is_file()]
    own = ("check.py", "compute.py", "README.md", "answer.json")
    for name in [name for name in names if name not in own]:
        content = (folder / name).read_bytes()
        # of rows and heads some digit, and not what divides one from the other
        places = [at for at, byte in enumerate(content) if not name.endswith((".csv", ".jsonl")) or 48 <= byte <= 57]
        for at in (places[len(places) // 3], places[len(places) // 2]):
            changed = altered(folder, name, lambda content, at=at: flipped(content, at), summed=True)  # type: ignore[misc]
            with changed, pytest.raises(WrongError):
                check(folder, hashes_only=True)
                pytest.fail(f"{name} at {at}")


def test_a_number_that_nobody_computed_is_refused_although_every_hash_follows(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "forged"
    shutil.copytree(site.folders["late"], folder)
    shutil.rmtree(folder / "witness")
    rows = list(csv.reader(io.StringIO((folder / "published/predictions.csv").read_text())))
    rows[-1][3] = repr(float(rows[-1][3]) * 1.01)
    forged = "\n".join(",".join(row) for row in rows).encode() + b"\n"
    (folder / "published/predictions.csv").write_bytes(forged)
    receipt = json.loads((folder / "evidence/receipt.json").read_text())
    receipt["published"]["predictions"]["sha256"] = sha256_of(forged)
    resealed = json.dumps(sealed(receipt)).encode()
    (folder / "evidence/receipt.json").write_bytes(resealed)
    link = json.loads((folder / "chain/00000001.json").read_text())
    for record in link["records"]:
        if record["key"] == f"receipts/answers/{receipt['answer_id']}.json":
            record["sha256"] = sha256_of(resealed)
    (folder / "chain/00000001.json").write_text(json.dumps(link))
    sum_up(folder)
    assert "ask a witness" in check(folder, hashes_only=True)
    with pytest.raises(WrongError, match=r"predictions\.csv says pred_open .* comes out"):
        check(folder)
    with pytest.raises(WrongError, match="another link 1 than the folder has: the chain was made anew"):
        check(folder, hashes_only=True, witness=site.witness)


def test_a_witness_that_was_asked_by_whoever_checks_decides(site: Site, tmp_path: Path) -> None:
    assert "which your witness was told of" in check(site.folders["first"], hashes_only=True, witness=site.witness)
    (tmp_path / "none.jsonl").write_bytes(b"")
    with pytest.raises(WrongError, match="was told of no link from 1 to 1"):
        check(site.folders["first"], hashes_only=True, witness=tmp_path / "none.jsonl")


def test_what_was_replaced_or_changed_since_is_exported_as_it_was_published(site: Site, tmp_path: Path) -> None:
    store, folder = site.road.store, tmp_path / "replaced"
    before = store.read("predictions/first_preds.csv")
    try:
        store.replace("predictions/first_preds.csv", b"other")
        found = export(resolve("predictions/first_preds.csv", store), store, site.settings, folder, datetime.now(UTC))
    finally:
        store.replace("predictions/first_preds.csv", before)
    assert (folder / "published/predictions.csv").read_bytes() == before
    assert any("predictions.csv was computed again" in note for note in found.notes)
    check(folder, hashes_only=True)


def test_an_answer_that_no_link_names_yet_is_exported_and_nobody_is_told_more(site: Site, tmp_path: Path) -> None:
    site.road.drop(bad=b"not,a,market\n", soon=upload(market({"BTC": 4})))
    site.road.answer_new()
    store = site.road.store
    for name in ("bad", "soon"):
        found = export(resolve(f"uploads/{name}.csv", store), store, Settings(), tmp_path / name, datetime.now(UTC))
        assert found.links is None
        assert "nothing says since when it is so" in check(tmp_path / name)
    assert not (tmp_path / "bad/made_from").exists()
    with pytest.raises(WrongError, match="no link is in the folder"):
        check(tmp_path / "soon", hashes_only=True, witness=site.witness)


def test_the_command_makes_a_folder_and_writes_into_none_that_has_something(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = site.road.store
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    named = ["predictions/first_preds.csv", "--symbol", "BTC", "--date", "2018-02-01"]
    done = CliRunner().invoke(main, ["export", *named, "-o", str(tmp_path / "it"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["scripts"]["check.py"] == sha256_of_file(tmp_path / "it/check.py")
    assert json.loads((tmp_path / "it/answer.json").read_text())["row"] == {"symbol": "BTC", "date": "2018-02-01"}
    assert "# Evidence of 00000001-" in (tmp_path / "it/README.md").read_text()
    again = CliRunner().invoke(main, ["export", *named, "-o", str(tmp_path / "it")])
    assert (again.exit_code, "name a folder that is not, or an empty one" in again.output) == (1, True)
    with pytest.raises(CannotExport):
        reference = resolve(named[0], store, symbol="BTC", day=date(2018, 2, 1))
        export(reference, store, Settings(), tmp_path / "it", datetime.now(UTC))


@pytest.mark.parametrize("excuse", ["open", "taken_in"])
def test_no_link_in_a_folder_excuses_a_change_or_begins_the_chain_again(tmp_path: Path, excuse: str) -> None:
    record: dict[str, object] = {
        "key": "receipts/answers/1.json",
        "sha256": "0",
        "written": "2026-01-01T00:00:00+00:00",
    }
    first = {"number": 1, "format": 1, "previous": None, "at": "2026-01-01", "complete": True, "records": [record]}
    record |= {"open": excuse == "open"}
    (tmp_path / "chain").mkdir()
    content = json.dumps(first).encode()
    other = {**record, "sha256": "1" if excuse == "open" else "0"}
    second = {
        **first,
        "number": 2,
        "previous": sha256_of(content),
        "records": [other],
        "taken_in": excuse == "taken_in",
    }
    for number, link in ((1, content), (2, json.dumps(second).encode())):
        (tmp_path / f"chain/{number:08d}.json").write_bytes(link)
    with pytest.raises(
        WrongError, match="was changed between link 1 and link 2" if excuse == "open" else "began before"
    ):
        check_chain(tmp_path)


def test_what_is_only_hashed_is_not_read_into_memory(tmp_path: Path) -> None:
    size = 24 << 20
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    said = {"format": 1, "kind": "file", "objects": [{"key": "raw/uploads/large", "file": "large"}]}
    (tmp_path / "answer.json").write_text(json.dumps(said))
    sum_up(tmp_path)
    tracemalloc.start()
    try:
        opened(tmp_path, check_sums(tmp_path)).vouch("raw/uploads/large", sha256_of_file(tmp_path / "large"), "a test")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size / 4
