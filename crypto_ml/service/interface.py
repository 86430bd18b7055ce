"""The interface in the words of OpenAPI: what is sent and answered, with what a person would send as examples.

The models here describe. Nothing is read or written through them: a body is read by the road, as a file is, and an
answer is rendered from its columns.
"""

from datetime import date, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from crypto_ml.service import problems
from crypto_ml.service.problems import MEDIA_TYPE, NAMES, Kind

RECORD: Final[JsonDict] = {
    "symbol": "SIM001",
    "date": "2023-12-02",
    "open": 1.3561,
    "high": 1.3702,
    "low": 1.3418,
    "close": 1.3655,
    "market": 51800000,
}
"""The day after the sample of `crypto-ml demo`."""

CSV_BODY: Final = (
    "symbol,date,open,high,low,close,market\n"
    "SIM001,2023-12-02,1.3561,1.3702,1.3418,1.3655,51800000\n"
    "SIM002,2023-12-02,0.421,0.433,0.417,0.43,9120000\n"
)
ANSWER_ID: Final = "179524728100012345-9f2c4d5e6a7b8c90"
PREDICTION_ID: Final = f"{ANSWER_ID}-2"
FORECAST_PREDICTION_ID: Final = "2023-12-02-1a2b3c4d5e6f7081-1"
MODEL: Final = "2023-05-15-gap-0a1b2c3d"


class Record(BaseModel):
    """One day of one cryptocurrency, as a line of an upload: the rows before it come from the market history."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [RECORD]})

    symbol: str = Field(description="the cryptocurrency")
    date: str = Field(description="the day (UTC), ISO 8601; a time of day is dropped")
    open: float | str = Field(description="opening price; what is predicted is this price, from the days before")
    high: float | str = Field(description="highest price")
    low: float | str = Field(description="lowest price")
    close: float | str = Field(description="closing price")
    market: float | str | None = Field(
        description="market capitalisation, 0 or null where there is none; `marketcap` and `market_cap` are read too"
    )
    volume: float | str | None = Field(default=None, description="volume, not needed")
    slug: str | None = Field(default=None, description="which coin the symbol is, where several have it")


class Prediction(BaseModel):
    """The predicted opening price of one row. Later versions add members at the end."""

    symbol: str = Field(description="the series; `symbol:slug` where several coins share the symbol")
    index: int | None = Field(default=None, description="0, 1, 2 … within the symbol, by date")
    date: date
    pred_open: float = Field(description="the predicted opening price, in the currency of the row")
    val_open: float | None = Field(default=None, description="the opening price that was sent")
    status: Literal["predicted", "seed"] | None = Field(
        default=None, description="`seed`: there is no earlier row anywhere, and pred_open is the open itself"
    )
    prediction_id: str = Field(description="by which the number can be traced, for ever")
    pred_low: float | None = Field(
        default=None,
        description="lower end of the interval of the open, at the level of CRYPTO_ML_INTERVAL_LEVEL; with the three "
        "after it there where the model has intervals, and null where too few rows stand before",
    )
    pred_high: float | None = Field(default=None, description="upper end of it")
    expected_range: float | None = Field(default=None, description="ln(high / low) that is expected of the day")
    range_high: float | None = Field(default=None, description="upper bound of it, at 90 %")
    as_of: str | None = Field(default=None, description="of a forecast: the newest day it was made from")
    target_date: str | None = Field(default=None, description="of a forecast: the day whose open is predicted")
    model_version: str | None = Field(default=None, description="of a forecast")


class ForecastRow(BaseModel):
    """The next opening price of one symbol."""

    symbol: str
    as_of: date
    target_date: date
    pred_open: float
    model_version: str
    prediction_id: str
    pred_low: float | None = Field(default=None, description="as of a prediction, like the three after it")
    pred_high: float | None = None
    expected_range: float | None = None
    range_high: float | None = None
    links: dict[str, str] = Field(default_factory=dict)


class PastPrediction(BaseModel):
    """A predicted number of any road: of a request or file as `Prediction`, of a forecast as `ForecastRow`."""

    model_config = ConfigDict(extra="allow")

    symbol: str
    pred_open: float
    prediction_id: str


class RefusedRow(BaseModel):
    """A row that was not predicted, and why."""

    line: int = Field(description="of the body as CSV: the first record is line 2, behind the header")
    reason: str
    text: str = Field(description="the row as it came")


class RowCounts(BaseModel):
    """What became of the rows."""

    received: int
    accepted: int
    refused: int
    predicted: int


class Answer(BaseModel):
    """Predictions for the rows of one request, recorded with a receipt."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "answer_id": ANSWER_ID,
                    "road": "request",
                    "recorded": True,
                    "model_version": MODEL,
                    "rows": {"received": 1, "accepted": 1, "refused": 0, "predicted": 1},
                    "predictions": [
                        {
                            "symbol": "SIM001",
                            "index": 0,
                            "date": "2023-12-02",
                            "pred_open": 1.3557512384,
                            "val_open": 1.3561,
                            "status": "predicted",
                            "prediction_id": PREDICTION_ID,
                            "pred_low": 1.3498210447,
                            "pred_high": 1.3617077291,
                            "expected_range": 0.0312490873,
                            "range_high": 0.0518664012,
                        }
                    ],
                    "refused_rows": [],
                    "read_as": "CSV in UTF-8, commas between values; a decimal point",
                    "ignored_columns": [],
                    "notes": [],
                    "links": {
                        "self": f"/v1/predictions/{ANSWER_ID}",
                        "trace": f"/v1/predictions/{ANSWER_ID}/trace",
                        "model": "/v1/model",
                    },
                }
            ]
        }
    )

    answer_id: str
    road: Literal["request"]
    recorded: bool = Field(description="whether there is a receipt; false only where `record=false` was asked for")
    model_version: str
    rows: RowCounts
    predictions: list[Prediction] = Field(description="every accepted row once, by symbol and date")
    refused_rows: list[RefusedRow]
    read_as: str | None = Field(description="how the body was read, in words")
    ignored_columns: list[str]
    notes: list[str]
    links: dict[str, str]


class PastAnswer(BaseModel):
    """An answer of any road, or the one prediction of it that the id names."""

    answer_id: str
    road: Literal["request", "upload", "forecast"]
    recorded: Literal[True]
    model_version: str | None
    rows: RowCounts
    predictions: list[PastPrediction]
    refused_rows: list[RefusedRow]
    read_as: str | None
    ignored_columns: list[str]
    notes: list[str]
    links: dict[str, str]


class Forecasts(BaseModel):
    """The newest forecast: the next opening price of every current symbol."""

    target_date: date | None
    as_of: date | None
    model_version: str | None
    forecasts: list[ForecastRow]


class Promotion(BaseModel):
    """Who decided that the model serves, when and why."""

    pointer: int
    action: str
    by: str
    why: str
    at: datetime
    override: str | None


class Model(BaseModel):
    """The model that answers now."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    sha256: str
    environment: str
    target: str = Field(
        description="what it predicts: `relative_gap` (ln(open / last close), in recent gaps of the series), `gap` "
        "(open − last close) or `change` (open − last open)"
    )
    features: list[str]
    series: int = Field(description="how many series it was trained on")
    promotion: Promotion
    history_version: int | None = Field(description="of the market history that earlier rows come from")


class Health(BaseModel):
    """That it is so."""

    status: Literal["ok", "ready"]


class ProblemDetails(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description=f"`{NAMES}…`: what kind of problem, for programs")
    title: str
    status: int
    detail: str = Field(description="one sentence: what is wrong, and what to do")
    request_id: str
    answer_id: str | None = Field(default=None, description="where the refusal was recorded as an answer")
    refused_rows: list[RefusedRow] | None = None


DETAILS: Final = {
    problems.UNREADABLE.name: "the body is not JSON: Expecting value: line 1 column 1 (char 0)",
    problems.REJECTED.name: "no row can be used: all 1 were refused",
    problems.TOO_MANY_ROWS.name: "the body has 100,001 rows, and 100,000 are answered at once: send it in parts",
    problems.TOO_LARGE.name: "the body has more than 33,554,432 bytes: send it in parts, or drop it as a file",
    problems.NOT_FOUND.name: "there is no answer 179524728100012345-9f2c4d5e6a7b8c90",
    problems.UNAUTHORIZED.name: "send a token: Authorization: Bearer cml_…",
    problems.FORBIDDEN.name: "charts may read, and this takes the right to predict",
    problems.TOO_MANY.name: "charts has 256 requests here that are not answered yet: wait for one of them",
    problems.BUSY.name: "512 requests are being answered: ask again in a moment",
    problems.NOT_READY.name: "the service is not ready: it has only just started",
}


def problem_response(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """What a route says of the problems it may answer with, by status."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        example = {
            "type": NAMES + kind.name,
            "title": kind.title,
            "status": kind.status,
            "detail": DETAILS.get(kind.name, kind.title),
            "request_id": "5f0c9d7e6a0b4a579f430d6c6f6f6a51",
        }
        said = found.setdefault(
            kind.status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": _ref("ProblemDetails"), "examples": {}}}},
        )
        said["description"] += f"{'; ' * bool(said['description'])}{kind.title}"
        said["content"][MEDIA_TYPE]["examples"][kind.name] = {"summary": kind.title, "value": example}
        if kind.status in (429, 503):
            said["headers"] = {
                "Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}}
            }
    return found


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


EVERYWHERE: Final = (problems.NOT_READY, problems.UNAVAILABLE, problems.UNEXPECTED)
SECURED: Final = (problems.UNAUTHORIZED, problems.FORBIDDEN)

JSON_BODY: Final[dict[str, Any]] = {
    "schema": {"oneOf": [_ref("Record"), {"type": "array", "items": _ref("Record"), "minItems": 1}]},
    "examples": {
        "one": {"summary": "One record", "value": RECORD},
        "several": {
            "summary": "Several records",
            "value": [RECORD, RECORD | {"symbol": "SIM002", "open": 0.421, "high": 0.433, "low": 0.417, "close": 0.43}],
        },
    },
}
REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "One record or a list of records, or a CSV as it would be dropped: the same columns, read by the "
    "same rules. Earlier rows come from the market history, and from the body where it has them.",
    "content": {
        "application/json": JSON_BODY,
        "text/csv": {
            "schema": {"type": "string"},
            "examples": {"csv": {"summary": "A file", "value": CSV_BODY}},
        },
    },
}
PREDICT_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "record",
        "in": "query",
        "required": False,
        "description": "`false`: keep nothing of this answer; only where CRYPTO_ML_SERVE_UNRECORDED allows it.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Such as `2023-12-02-close`. The same key with the same body gets the same answer, however "
        "often it is sent, and is recorded once; with another body it is refused. Each token has keys of its own.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
]
REQUEST_ID: Final[dict[str, Any]] = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "Comes back with the answer and stands in the log; made up where it is not given.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
}
ANSWER_HEADERS: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "The request's id.", "schema": {"type": "string"}},
}
CSV_ANSWER: Final[dict[str, Any]] = {
    "schema": {"type": "string"},
    "example": "symbol,index,date,pred_open,val_open,status,prediction_id,"
    "pred_low,pred_high,expected_range,range_high\n"
    f"SIM001,0,2023-12-02,1.3557512384,1.3561,predicted,{PREDICTION_ID},"
    "1.3498210447,1.3617077291,0.0312490873,0.0518664012\n",
}
SCHEMAS: Final = (
    Record,
    Prediction,
    PastPrediction,
    ForecastRow,
    RefusedRow,
    RowCounts,
    Answer,
    PastAnswer,
    Forecasts,
    Promotion,
    Model,
    Health,
    ProblemDetails,
)


def ok(model: str, description: str, *, csv: bool = False) -> dict[int | str, dict[str, Any]]:
    """What a route says of its answer. csv: whether it comes as CSV, too."""
    content: dict[str, Any] = {"application/json": {"schema": _ref(model)}}
    if csv:
        content["text/csv"] = CSV_ANSWER
    return {200: {"description": description, "content": content, "headers": ANSWER_HEADERS}}


def schemas() -> dict[str, Any]:
    """The components of the document."""
    from pydantic.json_schema import models_json_schema

    _, found = models_json_schema(
        [(model, "serialization") for model in SCHEMAS], ref_template="#/components/schemas/{model}"
    )
    components: dict[str, Any] = found["$defs"]
    return components
