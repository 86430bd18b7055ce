"""What a command prints for people is as many lines as it means to print, whatever is in keys, reasons and names."""

import ast
import json
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.cli import main
from crypto_ml.commands.drop import _show
from crypto_ml.commands.printing import in_rich, say
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import UNSEEN, visible
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.road import Road, upload

PACKAGE = Path(__file__).resolve().parents[2] / "crypto_ml"
EVIL = "a\nFORGED line\r\x1b[2K\x9b31m\u202e\u2066\u200f\u2028é😀"
TOLD = r"a\nFORGED line\r\x1b[2K\x9b31m\u202e\u2066\u200f\u2028é😀"


@pytest.fixture
def road(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Road:
    """An answered upload with an evil key, corrected under the same key, and another that waits."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", store.prefix)
    made = Road(store)
    for seed in (1, 2):
        made.put({f"{EVIL}.csv": upload(market({"BTC": 12}, seed=seed))})
        made.answer_new()
    return made


def printed(*words: str) -> list[str]:
    """The lines a command prints, of which none may be forged and none may steer a terminal."""
    done = CliRunner().invoke(main, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit)
    text = done.stdout + done.stderr
    assert {character for character in text if unicodedata.category(character) in UNSEEN} <= {"\n"}
    lines = text.split("\n")
    assert not [line for line in lines if line.startswith("FORGED")]
    return lines


def answer_of(road: Road) -> str:
    report = read_report(f"uploads/{EVIL}.csv", road.store)
    assert report is not None
    return str(report.document["answer_id"])


def test_trace_and_corrections_and_replay_show_an_evil_key_on_one_line(road: Road) -> None:
    answer = answer_of(road)
    assert any(" upload " in line and TOLD in line for line in printed("trace", answer))
    assert printed("corrections", answer)[0].startswith(f"uploads/{TOLD}.csv corrected 1")
    assert printed("replay", answer)[0] == "IDENTICAL"
    assert "no report" in printed("trace", f"uploads/{EVIL}gone.csv")[0]


def test_doctor_names_an_evil_key_that_waits_on_one_line(road: Road) -> None:
    road.put({f"{EVIL}2.csv": b"x"})
    assert any(
        line.startswith(f"✓ uploads: 1 unanswered, the oldest uploads/{TOLD}2.csv") for line in printed("doctor")
    )


def test_models_and_promotions_show_who_and_why_on_one_line(road: Road) -> None:
    road.registry.add(model("change", label="other"))
    version = model("change", label="other").version
    assert printed("promote", version, "--by", EVIL, "--why", EVIL, "--override", EVIL)[0].startswith(
        f"{version} serves"
    )
    for said in (printed("models", "--history"), printed("models")):
        assert any(f"by {TOLD} (run as " in line and f"): {TOLD}" in line for line in said)
    assert any(f"by {TOLD}" in line for line in printed("doctor"))
    entries = json.loads(CliRunner().invoke(main, ["models", "--history", "--json"]).stdout)
    assert entries[-1]["by"] == EVIL


def test_drop_shows_an_evil_key_and_reason_on_one_line(road: Road, capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(f"uploads/{EVIL}.csv", road.store)
    assert report is not None
    _show(report, road.store)
    assert capsys.readouterr().out.startswith(f"uploads/{TOLD}.csv PREDICTED ")
    path = Path(str(road.store.prefix).replace("/", "_")).with_suffix(".csv")
    assert "there is no file" in printed("drop", str(path), "--as", f"{EVIL}.csv")[0]


def test_square_brackets_are_no_markup() -> None:
    from rich.console import Console

    console = Console(record=True, width=200)
    console.print(in_rich("uploads/[red]x[/red]\n.csv"))
    assert console.export_text().strip() == r"uploads/[red]x[/red]\n.csv"


@given(text=st.text())
def test_any_text_is_said_as_one_line_and_seen_whole(text: str) -> None:
    said = visible(text)
    assert not {character for character in said if unicodedata.category(character) in UNSEEN}
    assert len(said.splitlines()) <= 1
    assert said == text or any(unicodedata.category(character) in UNSEEN for character in text)


def test_half_a_character_is_spelled_out_instead_of_ending_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    say("\ud800")
    assert capsys.readouterr().out == "\\ud800\n"


def test_nothing_is_printed_past_the_one_place_that_prints() -> None:
    def prints(path: Path) -> bool:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        return any(ast.unparse(call) in ("click.echo", "click.secho", "print") for call in calls)

    printing = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if prints(path)}
    # what is exported beside an answer is a script by itself, with a place of its own that prints
    assert printing == {"commands/printing.py", "cli.py", "audit/offline/check.py"}
