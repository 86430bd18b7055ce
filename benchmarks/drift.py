"""What monitoring finds of what is put into a real market, and how often it is wrong where nothing was.

The market is `market/crypto_markets.csv` of the folder that CRYPTO_ML_SHARED names; without it there is nothing to
measure. The figures stand in docs/monitoring.md.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from benchmarks.injected_faults import FAULTS, faults_at, skilled
from benchmarks.measure import Missed
from crypto_ml.forecasting.drift import LIMIT, PSI_TOLD, RECENT_DAYS, DataFaults, Losses, Reference, cusum, losses
from crypto_ml.forecasting.features import FloatArray, series_starts
from crypto_ml.forecasting.recent_gaps import MOST, log_gaps, recent_gaps

FIRST: Final = np.datetime64("2014-03-01")
FAULTY_WINDOWS: Final = 14
SEEDS: Final = 10
YEARS: Final = 7
REFERENCE: Final = 120
RIGHT: Final = (0.6, 0.7)
RULES: Final[dict[str, Callable[[DataFaults], bool]]] = {
    "gaps": lambda one: one.gaps_changed,
    "missing": lambda one: one.days_are_missing,
    "units": lambda one: bool(one.unit_changes),
    "rounded": lambda one: one.is_rounded,
}


def main() -> None:
    """Measure, print, and end with 1 where less is found than docs/monitoring.md promises."""
    folder = os.environ.get("CRYPTO_ML_SHARED")
    if not folder:
        sys.stdout.write("drift: CRYPTO_ML_SHARED is not set, so there is no market to measure on\n")
        return
    rows = market(Path(folder) / "market" / "crypto_markets.csv")
    found = data(rows)
    wanted = {"a fifth of the rows stale": "gaps", "close = middle of the range": "gaps"}
    wanted |= {"a tenth of the rows missing": "missing", "a tenth of the coins × 1,000": "units"}
    short = [name for name, rule in wanted.items() if found[name][rule] < 1]
    false, lost, turned = model(rows)
    if short or false > 0.1 or lost < 0.7 or turned < 0.95:
        raise Missed(f"not always found: {', '.join(short) or 'lost skill'}; false alarms in {false:.0%} of years")


def market(path: Path) -> pd.DataFrame:
    """The market, sorted by symbol and date."""
    rows = pd.read_csv(path, usecols=["symbol", "date", "open", "high", "low", "close"])
    rows = rows.assign(date=pd.to_datetime(rows["date"], format="%d/%m/%Y"))
    return rows.sort_values(["symbol", "date"]).reset_index(drop=True)


def data(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The share of windows in which each rule fires, sound and with each fault."""
    last = rows["date"].to_numpy("datetime64[D]").max()
    windows = np.arange(FIRST, last - RECENT_DAYS + 2, RECENT_DAYS)
    sound = [faults_at(rows, first) for first in windows]
    stable = np.mean([(one.psi or 0.0) > PSI_TOLD for one in sound])
    sys.stdout.write(f"drift: {len(windows)} sound windows of {RECENT_DAYS} days; PSI above {PSI_TOLD}: {stable:.0%}\n")
    found = {"sound": _rates(sound)}
    for name, fault in FAULTS.items():
        found[name] = _rates(
            [faults_at(rows, first, fault, seed) for first in windows[-FAULTY_WINDOWS:] for seed in range(3)]
        )
    for name, rates in found.items():
        told = ", ".join(f"{rule} {rate:.0%}" for rule, rate in rates.items())
        sys.stdout.write(f"drift: {name}: {told}\n")
    return found


def _rates(found: Sequence[DataFaults]) -> dict[str, float]:
    return {name: float(np.mean([rule(one) for one in found])) for name, rule in RULES.items()}


def model(rows: pd.DataFrame) -> tuple[float, float, float]:
    """Alarms a year of models with skill and without, and the shares of lost and of reversed skill that are found in a
    year: the worst of each."""
    starts = series_starts(rows["symbol"].to_numpy(object))
    gaps, size = log_gaps(rows, starts), recent_gaps(rows, starts)
    known = size.enough & np.isfinite(gaps)
    days = rows["date"].to_numpy("datetime64[D]")[known]
    opens = rows["open"].to_numpy(np.float64)[known]
    closes = np.append(np.nan, rows["close"].to_numpy(np.float64)[:-1])[known]
    clipped = np.clip(gaps[known], -MOST, MOST)

    def of(right: float, seed: int) -> Losses:
        moved = skilled(clipped, days, np.random.default_rng(seed), right=right)
        return losses(days, opens, closes * np.exp(moved), closes, size.size[known])

    begins = [FIRST + np.timedelta64(180 * number, "D") for number in range(YEARS)]
    false, lost, turned = [_false_alarms("no skill", of, 0.5, begins)], [], []
    for right in RIGHT:
        false.append(_false_alarms(f"right on {right:.0%} of rows", of, right, begins))
        lost.append(_found(f"right on {right:.0%}, then on half", of, right, 0.5, begins))
        turned.append(_found(f"right on {right:.0%}, then wrong as often", of, right, 1 - right, begins))
    same = losses(days, opens, closes, closes, size.size[known])
    quiet = all(not _first(same, same, begin) for begin in begins)
    sys.stdout.write(f"drift: the last close itself: {'no alarm' if quiet else 'ALARM'}\n")
    return max(false), min(lost), min(turned)


def _false_alarms(
    name: str, of: Callable[[float, int], Losses], right: float, begins: Sequence[np.datetime64]
) -> float:
    found = [_first(one, one, begin) for seed in range(SEEDS) for one in [of(right, seed)] for begin in begins]
    share = float(np.mean([one is not None for one in found]))
    sys.stdout.write(f"drift: {name}: alarms in {share:.0%} of {len(found)} years\n")
    return share


def _found(
    name: str, of: Callable[[float, int], Losses], right: float, then: float, begins: Sequence[np.datetime64]
) -> float:
    found = []
    for seed in range(SEEDS):
        good, worse = of(right, seed), of(then, seed + 1_000)
        found += [_first(good, worse, begin) for begin in begins]
    took = [one for one in found if one is not None]
    median = np.median([one if one is not None else np.inf for one in found])
    share = len(took) / len(found)
    sys.stdout.write(f"drift: {name}: found in {share:.0%} of {len(found)} years, median {median:g} days\n")
    return share


def _first(good: Losses, watched: Losses, begin: np.datetime64) -> int | None:
    """After how many days of the year from `begin` on there is an alarm; None where there is none."""
    before = (good.days < begin) & (good.days >= begin - np.timedelta64(REFERENCE, "D"))
    year = (watched.days >= begin) & (watched.days < begin + np.timedelta64(365, "D"))
    reference = Reference.of(Losses(good.days[before], good.daily[before]), "the days before")
    sums: FloatArray = cusum(Losses(watched.days[year], watched.daily[year]), reference).sums
    above = np.flatnonzero(sums > LIMIT)
    return int(above[0]) + 1 if len(above) else None


if __name__ == "__main__":
    main()
