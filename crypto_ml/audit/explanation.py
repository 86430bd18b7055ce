"""Why a number is what it is: what of its rows the prediction comes from, and what makes its interval so wide.

Belongs here: the explanation of one prediction of a model of relative gaps, from the same rows as its trace. Does not
belong here: where those rows came from (`trace`), and how an output is taken apart (`forecasting.attribution`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

import numpy as np

from crypto_ml.audit import forecast_trace
from crypto_ml.audit import trace as tracing
from crypto_ml.audit.made_of import MadeOf, told_made_of
from crypto_ml.audit.references import Reference, UnknownAnswer
from crypto_ml.audit.trace import EarlierRow
from crypto_ml.errors import Refused
from crypto_ml.extras import require_training
from crypto_ml.forecasting.attribution import OCCLUSION, attribution, gap_shares, next_window
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.columns import Columns
from crypto_ml.forecasting.recent_gaps import FEWEST
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.trained import METRICS
from crypto_ml.ledger.registry import Registry
from crypto_ml.storage.objects import ObjectStore

MOST_TOLD: Final = 8
"""Parts, and gaps, that people are told of: the largest."""


@dataclass(frozen=True)
class Part:
    """One number of the window: the day and feature it is of, in deviations from the training rows' mean, and what it
    adds to the output, in recent gap sizes before it is shrunk."""

    day: date
    feature: str
    value: float
    adds: float


@dataclass(frozen=True)
class Gap:
    """A gap that the recent gap size comes from: the day that opened with it, ln(open / close before), its share."""

    day: date
    gap: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """Why a prediction is what it is.

    learner: who learnt the model; word: what its training said of it against the last close. method: how `parts` were
    found, None where the last close is served, which has none; output, average: what the learner says of the window,
    and of an average one. parts, gaps: the largest first.
    """

    prediction_id: str
    symbol: str
    day: date
    pred_open: float
    model: str
    learner: str
    word: str | None
    made_of: MadeOf
    method: str | None
    output: float | None
    average: float | None
    parts: Sequence[Part]
    gaps: Sequence[Gap]

    def document(self) -> dict[str, Any]:
        """The explanation as JSON has it."""
        return asdict(self)


def explain(reference: Reference, store: ObjectStore) -> Explanation:
    """Explain one row of an answer or a forecast.

    Raises UnknownAnswer, what tracing raises, Refused for models that have no serving rule, NotInstalled where a
    network is to be taken apart and the libraries of training are missing.
    """
    if not reference.is_row:
        raise UnknownAnswer("one number is explained: give its prediction_id, or --symbol and --date with the file")
    if reference.is_forecast:
        forecast = forecast_trace.trace(reference, store)
        inputs = forecast.receipt.inputs
        bundle = _loaded(inputs.model_version, inputs.bundle_sha256, store)
        return _explained(bundle, forecast.row)
    answer = tracing.trace(reference, store)
    model = answer.receipt.model
    return _explained(_loaded(model.version, model.sha256, store), answer.row)


def _loaded(version: str, sha256: str, store: ObjectStore) -> ModelBundle:
    bundle = Registry(store).load(version)
    if bundle.sha256 != sha256:
        raise Refused(
            f"the model {version} is not the one that the receipt names; `crypto-ml replay` says what differs"
        )
    return bundle


def _explained(bundle: ModelBundle, row: "tracing.TracedRow | forecast_trace.TracedForecast | None") -> Explanation:
    if not bundle.pooled:
        raise Refused(
            f"the model {bundle.version} predicts a {bundle.target}, which is not taken apart; `crypto-ml trace` shows "
            "the rows that the number was made from"
        )
    if row is None or row.made_of is None:
        raise Refused("no row of the series stands before it, so nothing was predicted that could be explained")
    made = row.made_of
    day = row.date if isinstance(row, tracing.TracedRow) else row.target_date
    rows = Columns({name: np.array([one.observed[name] for one in row.earlier_rows], np.float64) for name in PRICES})
    metrics = bundle.document(METRICS)
    parts: list[Part] = []
    method, output, average = None, None, None
    if made.shrink and made.cap and made.gaps >= FEWEST:
        require_training("Taking a prediction apart")
        window = next_window(rows, bundle)
        found = attribution(bundle, window)
        method, output, average = found.method, found.output, found.average
        parts = [
            Part(
                row.earlier_rows[at - len(window)].date,
                bundle.features[k],
                float(window[at, k]),
                float(found.parts[at, k]),
            )
            for at, k in np.ndindex(*window.shape)
        ]
    return Explanation(
        prediction_id=row.prediction_id,
        symbol=row.symbol,
        day=day,
        pred_open=row.pred_open,
        model=bundle.version,
        learner=str(metrics.get("learner", "unknown")),
        word=metrics.get("verdicts", {}).get("last_close", {}).get("word"),
        made_of=made,
        method=method,
        output=output,
        average=average,
        parts=sorted(parts, key=lambda one: -abs(one.adds)),
        gaps=sorted(_gaps(row.earlier_rows, rows), key=lambda one: -one.share),
    )


def _gaps(earlier: Sequence[EarlierRow], rows: Columns) -> Iterator[Gap]:
    shares, opens, closes = gap_shares(rows), rows["open"], rows["close"]
    for number in range(1, len(earlier)):
        if shares[number]:
            gap = float(np.log(opens[number]) - np.log(closes[number - 1]))
            yield Gap(earlier[number].date, gap, float(shares[number]))


def told(found: Explanation) -> Iterator[str]:
    """An explanation in lines for people."""
    made = found.made_of
    yield f"{found.symbol} {found.day}: pred_open {found.pred_open!r}"
    yield f"  prediction    {found.prediction_id}"
    word = f", {found.word} against the last close when it was trained" if found.word else ""
    yield f"  model         {found.model}, learnt by {found.learner}{word}"
    yield from told_made_of(made)
    if found.method is None:
        yield "  why           it is the last close: nothing that was learnt moves it, so no feature has a part in it"
    else:
        yield (
            f"  why           the learner says {found.output:+.4g} recent gaps, of an average window "
            f"{found.average:+.4g}; what makes the difference, before λ and κ ({found.method}):"
        )
        for part in found.parts[:MOST_TOLD]:
            yield f"    {part.adds:+.4g}  {part.feature} of {part.day}, {part.value:+.2f} deviations from the mean"
        rest = sum(part.adds for part in found.parts[MOST_TOLD:])
        if found.method != OCCLUSION and len(found.parts) > MOST_TOLD:
            yield f"    {rest:+.4g}  the other {len(found.parts) - MOST_TOLD}"
    if made.pred_low is not None:
        yield "  how wide      the interval is as wide as the recent gap size, which comes from"
        for gap in found.gaps[:MOST_TOLD]:
            yield f"    {100 * gap.share:.0f} %  the gap of {gap.day}, {100 * gap.gap:+.3f} %"
