"""The page in a real browser: what a person sees of a file, on a phone and at night too, and what travels for it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crypto_ml.page.charts import THEMES
from crypto_ml.page.sources import source_of
from crypto_ml.page.watching import Watching
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market, relative_model
from crypto_ml_tests.page.files import OFTEN, as_csv, of_file, predictions, served
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import Road, upload
from crypto_ml_tests.test_browser import QUIET

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

FORGED = "<img src=x onerror=window.forged=1>"
PATIENCE = 30_000


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; it shows the page to this test")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield opened
        opened.close()


class Traffic:
    """What a page asked for, complained about, and was sent over its websocket."""

    def __init__(self, page: "Page") -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.received = 0
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, frame: str | bytes) -> None:
        self.received += len(frame)

    def elsewhere(self, address: str) -> list[str]:
        return [url for url in self.asked if not url.startswith((address, "data:", "blob:"))]


def choose(page: "Page", symbol: str) -> None:
    """By the keyboard alone."""
    from playwright.sync_api import expect

    page.locator(".symbol input").focus()
    page.keyboard.type(symbol)
    expect(page.locator(".symbol .bk-active")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#accuracy")).to_contain_text(symbol, timeout=PATIENCE)


def width_of(page: "Page") -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def wait_for_colour(page: "Page", colour: str) -> None:
    """Until the line of predictions is drawn in this colour, in this browser."""
    page.wait_for_function(
        "colour => Bokeh.documents[0].get_model_by_name('prices').renderers.find(one => one.name == 'predicted')"
        ".glyph.line_color.value == colour",
        arg=colour,
        timeout=PATIENCE,
    )


def test_of_a_hundred_thousand_rows_only_the_chosen_symbols_travel_and_the_page_follows_its_file(
    browser: "Browser", tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    rows = predictions({f"SYM{number:04d}": 20 for number in range(4998)} | {"YEAR": 400, FORGED: 3})
    path = tmp_path / "large_preds.csv"
    path.write_bytes(as_csv(rows))
    with served(of_file(path)) as address:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        traffic = Traffic(page)
        page.goto(address)
        expect(page.locator("#accuracy")).to_contain_text("YEAR", timeout=PATIENCE)
        expect(page.locator("dl.facts")).to_contain_text("100,363 rows of 5,000 symbols")
        opened = traffic.received
        assert opened < 600_000  # all symbols' names and one symbol's rows; all rows would be five millions
        choose(page, "SYM4321")
        expect(page.get_by_text("On 19 rows of SYM4321 the model is closer than the last open")).to_be_visible()
        assert traffic.received - opened < 40_000
        assert page.url.endswith("?symbol=SYM4321")
        # hover
        box = page.locator("#prices ~ div .bk-Figure, [data-root-id] .bk-Figure").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2 + 3)
        expect(page.get_by_text("off by:")).to_be_visible()
        expect(page.get_by_text("2023-01-1").first).to_be_visible()
        # text from outside is text
        choose(page, FORGED[:6])
        expect(page.get_by_role("cell", name="2023-01-03")).to_be_visible()
        expect(page.locator("#accuracy")).to_contain_text(FORGED)
        assert page.evaluate("window.forged") is None
        # what copies its trace
        assert (
            page.locator("button[data-copy]").first.get_attribute("data-copy")
            == "crypto-ml trace 0123456789abcdef-100364"
        )
        # the file changes, is damaged, is gone, is back: the page says so, and the symbol stays chosen
        choose(page, "SYM0002")
        path.write_bytes(as_csv(rows)[:-60])
        expect(page.get_by_role("alert")).to_contain_text("What you see was read at", timeout=PATIENCE)
        path.unlink()
        expect(page.get_by_role("alert")).to_contain_text("There is no file", timeout=PATIENCE)
        expect(page.locator("#accuracy")).to_contain_text("SYM0002")
        path.write_bytes(as_csv(predictions({"SYM0001": 5, "SYM0002": 5})))
        expect(page.locator("dl.facts")).to_contain_text("10 rows of 2 symbols", timeout=PATIENCE)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.get_by_text("On 4 rows of SYM0002")).to_be_visible()
        assert traffic.complaints == []
        assert traffic.elsewhere(address) == []
        page.close()


def test_an_answer_is_shown_with_its_model_both_baselines_forecasts_and_refused_rows_by_day_and_night_and_on_a_phone(
    browser: "Browser", store: ObjectStore
) -> None:
    from playwright.sync_api import expect

    road = Road(store, relative_model(0.0))
    rows = market({"BTC": 40, "ETH": 30})
    rows.loc[5, "low"] = -1.0
    road.drop(prices=upload(rows))
    road.answer_new()
    forecast_now(road)
    model, prediction = road.report("prices")["model_version"], road.predictions("prices")["prediction_id"].iloc[-1]
    source = source_of(store.uri("predictions/prices_preds.csv"))
    with served(Watching(lambda: source, every=OFTEN), "http://127.0.0.1:8000") as address:
        light = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        traffic = Traffic(light)
        light.goto(f"{address}?symbol=ETH")
        expect(light.locator("dl.facts")).to_contain_text(model, timeout=PATIENCE)
        expect(light.locator(".tile.last_close .big")).to_contain_text("%", timeout=PATIENCE)
        expect(light.get_by_text("with the open and close of the row before, in the market history")).to_be_visible()
        trace = light.locator("td a").first
        assert trace.get_attribute("href") == f"http://127.0.0.1:8000/v1/predictions/{prediction}/trace"
        expect(light.get_by_role("cell", name="low: not positive")).to_be_visible()
        forecasts = light.get_by_role("table", name="Forecasts")
        expect(forecasts.get_by_role("row")).to_have_count(2)
        expect(forecasts.get_by_role("columnheader", name="interval")).to_be_visible()
        said = re.compile(r"[0-9.]+ to [0-9.]+.* %, at most [0-9.]+ %")
        expect(forecasts.get_by_role("row").last).to_contain_text(said)
        expect(light.get_by_role("table", name="Predictions of ETH")).to_contain_text(" to ")
        assert traffic.complaints == []
        dark = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="dark")
        dark.goto(address)
        expect(dark.locator(".tile.model")).to_be_visible(timeout=PATIENCE)
        papers = [one.evaluate("getComputedStyle(document.body).backgroundColor") for one in (light, dark)]
        assert papers == ["rgb(245, 247, 250)", "rgb(18, 22, 28)"]
        expect(dark.get_by_text("Observed and predicted open")).to_be_visible()
        wait_for_colour(light, THEMES["light"]["predicted"])
        wait_for_colour(dark, THEMES["dark"]["predicted"])
        dark.emulate_media(color_scheme="light")
        wait_for_colour(dark, THEMES["light"]["predicted"])
        phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        phone.goto(address)
        expect(phone.locator(".tile.model")).to_be_visible(timeout=PATIENCE)
        assert width_of(phone) == 390
        tables = phone.locator(".table")
        assert all(tables.nth(number).evaluate("one => one.scrollWidth <= one.clientWidth") for number in range(3))
        for page in (light, dark, phone):
            page.close()
