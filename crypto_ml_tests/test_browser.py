"""The Dagster UI in a real browser: what a person sees of a deployment that has just answered a file."""

import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml.visible import visible
from crypto_ml_tests.dropbox.site import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).resolve().parents[1]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Seen:
    """A deployment as a person has it before them: its store, Dagster's address, and a browser."""

    store: ObjectStore
    url: str
    browser: "Browser"


@pytest.fixture(scope="module")
def seen(bucket: str, s3_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One for the tests of this file: most of what each takes is to start all of it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; it shows the UI to this test")
    from playwright.sync_api import sync_playwright

    store, folder = connect(bucket, f"tests/{uuid.uuid4().hex}"), tmp_path_factory.mktemp("dagster")
    settings = {"CRYPTO_ML_BUCKET": store.bucket, "CRYPTO_ML_PREFIX": store.prefix}
    with LocalDagster(folder, s3_environment | settings, REPOSITORY / "dagster.yaml", free_port()) as dagster:
        dagster.wait_until_watching()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            yield Seen(store, dagster.url, browser)
            browser.close()


@pytest.mark.browser
def test_a_person_sees_the_graph_the_answer_and_why_a_file_was_refused(seen: Seen) -> None:
    from playwright.sync_api import expect

    deliveries = []
    for name, content in (("prices", sample_upload()), ("bad", b"symbol,date\nBTC,2018-01-01\n")):
        seen.store.replace(f"uploads/{name}.csv", content)
        until(partial(read_report, f"uploads/{name}.csv", seen.store), f"no answer to {name}.csv")
        report = read_report(f"uploads/{name}.csv", seen.store)
        assert report is not None
        deliveries.append(report.delivery)
    page = seen.browser.new_page(viewport={"width": 1500, "height": 1000})
    page.goto(f"{seen.url}/asset-groups")
    for group in ("uploads", "models", "forecasts"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=30_000)
    page.goto(f"{seen.url}/assets/predictions?view=overview")
    expect(page.get_by_text("predicted opening price, upload's currency")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("model_version").first).to_be_visible()
    page.goto(f"{seen.url}/assets/predictions?view=partitions&partition={deliveries[0]}")
    chart = page.locator("img[src^='data:image/svg+xml']").first
    expect(chart).to_be_visible(timeout=30_000)
    assert chart.evaluate("picture => picture.naturalWidth") > 100
    expect(page.get_by_text("predicted (blue) and observed (grey) open").first).to_be_visible()
    expect(page.get_by_role("cell", name="prices.csv", exact=True)).to_be_visible()
    page.goto(f"{seen.url}/assets/predictions?view=checks&checkDetail=every_upload_predicted")
    expect(page.get_by_text("1 of 1 file refused: bad.csv: the header has").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text(deliveries[1]).first).to_be_visible()
    page.goto(f"{seen.url}/runs")
    expect(page.get_by_text("crypto_ml/files: bad.csv").first).to_be_visible(timeout=30_000)
    page.close()


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
def test_a_key_that_spells_markdown_fetches_no_picture_and_forges_no_row(seen: Seen, elsewhere: Pictures) -> None:
    from playwright.sync_api import expect

    address = f"http://127.0.0.1:{elsewhere.server_port}"
    keys = [f"uploads/![x]({address}/i.png).csv", "uploads/a\n| forged | row |\n.csv", "uploads/<b>bold</b>.csv"]
    for key in keys:
        seen.store.replace(key, b"symbol,date\nBTC,2018-01-01\n")
    until(lambda: all(read_report(key, seen.store) for key in keys), "no report on every key")
    page = seen.browser.new_page(viewport={"width": 1500, "height": 2000})
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    cells: list[str] = []
    for delivery in {report.delivery for key in keys if (report := read_report(key, seen.store))}:
        for asset in ("raw_uploads", "predictions"):
            page.goto(f"{seen.url}/assets/{asset}?view=partitions&partition={delivery}")
            expect(page.locator("td td").first).to_be_attached(timeout=30_000)
            cells += page.locator("td td").all_inner_texts()
            assert not page.locator(".dagster-markdown b, td b").count()
    page.close()
    assert {cell for cell in cells if cell.endswith(".csv")} == {visible(key).removeprefix("uploads/") for key in keys}
    assert "forged" not in cells
    assert not [url for url in requested if url.startswith(address)]
    assert not elsewhere.asked
