"""Whether the rows that an answer was made from are still what was written, and what was read instead of some of them.

An answer by `folded-1` is made from states and from the rows behind them. What those rows stand in is checked each
time, which costs what the answer's windows cost; the sums are what the receipt has the hash of. All that was ever
folded into them, and everything else up to the version that was read, is checked where `full` is asked for.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.audit.standing import appends_stand, stands
from crypto_ml.errors import Unavailable
from crypto_ml.ledger.layout import APPENDS
from crypto_ml.stages.series_by_name import FromHistory, Series
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8
STAGE: Final = "market_history"
CACHE_DIFFERS: Final = "cache/series/ has other earlier rows than the market history: delete it"
FOLDED: Final = "of series scaled by their own rows the sums were read, and not the rows behind them: --full reads all"

T = TypeVar("T")


def uploads_stand(uploads: Iterable[str], version: int, store: ObjectStore) -> set[int]:
    """Return the recorded versions in which rows of these uploads stand, where all that was written with them up to
    `version` is still what it was. Raises Differs."""
    deliveries = sorted({upload.partition(".")[0] for upload in uploads})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        listed = pool.map(lambda delivery: [*store.list(f"{APPENDS}{delivery}-")], deliveries)
        keys = [found.key for some in listed for found in some]
        reading = [pool.submit(store.read_json, key) for key in keys]
        records = [at_stage(STAGE, read.result) for read in reading]
        objects = at_stage(STAGE, lambda: _objects(records, version))
        looked = [pool.submit(stands, STAGE, key, sha256, store) for key, sha256 in objects.items()]
        for one in looked:
            one.result()
    return {record["version"] for record in records}


def _objects(records: Iterable[Mapping[str, Any]], version: int) -> dict[str, str]:
    written = [record["objects"] for record in records if record["version"] <= version]
    return {str(key): str(sha256) for objects in written for key, sha256 in objects.items()}


def named_where_damaged(read: Callable[[], T], version: int, store: ObjectStore) -> T:
    """What `read` makes of rows of the history; where it fails, the damaged object is looked for first, and named."""
    try:
        return at_stage(STAGE, read)
    except (Differs, Unavailable):
        appends_stand(version, store)
        raise


def cache_note(symbols: Collection[str], version: int, series: Series, history: MarketHistory) -> str | None:
    """What there is to say of the cache, which is held against the history itself."""
    cached, read = series.book(symbols, version), FromHistory(history).book(symbols, version)
    same = all(
        one.to_pandas().equals(other.to_pandas())
        for one, other in ((cached.states, read.states), (cached.rows, read.rows))
    )
    return None if same else CACHE_DIFFERS
