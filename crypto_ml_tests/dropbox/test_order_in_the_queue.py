"""The real queue runs a correction before the large file that it corrects, and the correction counts all the same."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from crypto_ml.audit.replay import replay
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.site import Site, until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

EXPORTS = 14
"""So many take several times as long as the sensor may take to notice the correction behind them."""
COINS, DAYS = 60, 1_000


@pytest.fixture
def site(store: ObjectStore, tmp_path: Path, s3_environment: dict[str, str]) -> Iterator[Site]:
    made = Site(store, tmp_path, s3_environment)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def export(seed: int) -> pd.DataFrame:
    """A market that takes a while."""
    return market({f"C{number:03d}": DAYS for number in range(COINS)}, seed)


def test_a_correction_that_overtakes_the_export_it_corrects_is_what_history_says(site: Site) -> None:
    exports = {f"export_{number}.csv.gz": gzip.compress(upload(export(number))) for number in range(EXPORTS)}
    rows = export(EXPORTS)
    rows = rows[rows["symbol"] == "C000"].tail(3)
    correction = upload(rows)
    for name, content in exports.items():
        site.store.replace(f"uploads/{name}", content)
    until(lambda: len(list(site.store.list("receipts/deliveries/"))) == EXPORTS, "the exports were not noticed")
    site.store.replace("uploads/correction.csv", correction)
    answers = {}
    for name in ("correction.csv", *exports):
        report = site.report(name)
        assert report.outcome == "PREDICTED", report.document["reason"]
        answers[name] = read_receipt(str(report.answer_id), site.store)
    urgent, last = answers["correction.csv"], answers[f"export_{EXPORTS - 1}.csv.gz"]
    assert urgent.timings.received_at < last.timings.received_at, "the correction overtook nothing: nothing was tested"
    current = MarketHistory(site.store).current_rows(["date", "open"], symbols=["C000"]).to_pylist()
    opens = {pd.Timestamp(row["date"]): row["open"] for row in current}
    assert {day: opens[day] for day in rows["date"]} == dict(zip(rows["date"], rows["open"], strict=True))
    assert [str(replay(answer.answer_id, site.store)) for answer in (urgent, last)] == ["IDENTICAL", "IDENTICAL"]
