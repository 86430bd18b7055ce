"""What a body is, and what its answer is to be: JSON or CSV, by the headers of HTTP."""

from typing import Final, Literal

from crypto_ml.service.problems import MEDIA, NOT_ACCEPTABLE, Problem

Media = Literal["json", "csv"]

JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
READ: Final[dict[str, Media]] = {"application/json": "json", "text/csv": "csv"}
WRITTEN: Final[tuple[tuple[str, Media], ...]] = (("application/json", "json"), ("text/csv", "csv"))
"""In the order of what is preferred where a caller does not say."""


def of_body(content_type: str | None, encoding: str | None) -> Media:
    """What a body is by its headers. Raises Problem."""
    if encoding and encoding.strip().lower() != "identity":
        raise Problem(
            MEDIA, "send the body as it is, without Content-Encoding", headers={"accept-encoding": "identity"}
        )
    name = (content_type or "").partition(";")[0].strip().lower()
    if name not in READ:
        what = f"Content-Type {name[:80]!r}" if name else "a body without Content-Type"
        raise Problem(
            MEDIA,
            f"{what} is not read here: send application/json or text/csv",
            headers={"accept": ", ".join(READ)},
        )
    return READ[name]


def of_answer(accept: str | None) -> Media:
    """What an answer is to be by the Accept of its request (RFC 9110, 12.5.1). Raises Problem."""
    if accept is None or not accept.strip() or accept.strip() in ("*/*", JSON):
        return "json"
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    wanted = [(_quality(name, ranges), media) for name, media in WRITTEN]
    best = max(quality for quality, _ in wanted)
    if best <= 0:
        raise Problem(NOT_ACCEPTABLE, f"Accept {accept[:80]!r} leaves nothing: accept application/json or text/csv")
    return next(media for quality, media in wanted if quality == best)


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value for one in parameters if (value := one.removeprefix("q=")) != one), "1")
    try:
        return name, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return name, 0.0


def _quality(name: str, ranges: list[tuple[str, float]]) -> float:
    """How much a type is wanted: what names it most closely decides."""
    for named in (name, name.partition("/")[0] + "/*", "*/*"):
        found = [quality for one, quality in ranges if one == named]
        if found:
            return max(found)
    return 0.0
