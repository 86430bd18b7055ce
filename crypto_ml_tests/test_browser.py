"""The Dagster UI in a real browser: what a person sees of a deployment that has just answered a file."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.layout import ANSWERED
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible
from crypto_ml_tests.dropbox.site import until

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
        for name, content in (("prices", sample_upload()), ("bad", b"symbol,date\nBTC,2018-01-01\n")):
            store.replace(f"uploads/{name}.csv", content)
            until(partial(read_report, f"uploads/{name}.csv", store), f"no answer to {name}.csv")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            page.goto(f"{dagster.url}/asset-groups")
            for group in ("uploads", "models", "forecasts"):
                expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=30_000)
            page.goto(f"{dagster.url}/assets/predictions?view=overview")
            expect(page.get_by_text("predicted opening price, upload's currency")).to_be_visible(timeout=30_000)
            expect(page.get_by_text("model_version").first).to_be_visible()
            page.goto(f"{dagster.url}/assets/predictions?view=partitions&partition=00000001")
            chart = page.locator("img[src^='data:image/svg+xml']").first
            expect(chart).to_be_visible(timeout=30_000)
            assert chart.evaluate("picture => picture.naturalWidth") > 100
            expect(page.get_by_text("predicted (blue) and observed (grey) open").first).to_be_visible()
            expect(page.get_by_role("cell", name="prices.csv", exact=True)).to_be_visible()
            page.goto(f"{dagster.url}/assets/predictions?view=checks&checkDetail=every_upload_predicted")
            expect(page.get_by_text("1 of 1 file refused: bad.csv: the header has").first).to_be_visible(timeout=30_000)
            expect(page.get_by_text("00000002").first).to_be_visible()
            page.goto(f"{dagster.url}/runs")
            expect(page.get_by_text("crypto_ml/files: bad.csv").first).to_be_visible(timeout=30_000)
            browser.close()


class Pictures(ThreadingHTTPServer):
    """A server somewhere else, which remembers what it was asked for."""

    asked: list[str]


class _Picture(BaseHTTPRequestHandler):
    server: Pictures

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[Pictures]:
    with Pictures(("127.0.0.1", 0), _Picture) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.browser
def test_a_key_that_spells_markdown_fetches_no_picture_and_forges_no_row(
    store: ObjectStore, s3_environment: dict[str, str], tmp_path: Path, elsewhere: Pictures
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; it shows the UI to this test")
    from playwright.sync_api import expect, sync_playwright

    address = f"http://127.0.0.1:{elsewhere.server_port}"
    keys = [f"uploads/![x]({address}/i.png).csv", "uploads/a\n| forged | row |\n.csv", "uploads/<b>bold</b>.csv"]
    settings = {"CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
    with LocalDagster(tmp_path, s3_environment | settings, REPOSITORY / "dagster.yaml", free_port()) as dagster:
        dagster.wait_until_watching()
        for key in keys:
            store.replace(key, b"symbol,date\nBTC,2018-01-01\n")
        until(lambda: all(read_report(key, store) for key in keys), "no report on every key")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page = browser.new_page(viewport={"width": 1500, "height": 2000})
            requested: list[str] = []
            page.on("request", lambda request: requested.append(request.url))
            cells: list[str] = []
            for answered in store.list(ANSWERED):
                delivery = answered.key.removeprefix(ANSWERED).removesuffix(".json")
                for asset in ("raw_uploads", "predictions"):
                    page.goto(f"{dagster.url}/assets/{asset}?view=partitions&partition={delivery}")
                    expect(page.locator("td td").first).to_be_attached(timeout=30_000)
                    cells += page.locator("td td").all_inner_texts()
                    assert not page.locator(".dagster-markdown b, td b").count()
            browser.close()
    assert {cell for cell in cells if cell.endswith(".csv")} == {visible(key).removeprefix("uploads/") for key in keys}
    assert "forged" not in cells
    assert not [url for url in requested if url.startswith(address)]
    assert not elsewhere.asked
