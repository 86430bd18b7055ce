"""What an upload corrected, and which past answers, forecasts and models had used the values before.

A correction is a row for a series and day that was known before with another price, or with another market
capitalisation where both are known: a later file that has no column for it corrects nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crypto_ml.audit.evidence import Evidence
from crypto_ml.audit.trace import OBSERVED
from crypto_ml.audit.used_by import Rows, Used, told_of, used_by
from crypto_ml.forecasting.current import rank, valid_rows
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.storage.objects import ObjectStore


@dataclass(frozen=True)
class Correction:
    """A value that was known (from which upload, since when), and the one that took its place."""

    symbol: str
    date: date
    before: Mapping[str, Any]
    before_upload: str
    before_known_at: datetime
    now: Mapping[str, Any]
    known_at: datetime


@dataclass(frozen=True, kw_only=True)
class Corrections(Used):
    """What one upload corrected, and what had used the values before."""

    upload: str
    corrections: tuple[Correction, ...] = ()


def corrections(answer_id: str, store: ObjectStore) -> Corrections:
    """What the upload behind an answer corrected. Raises ObjectMissing, ReceiptDamaged."""
    with TemporaryDirectory(prefix="crypto_ml-corrections-") as name:
        evidence = Evidence.of(answer_id, store, Path(name))
        found = tuple(_corrected(evidence))
    key = evidence.receipt.upload.key
    if not found:
        return Corrections(upload=key)
    now = {(one.symbol, one.date): dict(one.now) for one in found}
    first = dict(sorted(now, reverse=True))  # of a symbol's days the first comes last, and stays
    since = min(one.before_known_at for one in found)
    rows = Rows(
        first,
        lambda symbol, day, _, values: (symbol, day) in now and _corrects(values, now[symbol, day]),
        since=since,
    )
    return Corrections(upload=key, corrections=found, **vars(used_by(rows, store)))


def _corrected(evidence: Evidence) -> Iterator[Correction]:
    """The upload's rows, each held against the one that was current when it came."""
    symbols = set(evidence.accepted()["symbol"].unique().to_pylist()) if evidence.receipt.rows.accepted else set()
    upload_id = evidence.upload_id
    by_day: dict[tuple[str, date], list[Mapping[str, Any]]] = {}
    if symbols:
        known = evidence.history.scan(symbols=symbols, version=evidence.receipt.history.written)
        for row in valid_rows(known.read_all().to_pylist()):
            by_day.setdefault((row["symbol"], row["date"]), []).append(row)
    for (symbol, day), rows in sorted(by_day.items()):
        rows.sort(key=lambda row: rank(row, evidence.receipt.inputs.current))
        own, before = rows[-1], [row for row in rows if row["upload_id"] != upload_id]
        if own["upload_id"] == upload_id and before and _corrects(before[-1], own):
            last = before[-1]
            yield Correction(
                symbol, day, _values(last), last["upload_id"], last["known_at"], _values(own), own["known_at"]
            )


def _corrects(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether of two rows for a day the later one says something else, and not only less or more."""
    priced = any(before[name] != now[name] for name in PRICES)
    return priced or bool(before["market"] and now["market"] and before["market"] != now["market"])


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in OBSERVED}


def told(found: Corrections) -> Iterator[str]:
    """Corrections in lines for people."""
    yield f"{found.upload} corrected {len(found.corrections)} rows that were known before"
    for one in found.corrections:
        changed = [name for name in OBSERVED if one.before[name] != one.now[name]]
        values = ", ".join(f"{name} {one.before[name]!r} → {one.now[name]!r}" for name in changed)
        yield f"  {one.symbol} {one.date}: {values} (before: upload {one.before_upload}, {one.before_known_at})"
    yield "what used the values before:"
    yield from told_of(found)
