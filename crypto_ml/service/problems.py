"""What a caller is told when there is no answer: problem details (RFC 9457), every kind with a name of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from crypto_ml.audit.references import UnknownAnswer
from crypto_ml.errors import Blocked, CryptoMLError, Unavailable
from crypto_ml.forecasting.uploads.unreadable import UnreadableUpload
from crypto_ml.ledger.requests import KeyTaken
from crypto_ml.storage.failures import ObjectMissing

MEDIA_TYPE: Final = "application/problem+json"
NAMES: Final = "urn:crypto-ml:problem:"

SOON, LATER, MENDED = 1, 5, 30
"""Seconds after which it is worth another try: somebody else is through, a store answers, an operator has mended it."""


@dataclass(frozen=True)
class Kind:
    """A kind of problem: the last word of its type, its status, its title."""

    name: str
    status: int
    title: str


UNREADABLE: Final = Kind("unreadable-body", 422, "The body cannot be read")
REJECTED: Final = Kind("rejected", 422, "No row of the body can be predicted")
TOO_MANY_ROWS: Final = Kind("too-many-rows", 422, "The body has too many rows")
TOO_LARGE: Final = Kind("body-too-large", 413, "The body is too large")
ANSWER_TOO_LARGE: Final = Kind("answer-too-large", 422, "The answer is too large to be sent")
INVALID: Final = Kind("invalid-request", 422, "The request is not one of this interface")
OTHER_BODY: Final = Kind("idempotency-key-reused", 422, "The idempotency key was used with another body")
NOT_UNRECORDED: Final = Kind("unrecorded-not-allowed", 422, "Every answer is recorded here")
MEDIA: Final = Kind("unsupported-media-type", 415, "The body is of a type that is not read")
NOT_ACCEPTABLE: Final = Kind("not-acceptable", 406, "The answer comes as JSON or CSV")
UNAUTHORIZED: Final = Kind("unauthorized", 401, "Who asks is not known")
FORBIDDEN: Final = Kind("forbidden", 403, "Who asks may not do this")
NOT_FOUND: Final = Kind("not-found", 404, "There is nothing here")
METHOD: Final = Kind("method-not-allowed", 405, "The method is none of this address")
MALFORMED: Final = Kind("malformed", 400, "This is not HTTP")
SLOW_HEAD: Final = Kind("headers-too-slow", 408, "The headers did not come in time")
HEAD_TOO_LARGE: Final = Kind("headers-too-large", 431, "Address and headers are too large")
SLOW_BODY: Final = Kind("body-too-slow", 408, "The body did not come in time")
TOO_MANY: Final = Kind("too-many-requests", 429, "Too many requests of one caller at once")
BUSY: Final = Kind("busy", 503, "Too many requests at once")
TOO_LONG: Final = Kind("too-long", 503, "The answer took too long")
NOT_READY: Final = Kind("not-ready", 503, "The service is not ready")
UNAVAILABLE: Final = Kind("unavailable", 503, "What the answer needs is not available")
BLOCKED: Final = Kind("blocked", 503, "Nothing can be answered until somebody mends it")
DAMAGED: Final = Kind("refused", 500, "What is stored does not allow an answer")
UNEXPECTED: Final = Kind("unexpected", 500, "Something went wrong here")


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Why there is no answer. detail: a sentence with what to do. retry_after: seconds, where another try is worth it.

    said: members of the document beyond those of the RFC. headers: of the response.
    """

    kind: Kind
    detail: str
    retry_after: int | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def rendered(self, request_id: str) -> bytes:
        """The document."""
        return to_json(
            {
                "type": NAMES + self.kind.name,
                "title": self.kind.title,
                "status": self.kind.status,
                "detail": self.detail,
                "request_id": request_id,
                **self.said,
            }
        )

    def sent_headers(self) -> dict[str, str]:
        """The headers of the response, but for its length."""
        retry = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return {"content-type": MEDIA_TYPE, "cache-control": "no-store", **retry, **self.headers}


KINDS: Final[tuple[tuple[type[CryptoMLError], Kind, int | None], ...]] = (
    (UnreadableUpload, UNREADABLE, None),
    (KeyTaken, OTHER_BODY, None),
    (UnknownAnswer, NOT_FOUND, None),
    (ObjectMissing, NOT_FOUND, None),
    (Unavailable, UNAVAILABLE, LATER),
    (Blocked, BLOCKED, MENDED),
    (CryptoMLError, DAMAGED, None),
)
"""What failures of the road and of the evidence are to a caller, and the seconds after which another try is worth it;
the first that fits."""


def problem_of(error: CryptoMLError) -> Problem:
    """What a failure is to a caller."""
    kind, retry = next((kind, retry) for named, kind, retry in KINDS if isinstance(error, named))
    return Problem(kind, str(error), retry)
