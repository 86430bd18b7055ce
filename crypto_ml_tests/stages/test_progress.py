"""Long work says how far it is: often enough to be believed, seldom enough to be read."""

import gzip
import logging
from datetime import date
from pathlib import Path

import pytest

from crypto_ml.forecasting.file_scoring import score_file
from crypto_ml.forecasting.intake import IntakeRules
from crypto_ml.forecasting.progress import Progress
from crypto_ml.sample import sample_upload
from crypto_ml.stages.progress import SECONDS_BETWEEN_LINES, in_words, logged
from crypto_ml_tests.forecasting.markets import model

log = logging.getLogger(__name__)


def test_a_line_comes_every_few_seconds_however_often_it_is_told_and_none_for_what_is_over_sooner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    tell = logged(log, "delivery 00000007", lambda: now)
    with caplog.at_level(logging.INFO):
        for step in range(101):
            now = step / 10
            tell(Progress("scoring", 50 * step, 10_000, "rows"))
    assert [record.getMessage() for record in caplog.records] == [
        f"delivery 00000007: scoring: {at * 500:,.0f} of 10,000 rows, {20 - at:.0f} s left"
        for at in (SECONDS_BETWEEN_LINES, 2 * SECONDS_BETWEEN_LINES)
    ]


@pytest.mark.parametrize(
    ("progress", "seconds", "words"),
    [
        (Progress("reading", 30_000_000, 90_000_000, "bytes"), 60, "reading: 30.0 of 90.0 MB, 2.0 minutes left"),
        (Progress("scoring", 1_000, None, "rows"), 60, "scoring: 1,000 rows"),
        (Progress("training", 1, 1, "batches", "epoch 1"), 9, "training: 1 of 1 batches, epoch 1, 0 s left"),
        (Progress("reading", 0, 0, "bytes"), 0, "reading: 0.0 MB"),
    ],
)
def test_what_is_known_is_said(progress: Progress, seconds: float, words: str) -> None:
    assert in_words(progress, seconds) == words


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_told_from_its_first_bytes_to_its_last_row(tmp_path: Path, *, packed: bool) -> None:
    upload = tmp_path / ("a.csv.gz" if packed else "a.csv")
    upload.write_bytes(gzip.compress(sample_upload()) if packed else sample_upload())
    told: list[Progress] = []
    done = score_file(
        upload, tmp_path / "out.csv", model("gap"), "one_step", IntakeRules(date(2024, 1, 1)), tell=told.append
    )
    reading = [one for one in told if one.what == "reading"]
    scoring = [one for one in told if one.what == "scoring"]
    assert told == reading + scoring
    assert reading[-1].done == reading[-1].total == upload.stat().st_size
    assert scoring[-1].done == scoring[-1].total == done.accepted
    for one in (reading, scoring):
        assert [progress.done for progress in one] == sorted(progress.done for progress in one)
