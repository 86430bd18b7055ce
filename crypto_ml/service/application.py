"""The application: its routes, what its document says of them, and how errors become problems."""

import asyncio
import logging
from importlib.metadata import version
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from crypto_ml.errors import CryptoMLError
from crypto_ml.service import interface, media, problems
from crypto_ml.service.gate import Gate
from crypto_ml.service.handling import Service
from crypto_ml.service.interface import ok, problem_response
from crypto_ml.service.metrics import CONTENT_TYPE
from crypto_ml.service.past_answers import past_answer, reference, trace_json
from crypto_ml.service.problems import Problem, problem_of
from crypto_ml.service.rendering import as_json

ABOUT: Final = """Send market data, get each cryptocurrency's next opening price.

The numbers are those that a file of the same rows is answered with: the same model, the same road, the same receipt.
Every answer has ids by which it can be read again, traced and replayed.
Problems come as [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) documents, which say what to do."""

TAGS: Final = [
    {"name": "predictions", "description": "Ask, and look at what was answered."},
    {"name": "forecasts", "description": "The next opening prices, made when a day's rows have come."},
    {"name": "model", "description": "What answers."},
    {"name": "operation", "description": "For those who run it."},
]
log: Final = logging.getLogger(__name__)


def create_app(service: Service) -> Gate:
    """The application of a worker, which begins and ends what the service has running."""
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs/assets",
        title="crypto_ml",
        version=version("crypto-ml"),
        description=ABOUT,
        openapi_tags=TAGS,
        lifespan=service.running,
        redirect_slashes=False,
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0, "tryItOutEnabled": True},
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
    )
    _add_predictions(app, service)
    _add_forecasts(app, service)
    _add_operation(app, service)
    _add_problems(app)
    _add_document(app, secured=bool(service.tokens))
    return Gate(app, service.metrics)


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predictions",
        operation_id="predict",
        summary="Predict",
        tags=["predictions"],
        responses={
            **ok("Answer", "Predictions, in the media type that Accept prefers", csv=True),
            **problem_response(
                *interface.SECURED,
                problems.NOT_ACCEPTABLE,
                problems.SLOW_BODY,
                problems.TOO_LARGE,
                problems.MEDIA,
                problems.UNREADABLE,
                problems.REJECTED,
                problems.TOO_MANY_ROWS,
                problems.INVALID,
                problems.OTHER_BODY,
                problems.NOT_UNRECORDED,
                problems.TOO_MANY,
                problems.BUSY,
                problems.TOO_LONG,
                problems.BLOCKED,
                *interface.EVERYWHERE,
            ),
        },
        openapi_extra={
            "requestBody": interface.REQUEST_BODY,
            "parameters": [*interface.PREDICT_PARAMETERS, interface.REQUEST_ID],
        },
    )
    async def predict(request: Request) -> Response:
        """The next opening price for each row: one record, a list of them, or CSV.

        Rows that cannot be used are refused with their reasons, and the others predicted. Where none can be, the
        answer is a problem. JSON has the refused rows; CSV says in `X-Refused-Rows` how many there are.
        """
        return await service.predicted(request, service.require(request, "predict"))

    past = problem_response(*interface.SECURED, problems.NOT_FOUND, *interface.EVERYWHERE)

    @app.get(
        "/v1/predictions/{id}",
        operation_id="read_prediction",
        summary="Read an answer, or one prediction of it",
        tags=["predictions"],
        responses={**ok("PastAnswer", "The answer"), **past, **problem_response(problems.ANSWER_TOO_LARGE)},
        openapi_extra={"parameters": [interface.REQUEST_ID]},
    )
    async def read_prediction(request: Request, name: Annotated[str, _id()]) -> Response:
        """What was answered, by whatever road: a request, a dropped file, a forecast."""
        service.require(request, "read")
        store = service.deployment.store
        document = await service.in_thread(lambda: as_json(past_answer(reference(name, store), store)))
        return Response(document, media_type=media.JSON)

    @app.get(
        "/v1/predictions/{id}/trace",
        operation_id="trace_prediction",
        summary="Trace an answer, or one prediction of it",
        tags=["predictions"],
        responses={
            200: {
                "description": "The trace, as `crypto-ml trace --json` prints it",
                "content": {"application/json": {"schema": {"type": "object"}}},
                "headers": interface.ANSWER_HEADERS,
            },
            **past,
        },
        openapi_extra={"parameters": [interface.REQUEST_ID]},
    )
    async def trace_prediction(request: Request, name: Annotated[str, _id()]) -> Response:
        """Everything behind a number: what was received, what it was made from, model, approval, code."""
        service.require(request, "read")
        store = service.deployment.store
        document = await service.traced(lambda: trace_json(reference(name, store), store))
        return Response(document, media_type=media.JSON)


def _id() -> Any:
    examples = {
        "prediction": {"summary": "One prediction", "value": interface.PREDICTION_ID},
        "answer": {"summary": "A whole answer", "value": interface.ANSWER_ID},
        "forecast": {"summary": "A number of a forecast", "value": interface.FORECAST_PREDICTION_ID},
    }
    return Path(alias="id", description="A `prediction_id`, or an `answer_id`.", openapi_examples=examples)  # type: ignore[arg-type]


def _add_forecasts(app: FastAPI, service: Service) -> None:
    said = problem_response(*interface.SECURED, problems.NOT_FOUND, *interface.EVERYWHERE)

    @app.get(
        "/v1/forecasts",
        operation_id="read_forecasts",
        summary="The next opening price of every current symbol",
        tags=["forecasts"],
        responses={
            **ok("Forecasts", "The newest forecast", csv=True),
            304: {"description": "It is the one that If-None-Match names"},
            **said,
            **problem_response(problems.NOT_ACCEPTABLE),
        },
        openapi_extra={"parameters": [interface.REQUEST_ID]},
    )
    async def read_forecasts(request: Request) -> Response:
        """The newest forecast as it was published; its ETag changes when there is another."""
        service.require(request, "read")
        wanted = media.of_answer(request.headers.get("accept"))
        latest = await service.in_thread(lambda: service.forecast.get(service.deployment.store))
        headers = {"etag": f'"{latest.etag}-{wanted}"', "vary": "accept", "cache-control": "no-cache"}
        if headers["etag"] in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        if wanted == "csv":
            return Response(latest.csv, headers=headers, media_type=media.CSV)
        return Response(latest.json, headers=headers, media_type=media.JSON)

    @app.get(
        "/v1/forecasts/{symbol:path}",
        operation_id="read_forecast",
        summary="The next opening price of one symbol",
        tags=["forecasts"],
        responses={**ok("ForecastRow", "Its row of the newest forecast"), **said},
        openapi_extra={"parameters": [interface.REQUEST_ID]},
    )
    async def read_forecast(
        request: Request, symbol: Annotated[str, Path(description="As the forecast names it.", examples=["SIM001"])]
    ) -> Response:
        """What the newest forecast says of one symbol."""
        service.require(request, "read")
        latest = await service.in_thread(lambda: service.forecast.get(service.deployment.store))
        row = latest.by_symbol.get(symbol)
        if row is None:
            raise Problem(
                problems.NOT_FOUND,
                "the newest forecast has no such symbol; forecasts/latest_left_out.csv has those that it leaves out",
            )
        return Response(as_json(row), media_type=media.JSON)


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/model",
        operation_id="read_model",
        summary="The model that answers",
        tags=["model"],
        responses={**ok("Model", "The model"), **problem_response(*interface.SECURED, *interface.EVERYWHERE)},
        openapi_extra={"parameters": [interface.REQUEST_ID]},
    )
    async def read_model(request: Request) -> Response:
        """Which model serves, who decided so and why, and from which state of the history."""
        service.require(request, "read")
        serving = service.watch.serving
        champion, bundle = serving.champion, serving.bundle
        decided = {name: getattr(champion, name) for name in ("pointer", "action", "by", "why", "at", "override")}
        document = {
            "model_version": bundle.version,
            "sha256": champion.sha256,
            "environment": service.deployment.settings.environment,
            "target": bundle.target,
            "features": list(bundle.features),
            "series": len(bundle.symbols),
            "promotion": decided,
            "history_version": serving.history_version,
        }
        return Response(as_json(document), media_type=media.JSON)

    @app.get(
        "/healthz",
        operation_id="health",
        summary="Whether the process lives",
        tags=["operation"],
        responses=ok("Health", "It does"),
    )
    async def health() -> Response:
        """For whoever restarts what does not answer."""
        return Response(b'{"status":"ok"}', media_type=media.JSON)

    @app.get(
        "/readyz",
        operation_id="readiness",
        summary="Whether requests should come here",
        tags=["operation"],
        responses={**ok("Health", "They should"), **problem_response(problems.NOT_READY)},
    )
    async def readiness() -> Response:
        """For whoever sends requests to one of several: a model is loaded, and the store was reached lately."""
        service.watch.require_ready()
        return Response(b'{"status":"ready"}', media_type=media.JSON)

    @app.get(
        "/metrics",
        operation_id="metrics",
        summary="Metrics for Prometheus",
        tags=["operation"],
        responses={
            200: {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **problem_response(*interface.SECURED),
        },
        openapi_extra={"parameters": [interface.REQUEST_ID]},
    )
    async def metrics(request: Request) -> Response:
        """Requests, latencies, rows, the model that serves, how fresh it is; of all workers."""
        service.require(request, "read")
        service.metrics.waiting.set(service.desk.depth)
        return Response(await asyncio.to_thread(service.metrics.rendered), headers={"content-type": CONTENT_TYPE})


def _add_problems(app: FastAPI) -> None:
    def sent(request: Request, problem: Problem) -> Response:
        body = problem.rendered(request.scope["crypto_ml.request_id"])
        return Response(body, problem.kind.status, problem.sent_headers())

    async def told(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - that is what it is registered for
        return sent(request, error)

    async def foreseen(request: Request, error: Exception) -> Response:
        assert isinstance(error, CryptoMLError)  # noqa: S101
        problem = problem_of(error)
        if problem.kind.status >= 500:
            log.warning("Request %s: %s", request.scope["crypto_ml.request_id"], error)
        return sent(request, problem)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        kinds = {404: problems.NOT_FOUND, 405: problems.METHOD}
        kind = kinds.get(error.status_code, problems.Kind("http", error.status_code, str(error.detail)))
        details = {
            404: "there is nothing at this address; /docs lists what there is",
            405: f"{request.method} is none of the methods of this address; Allow names them",
        }
        headers = dict(error.headers or {})
        return sent(request, Problem(kind, details.get(error.status_code, str(error.detail)), headers=headers))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return sent(request, Problem(problems.INVALID, wrong))

    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    app.add_exception_handler(Problem, told)
    app.add_exception_handler(CryptoMLError, foreseen)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, gone)


def _add_document(app: FastAPI, *, secured: bool) -> None:
    """The OpenAPI document, with the schemas that the routes name, and the tokens where there are any."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                tags=app.openapi_tags,
                routes=app.routes,
            )
            components: dict[str, Any] = made.setdefault("components", {})
            components["schemas"] = interface.schemas()
            if secured:
                components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for operations in made["paths"].values():
                for operation in operations.values():
                    _describe(operation, secured=secured and "401" in operation["responses"])
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _describe(operation: dict[str, Any], *, secured: bool) -> None:
    responses: dict[str, Any] = operation["responses"]
    if "application/json" in responses.get("422", {}).get("content", {}):  # FastAPI's own, of which none is sent
        del responses["422"]
    if secured:
        operation["security"] = [{"token": []}]
    else:
        for status in ("401", "403"):
            responses.pop(status, None)
