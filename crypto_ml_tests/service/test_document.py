"""The OpenAPI document: whole, true of what is answered, with examples that work; and the page that shows it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.service.asking import Asking
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import upload
from crypto_ml_tests.test_browser import QUIET

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(asking: Asking) -> dict[str, Any]:
    found: dict[str, Any] = asking.get("/openapi.json")
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def test_everything_is_described_and_every_problem_has_its_media_type_and_an_example(document: dict[str, Any]) -> None:
    named = {operation["operationId"] for operation in operations(document)}
    assert named == {
        *("predict", "read_prediction", "trace_prediction", "read_forecasts", "read_forecast"),
        *("read_model", "health", "readiness", "metrics"),
    }
    for operation in operations(document):
        assert operation["summary"] and operation["description"] and operation["tags"]
        for status, said in operation["responses"].items():
            assert said["description"]
            if int(status) >= 400:
                problem = said["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
                assert all(one["value"]["status"] == int(status) for one in problem["examples"].values())
    predict = document["paths"]["/v1/predictions"]["post"]
    assert {"406", "408", "413", "415", "422", "429", "503"} <= set(predict["responses"])
    assert "Retry-After" in predict["responses"]["503"]["headers"]


def test_every_example_of_a_body_is_answered_as_the_document_says(asking: Asking, document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/predictions"]["post"]["requestBody"]["content"]
    for media_type, said in content.items():
        for example in said["examples"].values():
            value = example["value"]
            body = value if isinstance(value, str) else json.dumps(value)
            answer = asking.post(body, media_type)
            assert answer.status_code == 200, answer.text
            members = set(document["components"]["schemas"]["Answer"]["properties"])
            assert set(answer.json()) == members
            [shown] = document["components"]["schemas"]["Answer"]["examples"]
            assert set(shown) == members
            beside = set(BESIDE.names)  # of a model with a serving rule
            assert set(shown["predictions"][0]) == set(answer.json()["predictions"][0]) | beside


@settings(max_examples=2, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_schemathesis_makes_up_is_answered_as_the_document_says(asking: Asking, data: st.DataObject) -> None:
    schema = schemathesis.openapi.from_dict(asking.get("/openapi.json"))
    schema.config.base_url = str(asking.client.base_url)
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        for _ in range(4):
            case = data.draw(operation.as_strategy())
            response = case.call(timeout=60)
            if case.operation.label != "GET /metrics":
                case.validate_response(response, checks=CHECKS)
            assert response.status_code < 500


def test_the_forecast_that_stands_is_answered_whole_or_by_symbol_and_not_again_to_who_has_it(asking: Asking) -> None:
    rows = market({"K001": 15, "K002": 15}).assign(symbol=lambda of: of["symbol"].replace("K002", "BTC/USD"))
    asking.drop(history=upload(rows))
    made = forecast_now(asking.road)
    until(lambda: asking.client.get("/v1/forecasts").status_code == 200, "no forecast")
    first = asking.client.get("/v1/forecasts")
    whole = first.json()
    assert whole["target_date"] == str(made.rows["target_date"].iloc[0].date())
    predicted = dict(zip(made.rows["symbol"], made.rows["pred_open"], strict=True))
    assert {row["symbol"]: row["pred_open"] for row in whole["forecasts"]} == predicted
    assert set(predicted) == {"K001", "BTC/USD"}
    for symbol, price in predicted.items():
        row = asking.get(f"/v1/forecasts/{symbol}")
        assert row["pred_open"] == price
        past = asking.get(f"/v1/predictions/{row['prediction_id']}")
        assert (past["road"], past["predictions"][0]["pred_open"]) == ("forecast", price)
        assert asking.get(row["links"]["trace"])["row"]["symbol"] == symbol
    text = asking.client.get("/v1/forecasts", headers={"accept": "text/csv"})
    assert text.content == asking.road.store.read("forecasts/latest.csv")
    known = {"if-none-match": first.headers["etag"]}
    assert asking.client.get("/v1/forecasts", headers=known).status_code == 304
    asking.drop(more=upload(market({"K001": 16})))
    forecast_now(asking.road)
    until(lambda: asking.client.get("/v1/forecasts", headers=known).status_code == 200, "the new forecast is not seen")


@pytest.mark.browser
def test_a_person_reads_the_documentation_and_asks_from_it_while_nothing_is_fetched_from_elsewhere(
    asking: Asking, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; it shows the documentation to this test")
    from playwright.sync_api import expect, sync_playwright

    address = str(asking.client.base_url)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1300, "height": 1800})
        requested: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{address}/docs")
        page.get_by_role("button", name="POST /v1/predictions", exact=False).first.click()
        block = page.locator("#operations-predictions-predict")
        expect(block.get_by_text("Idempotency-Key").first).to_be_visible(timeout=30_000)
        block.get_by_role("button", name="Execute").click()
        expect(block.get_by_text("prediction_id").first).to_be_visible(timeout=30_000)
        expect(block.locator(".live-responses-table tr.response .response-col_status").first).to_contain_text("200")
        page.screenshot(path=tmp_path / "docs.png")
        browser.close()
    assert [url for url in requested if not url.startswith((address, "data:"))] == []
    assert [text for text in said if "rror" in text] == []
