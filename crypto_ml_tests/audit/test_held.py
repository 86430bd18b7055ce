"""A trace says of each line by what it is held, and shows nothing that was altered as true."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from crypto_ml.audit import held
from crypto_ml.cli import main
from crypto_ml_tests.audit.verified_site import Site
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload


def traced(site: Site, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["trace", *arguments])


@pytest.fixture
def named(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What names a row of the third upload for the command, which is led to the site."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", site.store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", site.store.prefix)
    return [str(site.road.predictions("third")["prediction_id"].iloc[0])]


def marked(done: Result) -> dict[str, set[str]]:
    """By what the lines of a trace are held, by the first word of each."""
    marks: dict[str, set[str]] = {}
    for line in done.stdout.partition("\n\n")[0].splitlines():
        marks.setdefault(line[9:].split()[0], set()).add(line[:9].strip())
    return marks


def test_every_line_of_a_trace_says_what_holds_it(site: Site, named: list[str]) -> None:
    done = traced(site, *named)
    assert done.exit_code == 0, done.output
    assert {mark for marks in marked(done).values() for mark in marks} == {"chain"}
    assert "the hash of the rows it was made from" in done.stdout
    site.road.drop(fresh=upload(market({"BTC": 3})))
    site.road.answer_new()
    fresh = traced(site, "predictions/fresh_preds.csv")
    assert fresh.exit_code == 0, fresh.output
    assert {key: marked(fresh)[key] for key in ("answer", "model", "approval")} == {
        "answer": {"nothing"}, "model": {"receipt"}, "approval": {"chain"},
    }  # fmt: skip


def test_a_trace_shows_no_backdated_answer_other_image_or_run_as_true(site: Site, named: list[str]) -> None:
    def change(document: dict) -> None:  # type: ignore[type-arg]
        document["timings"]["answered_at"] = "2025-01-01T00:00:00+00:00"
        if "software" in document:
            document["run_id"], document["software"]["image"] = "another", "another"

    site.edit(site.receipt("third"), change)
    site.edit("predictions/third_report.json", change)
    done = traced(site, *named)
    assert done.exit_code == 1
    marks = marked(done)
    assert [marks[word] for word in ("answer", "delivery", "image", "run")] == [{"ALTERED"}] * 4
    assert marks["kept"] == {"nothing"}
    assert "link 4 of " in done.stderr


def test_a_trace_shows_no_other_approver_as_true(site: Site, named: list[str]) -> None:
    pointer, receipt = "models/champion/dev/00000002.json", site.receipt("third")
    site.edit(pointer, lambda document: document.update(by="eve"))
    site.edit(receipt, lambda document: document["champion"].update(by="eve"))
    done = traced(site, *named)
    assert done.exit_code == 1
    assert marked(done)["approval"] == {"ALTERED"}
    site.edit(site.receipt("third"), lambda document: document["champion"].update(by="ann"))
    assert "approval" in json.loads(traced(site, *named, "--json").stdout.partition("\nError")[0])["verified"]


def test_a_trace_takes_no_later_link_for_the_first_that_named_a_record(
    site: Site, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LATE", timedelta(0))  # as if an hour had passed
    site.edit(site.receipt("third"), lambda said: said["timings"].update(answered_at=datetime.now(UTC).isoformat()))
    site.extend()
    done = traced(site, *named)
    assert done.exit_code == 1
    assert marked(done)["answer"] == {"ALTERED"}
    assert "link 4 of " in done.stderr


@pytest.mark.parametrize("what", ["accepted", "history", "upload", "predictions"])
def test_a_trace_shows_no_altered_rows_bytes_or_numbers_as_true(site: Site, named: list[str], what: str) -> None:
    receipt = site.store.read_json(site.receipt("third"))
    if what == "accepted":
        # the rows of another delivery, well-formed and other numbers
        other = site.store.read_json(site.receipt("second"))["evidence"]["accepted"]["key"]
        key, content = receipt["evidence"]["accepted"]["key"], site.store.read(other)
    elif what == "history":
        record = next(found.key for found in site.store.list("raw/appends/00000001-"))
        key = next(iter(site.store.read_json(record)["objects"]))
        content = site.store.read(key) + b" "
    elif what == "upload":
        key = f"raw/uploads/{receipt['inputs']['upload_sha256']}"
        content = site.store.read(key).replace(b"1", b"2")
    else:
        key = "predictions/third_preds.csv"
        content = site.store.read(key).replace(b"predicted", b"Predicted")
    site.store.replace(key, content)
    done = traced(site, *named)
    assert done.exit_code == 1
    assert ("ALTERED" in done.output and key in done.output) or "it may have been refused" in done.output
