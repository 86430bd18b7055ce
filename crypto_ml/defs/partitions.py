"""What the assets are partitioned by: deliveries of uploads, and weeks of training; and what else a run may be given.

Symbols are rows, never partitions.
"""

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import dagster as dg

from crypto_ml.errors import Refused
from crypto_ml.ledger.deliveries import DeliveryLog

if TYPE_CHECKING:
    from crypto_ml.storage.objects import ObjectStore

DELIVERIES: Final = dg.DynamicPartitionsDefinition(name="deliveries")
"""One partition for each delivery, added by the sensor; the key is the delivery's number in the log."""

WEEKS: Final = dg.WeeklyPartitionsDefinition(start_date="2013-04-28", timezone="UTC")
"""One partition for each week, named by its first day, a Sunday. A model of a week knows the days before its end."""

MONTHS: Final = dg.MonthlyPartitionsDefinition(start_date="2009-01-01", timezone="UTC")
"""One partition for each month that is over, from that of the first day that is accepted; named by its first day."""


SUNDAY: Final = 6


class NoDelivery(Refused):
    """A run for something that is no delivery."""


class NoWeek(Refused):
    """A run for something that is no week."""


def delivery_of(context: dg.AssetExecutionContext, store: "ObjectStore") -> str:
    """The delivery that a run is about. Raises NoDelivery.

    A key that is none, which anybody can add in the UI, is taken out of the partitions again: nothing could ever
    materialise it, and its assets would stay failed for ever.
    """
    if not context.has_partition_key:
        raise NoDelivery("a run is about one delivery: launch it for one of them, by the tag dagster/partition")
    key = str(context.partition_key)
    if not DeliveryLog(store).has(key):
        context.instance.delete_dynamic_partition(str(DELIVERIES.name), key)
        raise NoDelivery(
            f"{key!r} is no delivery, and was taken out of the partitions again: uploads_sensor makes them, of what is "
            "dropped into uploads/; drop a file there, or launch one of the deliveries there are"
        )
    return key


def week_of(context: dg.AssetExecutionContext) -> str:
    """The week that a run is about. Raises NoWeek."""
    key = str(context.partition_key) if context.has_partition_key else ""
    try:
        begins = date.fromisoformat(key)
    except ValueError:
        begins = None
    if begins is None or begins.weekday() != SUNDAY:
        told = f"{key!r} is no week" if key else "a run is about one week"
        raise NoWeek(f"{told}: launch it for one of the partitions, each named by a Sunday such as 2018-03-18")
    return key


class NoMonth(Refused):
    """A run for something that is no month."""


def month_of(context: dg.AssetExecutionContext) -> date:
    """The first day of the month that a run is about. Raises NoMonth."""
    key = str(context.partition_key) if context.has_partition_key else ""
    try:
        begins = date.fromisoformat(key)
    except ValueError:
        begins = None
    if begins is None or begins.day != 1:
        told = f"{key!r} is no month" if key else "a run is about one month"
        raise NoMonth(f"{told}: launch it for one of the partitions, each named by a first day such as 2018-03-01")
    return begins


def last_week(day: date) -> str:
    """The last week that is over on a day (UTC)."""
    return str(day - timedelta(days=(day.weekday() - SUNDAY) % 7 + 7))


def week_end(week: str) -> date:
    """The first day after a week: what a model of that week must not know."""
    return date.fromisoformat(week) + timedelta(days=7)
