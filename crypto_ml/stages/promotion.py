"""champion_model: promote and roll back, the one way to either, whoever asks for it.

The gates of a promotion: no blocking check of the candidate's own training failed; on its holdout it is no worse than
the last close; and no worse than the champion, which is evaluated on the same rows. Worse means a greater mean relative
error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.training import METRICS, compare_on_holdout
from crypto_ml.ledger.registry import Champion, Gate, Registry
from crypto_ml.stages.scaler import NoTrainingSet, training_rows
from crypto_ml.storage.history import MarketHistory

BLOCKING: Final = ("onnx_equals_keras",)
LAST_CLOSE: Final = "no_worse_than_last_close"
CHAMPION: Final = "no_worse_than_champion"


@dataclass(frozen=True)
class Decision:
    """What somebody decided: the version that is to serve, None to go back to the one before; by whom, and why.

    override: why the version may serve although gates fail.
    """

    version: str | None
    by: str
    why: str
    override: str | None = None


def decide(decision: Decision, registry: Registry, history: MarketHistory, at: datetime) -> Champion:
    """Carry out a decision. Raises what `Registry.promote` and `Registry.roll_back` raise."""
    if decision.version is None:
        return registry.roll_back(by=decision.by, why=decision.why, at=at)
    candidate = registry.load(decision.version)
    champion = registry.champion()
    serving = registry.load(champion.version) if champion and champion.version != candidate.version else None
    return registry.promote(
        candidate.version,
        by=decision.by,
        why=decision.why,
        at=at,
        gates=list(gates(candidate, serving, history)),
        override=decision.override,
    )


def gates(candidate: ModelBundle, champion: ModelBundle | None, history: MarketHistory) -> Iterator[Gate]:
    """What a candidate has to pass; `champion` is the bundle that serves, None where it is the candidate itself."""
    metrics = candidate.document(METRICS)
    checks = metrics.get("checks", {})
    for name in (*BLOCKING, LAST_CLOSE):
        found = checks.get(name)
        if found is None:
            yield Gate(name, False, f"Its training left no verdict {name}, so it was not shown to be fit to serve.")
        else:
            yield Gate(name, bool(found["passed"]), str(found["explanation"]), found["numbers"])
    if champion:
        yield _against(candidate, champion, history)


def _against(candidate: ModelBundle, champion: ModelBundle, history: MarketHistory) -> Gate:
    try:
        rows, split = training_rows(candidate, history)
    except NoTrainingSet as none:
        why = f"It cannot be compared with the champion {champion.version}: {none}."
        return Gate(CHAMPION, False, why)
    ours, theirs = (found.overall for found in compare_on_holdout(rows, split, candidate, champion))
    passed = ours.network.mre <= theirs.network.mre
    explanation = (
        f"On the {theirs.rows} rows of its holdout that both can predict it is {100 * ours.network.mre:.3f} % off on "
        f"average, {'no worse' if passed else 'worse'} than the champion {champion.version} with "
        f"{100 * theirs.network.mre:.3f} %."
    )
    numbers = {"candidate_mre": ours.network.mre, "champion_mre": theirs.network.mre, "rows": float(theirs.rows)}
    return Gate(CHAMPION, passed, explanation, numbers)
