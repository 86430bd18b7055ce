"""How a forecast gets out: its receipt first, then the objects of its day, and the latest ones last.

Each object appears as a whole, none takes the place of a newer forecast's (see `ledger.forecasts.ForecastOrder`), and
nothing is published that no receipt vouches for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from crypto_ml.digest import sha256_of, sha256_of_file
from crypto_ml.forecasting.answers import FORECAST, FORECAST_READ, LEFT_OUT, append_csv
from crypto_ml.ledger.forecasts import (
    ForecastOrder,
    read_forecast_receipt,
    standing,
    write_forecast_receipt,
)
from crypto_ml.ledger.formats.forecast_v1 import PUBLISHED, ForecastReceipt, Vouched
from crypto_ml.ledger.layout import CSV, forecast_keys
from crypto_ml.stages.forecast_receipts import inputs_of
from crypto_ml.stages.next_opens import Forecast, ForecastSources
from crypto_ml.storage.failures import ObjectMissing
from crypto_ml.storage.objects import ORDER, ObjectStore

EMPTY_LIST: Final = (",".join(LEFT_OUT.names) + "\n").encode()


@dataclass(frozen=True)
class Published:
    """The keys at which a forecast stands, and those at which a newer one stayed: key → that forecast's id."""

    keys: tuple[str, ...]
    stayed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ForecastFiles:
    """A forecast on its way out: its receipt, its rows with their names, and the local files by what they are."""

    receipt: ForecastReceipt
    rows: pd.DataFrame
    paths: Mapping[str, Path]


@dataclass(frozen=True)
class StandingForecast:
    """A forecast that was published before, read back."""

    receipt: ForecastReceipt
    rows: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.receipt.published[what].key for what in PUBLISHED)


def attempt_after(sources: ForecastSources, target: date) -> int:
    """The number of this attempt at a forecast from one state of the history and of the pointer.

    The forecast that stands is repeated where its inputs are the same but for the number. Other code, libraries or
    another processor make the next attempt, which is newer.
    """
    keys, state = forecast_keys(target), (target, sources.history_version, sources.champion.pointer)
    orders = [order for key in (keys.forecast, keys.latest) if (order := standing(key, sources.store))]
    before = max((order for order in orders if order.state == state), key=str, default=None)
    if before is None:
        return 1
    same = inputs_of(sources, target, before.attempt).forecast_id == before.forecast_id
    return before.attempt if same else before.attempt + 1


def as_it_stands(forecast_id: str, store: ObjectStore) -> StandingForecast | None:
    """A forecast that was published before; None unless every object of it stands as its receipt says."""
    try:
        receipt = read_forecast_receipt(forecast_id, store)
        contents = {what: store.fetch(vouched.key) for what, vouched in receipt.published.items()}
    except ObjectMissing:
        return None
    order = str(ForecastOrder.of(receipt))
    for what, (found, content) in contents.items():
        if found.metadata.get(ORDER) != order or sha256_of(content) != receipt.published[what].sha256:
            return None
    rows, left_out = (
        _frame(contents[what][1], schema) for what, schema in (("forecast", FORECAST_READ), ("left_out", LEFT_OUT))
    )
    return StandingForecast(receipt, rows, left_out)


def record(
    made: Forecast, receipt_at: Callable[[int], ForecastReceipt], attempt: int, directory: Path, store: ObjectStore
) -> ForecastFiles:
    """Write the receipt of a forecast, at some attempt. Where one of its name stands, it stands for good: this is that
    forecast if it vouches for the same bytes, and else the next attempt, with another name."""
    for number in count(attempt):
        receipt = receipt_at(number)
        files = write_files(made, receipt.forecast_id, directory)
        keys = forecast_keys(made.target_date)
        published = {what: Vouched(getattr(keys, what), sha256_of_file(files[what])) for what in PUBLISHED}
        found = write_forecast_receipt(replace(receipt, published=published), store)
        if dict(found.published) == published:
            return ForecastFiles(found, named(made.rows, receipt.forecast_id), files)
    raise AssertionError  # counting never ends


def publish_files(files: ForecastFiles, store: ObjectStore) -> Published:
    """Put the objects that the receipt vouches for; where those of a newer forecast are there, they stay."""
    order = str(ForecastOrder.of(files.receipt))
    put, stayed = [], {}
    for what in PUBLISHED:
        key = files.receipt.published[what].key
        if store.put_newest(key, files.paths[what], order, content_type=CSV):
            put.append(key)
        else:
            newer = standing(key, store)
            stayed[key] = newer.forecast_id if newer else "not known any more"
    keys = {what: vouched.key for what, vouched in files.receipt.published.items()}
    for left_out, forecast in (("left_out", "forecast"), ("latest_left_out", "latest")):
        _put_right(keys[left_out], keys[forecast], store)
    return Published(tuple(put), stayed)


def _put_right(left_out: str, forecast: str, store: ObjectStore) -> None:
    """Make the list the one of the forecast beside it.

    The store compares bytes where it is to replace an object only if that is the one that was seen. Lists without rows
    are all the same bytes, so one that came meanwhile may be replaced by an older forecast's list; what has rows says
    which forecast it is of, and no two are the same. Whoever published looks afterwards, so that the last one who wrote
    leaves the right one: a list is put before its forecast, and one that was replaced so had no rows.
    """
    while True:
        newest, listed = standing(forecast, store), standing(left_out, store)
        if newest is None or listed is None or str(listed) >= str(newest):
            return
        store.put_newest(left_out, EMPTY_LIST, str(newest), content_type=CSV)


def named(rows: pd.DataFrame, forecast_id: str) -> pd.DataFrame:
    """Rows of a forecast with their names: `<forecast id>-<number of the row>`, from 1 on."""
    numbers = pd.Series(range(1, len(rows) + 1), rows.index, dtype="int64").astype("str")
    return rows.assign(prediction_id=forecast_id + "-" + numbers)


def write_files(made: Forecast, forecast_id: str, directory: Path) -> dict[str, Path]:
    """The objects of a forecast as local files, by what they are."""
    forecast, left_out = directory / f"{forecast_id}.csv", directory / f"{forecast_id}_left_out.csv"
    append_csv(forecast, FORECAST_READ if "pred_low" in made.rows else FORECAST, named(made.rows, forecast_id))
    append_csv(left_out, LEFT_OUT, made.left_out.assign(forecast_id=forecast_id))
    return {"forecast": forecast, "latest": forecast, "left_out": left_out, "latest_left_out": left_out}


def _frame(content: bytes, schema: pa.Schema) -> pd.DataFrame:
    """A file that `append_csv` wrote."""
    options = pa_csv.ConvertOptions(column_types=schema, strings_can_be_null=False)
    frame: pd.DataFrame = pa_csv.read_csv(pa.BufferReader(content), convert_options=options).to_pandas(
        date_as_object=False
    )
    return frame
