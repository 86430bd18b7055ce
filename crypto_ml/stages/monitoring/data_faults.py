"""data_faults: whether the rows that came lately are what rows of those series were before, and whether rows come."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from crypto_ml.deployment import Deployment
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.drift import (
    BEFORE_DAYS,
    MISSING,
    QUANTILE,
    RECENT_DAYS,
    ROUNDED,
    DataFaults,
)
from crypto_ml.forecasting.drift import data_faults as faults_of
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.forecasting.features import series_starts
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.unit_changes import MOST
from crypto_ml.ledger.alarms import Condition
from crypto_ml.stages.monitoring.live_predictions import read_series

ROWS_BEFORE: Final = 25
"""Days before those that are looked at, for the unit of the first gaps."""

LATE: Final = timedelta(hours=36)
"""Without new rows for so long, a day is missing: rows come daily, and may be some hours late."""

GAPS_CHANGED: Final = "gaps_changed"
DAYS_MISSING: Final = "days_missing"
UNITS_CHANGED: Final = "units_changed"
PRICES_ROUNDED: Final = "prices_rounded"
ROWS_LATE: Final = "rows_late"
MOST_NAMED: Final = 5


@dataclass(frozen=True)
class WatchedData:
    """What was found in the history, of how many series where not all were read; when rows came last, and how long
    before the look that is."""

    found: DataFaults
    came: datetime | None
    waited: timedelta
    series_of: int | None = None

    @property
    def day(self) -> str:
        return str(self.found.last_day)


def data_faults(deployment: Deployment, now: datetime) -> WatchedData | None:
    """Of the last RECENT_DAYS days against BEFORE_DAYS before; None where the history has no rows."""
    history = deployment.history
    ends = history.days()
    if ends is None:
        return None
    days = RECENT_DAYS + BEFORE_DAYS + ROWS_BEFORE
    symbols, series_of = read_series(history, days)
    rows = history.current_rows(["symbol", "date", *PRICES], symbols=symbols, since=ends[1] - timedelta(days - 1))
    if not rows.num_rows:
        return None
    columns = Columns.of(rows.drop_columns(["date"]))
    starts = series_starts(columns["symbol"])
    found = faults_of(columns, starts, rows["date"].to_numpy().astype("datetime64[D]"))
    came = next((one.known_at for one in history.table.commits_back() if one.known_at), None)
    return WatchedData(found, came, now - came if came else timedelta(), series_of)


def gaps_are_what_they_were(one: WatchedData) -> Verdict:
    """Whether opens lie about as far from the closes before them as they did, in the unit of each series."""
    found = one.found
    if found.large_gaps is None:
        return Verdict(True, {"rows": found.rows}, found.most_large_gaps, f"too few rows to tell: {found.rows}")
    said = (
        f"{100 * found.large_gaps:.1f} % of {found.rows:,} opens since {found.first_day} are further from the close "
        f"before than {100 * QUANTILE:g} % were in the {BEFORE_DAYS} days before; "
        f"the limit is {100 * found.most_large_gaps:.1f} %"
    )
    why = "; rows that repeat a day before, opens of another hour, and closes that are none look like this"
    numbers: dict[str, float | None] = {"large_gaps": found.large_gaps, "rows": found.rows, "psi": found.psi}
    return Verdict(not found.gaps_changed, numbers, found.most_large_gaps, said + (why if found.gaps_changed else ""))


def no_day_missing(one: WatchedData) -> Verdict:
    """Whether series have a row for each of their days, as they had."""
    found = one.found
    return Verdict(
        not found.days_are_missing,
        {"missing": found.missing, "missing_before": found.missing_before, "missing_days": found.missing_days},
        MISSING,
        f"{found.missing_days:,} days of {found.series:,} series have no row since {found.first_day}, which is "
        f"{100 * found.missing:.2f} % ({100 * found.missing_before:.2f} % before); "
        f"the limit is {100 * MISSING:g} % more",
    )


def units_unchanged(one: WatchedData) -> Verdict:
    """Whether no row opens so far from the close before that it seems to be in another unit."""
    changes = one.found.unit_changes
    named = "; ".join(f"{symbol} on {day} (× {times:,.4g})" for symbol, day, times in changes[:MOST_NAMED])
    more = f" and {len(changes) - MOST_NAMED:,} more" if len(changes) > MOST_NAMED else ""
    rows = "1 row opens" if len(changes) == 1 else f"{len(changes):,} rows open"
    return Verdict(
        not changes,
        {"unit_changes": len(changes)},
        0,
        f"{rows} more than {math.exp(MOST):.1f} times above or below the close before since {one.found.first_day}"
        + (f": {named}{more}" if changes else ""),
    )


def prices_not_rounded(one: WatchedData) -> Verdict:
    """Whether prices have about as many digits as they had."""
    found = one.found
    return Verdict(
        not found.is_rounded,
        {"rounded": found.rounded, "rounded_before": found.rounded_before},
        ROUNDED,
        f"{100 * found.rounded:.0f} % of rows since {found.first_day} have no price of more than three digits "
        f"({100 * found.rounded_before:.0f} % before); {100 * ROUNDED:g} % more is the limit",
    )


def rows_keep_coming(one: WatchedData) -> Verdict:
    """Whether rows came lately."""
    hours = one.waited.total_seconds() / 3600
    when = f"{one.came:%Y-%m-%d %H:%M} UTC" if one.came else "a time that is not known"
    return Verdict(
        one.waited <= LATE,
        {"hours_since_rows_came": hours},
        LATE.total_seconds() / 3600,
        f"rows came last at {when}, {hours:.1f} hours before; the newest day is {one.day}",
    )


def verdicts(one: WatchedData) -> dict[str, Verdict]:
    """All of it, by the name of the alarm."""
    return {
        GAPS_CHANGED: gaps_are_what_they_were(one),
        DAYS_MISSING: no_day_missing(one),
        UNITS_CHANGED: units_unchanged(one),
        PRICES_ROUNDED: prices_not_rounded(one),
        ROWS_LATE: rows_keep_coming(one),
    }


REMEDIES: Final = {
    GAPS_CHANGED: "look at what the source delivers: stale rows, another hour of the day, closes that are averages; "
    "correct the files and drop them again, or retract them (`crypto-ml retract`)",
    DAYS_MISSING: "ask the source for the days that are missing, and drop them",
    UNITS_CHANGED: "correct the rows and drop the file again, or retract it (`crypto-ml retract`)",
    PRICES_ROUNDED: "ask the source for prices as they were",
    ROWS_LATE: "look at what drops files; where they are dropped, `crypto-ml doctor` says what holds them up",
}


def conditions(one: WatchedData | None, now: datetime) -> list[Condition]:
    """What of it may be an alarm."""
    if one is None:
        return []
    found = one.found
    excess = max(found.missing - found.missing_before, 0.0)
    how_bad = {
        GAPS_CHANGED: (found.large_gaps or 0.0) / found.most_large_gaps,
        DAYS_MISSING: excess / MISSING,
        UNITS_CHANGED: float(len(found.unit_changes)),
        PRICES_ROUNDED: max(found.rounded - found.rounded_before, 0.0) / ROUNDED,
        ROWS_LATE: one.waited / LATE,
    }
    too_few = found.large_gaps is None
    return [
        Condition(
            name,
            passed=None if name == GAPS_CHANGED and too_few else verdict.passed,
            what=verdict.explanation,
            how_bad=how_bad[name],
            todo=REMEDIES[name],
            # rows that do not come leave the newest day as it is
            day=str(now.astimezone(UTC).date()) if name == ROWS_LATE else one.day,
            since=_since(name, one),
        )
        for name, verdict in verdicts(one).items()
    ]


def _since(name: str, one: WatchedData) -> str | None:
    if name == ROWS_LATE:
        return one.came.isoformat(timespec="seconds") if one.came else None
    if name == UNITS_CHANGED and one.found.unit_changes:
        return str(min(day for _, day, _ in one.found.unit_changes))
    return None
