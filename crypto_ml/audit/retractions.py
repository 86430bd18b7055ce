"""Which past answers, forecasts and models had used the rows of an upload that was retracted."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from crypto_ml.audit.used_by import Rows, Used, told_of, used_by
from crypto_ml.ledger.formats.retraction_v1 import Retraction
from crypto_ml.stages.retraction import Retracted
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class RetractedUse(Used):
    """A retraction, the versions of the history by which the rows are void, how many they are, the notice beside the
    predictions, and what had used the rows."""

    retraction: Retraction
    versions: tuple[int, ...]
    rows: int
    notice: str | None


def used(retracted: Retracted, store: ObjectStore) -> RetractedUse:
    """What had used the rows of a retracted upload: read from an answer to it, too, where one row was made from
    another."""
    upload = retracted.retraction.upload_id
    table = MarketHistory(store).scan(["symbol", "date", "known_at"], upload=upload).read_all()
    days = table.group_by("symbol").aggregate([("date", "min")]).to_pylist()
    first = {row["symbol"]: row["date_min"] for row in days}
    rows = Rows(
        first,
        lambda _symbol, _day, from_upload, _values: from_upload == upload,
        max(retracted.versions),
        pc.min(table["known_at"]).as_py(),
    )
    return RetractedUse(
        retraction=retracted.retraction,
        versions=tuple(retracted.versions),
        rows=retracted.rows,
        notice=retracted.notice,
        **vars(used_by(rows, store)),
    )


def told_retraction(retracted: Retracted, store: ObjectStore) -> Iterator[str]:
    """A retraction in lines for people."""
    one, versions = retracted.retraction, ", ".join(map(str, retracted.versions))
    yield f"{one.upload.key} (upload {one.upload_id}) is retracted by {one.decided_by} since {one.at}: {one.why}"
    yield f"  {retracted.rows:,} rows count as void from version {versions} of market_history on"
    if retracted.notice:
        yield f"  its predictions stay where they are; beside them stands {store.uri(retracted.notice)}"


def told(found: RetractedUse) -> Iterator[str]:
    """What had used the rows, in lines for people."""
    yield "what had used them:"
    yield from told_of(found)
