"""The serving rule of a model that goes on serving, brought up to the days that came since: the network stays as it is.

A network is fitted once a week; what it is multiplied by, and how wide intervals are, may follow the market every day:

- interval quantiles: of the gaps of the last INTERVAL_DAYS days, of all series (they know nothing of the network);
- the model of the range: fitted on the last CALIBRATION_DAYS days, where they have FEWEST_ROWS rows of it;
- λ: chosen on the earlier half of the days that the network was not fitted on, and kept above 0 where the network, so
  shrunk, BEATS the last close on the later half. Below FEWEST_DAYS in each half it stays what it was.

Belongs here: from rows to a rule. Does not belong here: which rows, and what becomes of it.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np

from crypto_ml.errors import Refused
from crypto_ml.forecasting.bundle import NETWORK, ModelBundle
from crypto_ml.forecasting.columns import Rows
from crypto_ml.forecasting.daily_range import FEWEST_ROWS, fit_range_model, observed_log_range, range_terms
from crypto_ml.forecasting.features import BoolArray, FloatArray, series_starts
from crypto_ml.forecasting.inference import Network
from crypto_ml.forecasting.intervals import CALIBRATION_DAYS, interval_quantiles
from crypto_ml.forecasting.recent_gaps import log_gaps
from crypto_ml.forecasting.relative_answers import Measured
from crypto_ml.forecasting.schema import STATIONARY
from crypto_ml.forecasting.serving_rule import ServingRule
from crypto_ml.forecasting.shrinkage import choose_shrinkage, served, shrunk_network
from crypto_ml.forecasting.stationary import stationary_windows
from crypto_ml.forecasting.verdicts import FEWEST_DAYS, LEVEL_OF_EVERY_RETRAIN, Judgement, judge

INTERVAL_DAYS: Final = 90
MOST_GAP: Final = 10.0
"""Recent gaps at which outputs and targets are clipped, as in training."""


class NoRule(Refused):
    """A model whose network takes no serving rule."""


@dataclass(frozen=True)
class Refreshed:
    """A rule, the last day that it knows, and the word on which λ rests; None where λ stayed what it was."""

    rule: ServingRule
    last_day: date
    judgement: Judgement | None


def refreshed(bundle: ModelBundle, rows: Rows, days: np.ndarray, unseen_from: date) -> Refreshed:
    """The rule of a bundle from n rows, sorted by series and date, with `symbol` and the prices.

    days: (n,) datetime64[D]. unseen_from: the first day that the network was not fitted on. Raises NoRule.
    """
    if bundle.rule is None:
        raise NoRule(f"{bundle.version} predicts a {bundle.target}, which has no serving rule to refresh")
    starts = series_starts(rows["symbol"])
    last: date = days.max().item()
    quantiles = _quantiles(rows, starts, days, last)
    recent = days > np.datetime64(last) - np.timedelta64(CALIBRATION_DAYS, "D")
    terms, there = range_terms(rows, starts)
    observed = observed_log_range(rows)
    known = recent & there & np.isfinite(observed)
    shrink, chosen, judgement = _shrinkage(bundle, bundle.rule, rows, days, unseen_from)
    made_from: dict[str, Any] = {
        "refreshed": {
            "of": bundle.version,
            "last_day": str(last),
            "interval_days": INTERVAL_DAYS,
            "range_days": CALIBRATION_DAYS,
            "ranges": int(known.sum()),
        },
        "shrinkage": chosen,
        "verdict": judgement.to_dict() if judgement else bundle.rule.made_from.get("verdict"),
    }
    rule = ServingRule(
        shrink,
        bundle.rule.cap,
        quantiles or bundle.rule.quantiles,
        fit_range_model(terms[known], observed[known]) if known.sum() >= FEWEST_ROWS else bundle.rule.range,
        made_from,
    )
    return Refreshed(rule, last, judgement)


def _quantiles(rows: Rows, starts: np.ndarray, days: np.ndarray, last: date) -> dict[float, float]:
    at = np.flatnonzero(days > np.datetime64(last - timedelta(INTERVAL_DAYS)))
    measured = Measured.of(rows, starts, at, days)
    gaps = measured.gaps
    ratios = np.abs(log_gaps(rows, starts)[at]) / gaps.size[at]
    return interval_quantiles(ratios[gaps.enough[at] & ~measured.paused & np.isfinite(ratios)])


def _shrinkage(
    bundle: ModelBundle, rule: ServingRule, rows: Rows, days: np.ndarray, unseen_from: date
) -> tuple[float, dict[str, Any], Judgement | None]:
    """λ, how it came about, and the word it rests on."""
    starts, asked = series_starts(rows["symbol"]), np.flatnonzero(days >= np.datetime64(unseen_from))
    measured = Measured.of(rows, starts, asked)
    size, enough = measured.units.gaps.size[asked], measured.units.gaps.enough[asked]
    gaps = log_gaps(rows, starts)[asked]
    known = enough & np.isfinite(gaps)
    at, size, target, when = asked[known], size[known], (gaps / size)[known], days[asked][known]
    each = np.unique(when)
    if len(each) < 2 * FEWEST_DAYS:
        kept = f"{len(each)} days were not fitted on, and {2 * FEWEST_DAYS} are needed to choose λ anew"
        return rule.shrink, {"rule": "kept", "why": kept, "lambda": rule.shrink}, None
    middle = each[len(each) // 2]
    output = _raw(bundle, measured, at)
    early: BoolArray = when < middle
    limited = np.clip(target, -MOST_GAP, MOST_GAP)
    found = choose_shrinkage(output[early], limited[early], when[early], cap=rule.cap)
    late = ~early
    opens, closes = (np.asarray(rows[name], np.float64) for name in ("open", "close"))
    close = closes[at - 1][late]
    moved = served(output[late], found.shrink, rule.cap)
    judgement = judge(
        when[late], np.asarray(rows["symbol"]).astype(str)[at][late], opens[at][late],
        close * (1.0 + size[late] * moved), close, close, level=LEVEL_OF_EVERY_RETRAIN,
    )  # fmt: skip
    shrink = found.shrink if judgement.word == "BEATS" else 0.0
    return shrink, {**(found.chosen or {}), "lambda": found.shrink, "chosen_before": str(middle)}, judgement


def _raw(bundle: ModelBundle, measured: Measured, at: np.ndarray) -> FloatArray:
    """What the network says of some rows, (m,), before it is shrunk and capped, within ± MOST_GAP."""
    network = Network.from_bytes(shrunk_network(bundle.files[NETWORK], 1.0, MOST_GAP), features=len(STATIONARY))
    windows = stationary_windows(measured.block, measured.units, bundle.scaler, measured.starts, at)
    output: FloatArray = network.predict(windows)
    return output
