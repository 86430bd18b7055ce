"""What the assets are partitioned by: deliveries of uploads, and weeks of training.

Symbols are rows, never partitions.
"""

from datetime import date, timedelta
from typing import Final

import dagster as dg

DELIVERIES: Final = dg.DynamicPartitionsDefinition(name="deliveries")
"""One partition for each delivery, added by the sensor; the key is the delivery's number in the log."""

WEEKS: Final = dg.WeeklyPartitionsDefinition(start_date="2013-04-28", timezone="UTC")
"""One partition for each week, named by its first day, a Sunday. A model of a week knows the days before its end."""


def week_end(week: str) -> date:
    """The first day after a week: what a model of that week must not know."""
    return date.fromisoformat(week) + timedelta(days=7)
