"""The Dagster UI in a real browser: what a person sees of a deployment that has just answered a file."""

import shutil
import time
from pathlib import Path

import pytest

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore

REPOSITORY = Path(__file__).resolve().parents[1]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.mark.browser
def test_a_person_sees_the_graph_the_answer_and_why_a_file_was_refused(
    store: ObjectStore, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; it shows the UI to this test")
    from playwright.sync_api import expect, sync_playwright

    settings = {"CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
    instance = REPOSITORY / "dagster.yaml"
    with LocalDagster(tmp_path, s3_environment | settings, instance, free_port()) as dagster:
        dagster.wait_until_watching()
        store.replace("uploads/prices.csv", sample_upload())
        store.replace("uploads/bad.csv", b"symbol,date\nBTC,2018-01-01\n")
        deadline = time.monotonic() + 120
        while not all(read_report(f"uploads/{name}.csv", store) for name in ("prices", "bad")):
            assert time.monotonic() < deadline, dagster.log_tail()
            time.sleep(0.2)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            page.goto(f"{dagster.url}/asset-groups")
            for group in ("uploads", "models", "forecasts"):
                expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=30_000)
            page.goto(f"{dagster.url}/assets/predictions?view=overview")
            expect(page.get_by_text("predicted opening price, upload's currency")).to_be_visible(timeout=30_000)
            expect(page.get_by_text("model_version").first).to_be_visible()
            page.goto(f"{dagster.url}/assets/predictions?view=checks")
            expect(page.get_by_text("every_upload_predicted").first).to_be_visible(timeout=30_000)
            browser.close()
