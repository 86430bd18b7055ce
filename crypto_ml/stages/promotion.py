"""champion_model: promote and roll back, the one way to either, whoever asks for it.

The gates of a promotion: no blocking check of the candidate's own training failed; its holdout has enough rows to say
anything; there it is no worse than the last close; and no worse than the champion, which is evaluated on the same
rows. Worse means a greater mean relative error. Everything that can fail comes before the pointer is written, and the
same decision is carried out once.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import uuid4

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.evaluation import holdout_size_verdict
from crypto_ml.forecasting.holdout import compare_on_holdout
from crypto_ml.forecasting.trained import METRICS
from crypto_ml.ledger.registry import Champion, Gate, Registry
from crypto_ml.stages.scaler import NoTrainingSet, training_rows
from crypto_ml.storage.history import MarketHistory

BLOCKING: Final = ("onnx_equals_keras",)
LAST_CLOSE: Final = "no_worse_than_last_close"
HOLDOUT: Final = "enough_holdout_rows"
CHAMPION: Final = "no_worse_than_champion"


@dataclass(frozen=True)
class Decision:
    """What somebody decided: the version that is to serve, None to go back to the one before; by whom, and why.

    override: why the version may serve although gates fail. id: what tells this decision from any other; decided again
    under the same id, it is the same decision.
    """

    version: str | None
    by: str
    why: str
    override: str | None = None
    id: str = field(default_factory=lambda: uuid4().hex)

    def of_run(self, run_id: str) -> "Decision":
        """The decision as one run takes it: the same however often the run, or a step of it, is tried again."""
        content = json.dumps([self.version, self.by, self.why, self.override])
        return replace(self, id=f"{run_id}-{sha256_of(content.encode())[:16]}")


def decide(decision: Decision, registry: Registry, history: MarketHistory, at: datetime) -> Champion:
    """Carry out a decision, once; the entry of the pointer that it led to.

    Raises what `Registry.promote` and `Registry.roll_back` raise.
    """
    if carried_out := registry.decided(decision.id):
        return carried_out
    if decision.version is None:
        return registry.roll_back(by=decision.by, why=decision.why, at=at, decision=decision.id)
    champion = registry.champion()
    candidate = registry.load(decision.version)
    serving = registry.load(champion.version) if champion and champion.version != candidate.version else None
    return registry.promote(
        candidate.version,
        by=decision.by,
        why=decision.why,
        at=at,
        gates=list(gates(candidate, serving, history)),
        override=decision.override,
        decision=decision.id,
        after=champion.pointer if champion else 0,  # whoever serves by then is not who it was compared with
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
    rows = metrics.get("holdout", {}).get("overall", {}).get("rows")
    if rows is not None:  # without a holdout there is no verdict on it either
        size = holdout_size_verdict(int(rows))
        yield Gate(HOLDOUT, size.passed, size.explanation, size.numbers)
    if champion:
        yield _against(candidate, champion, history)


def _against(candidate: ModelBundle, champion: ModelBundle, history: MarketHistory) -> Gate:
    try:
        rows, split = training_rows(candidate, history)
    except NoTrainingSet as none:
        why = f"It cannot be compared with the champion {champion.version}: {none}."
        return Gate(CHAMPION, False, why)
    ours, theirs = (found.overall for found in compare_on_holdout(rows, split, candidate, champion))
    if not (size := holdout_size_verdict(theirs.rows)).passed:
        why = f"It cannot be compared with the champion {champion.version} on the rows both can predict. "
        return Gate(CHAMPION, False, why + size.explanation, size.numbers)
    passed = ours.network.mre <= theirs.network.mre
    explanation = (
        f"On the {theirs.rows} rows of its holdout that both can predict it is {100 * ours.network.mre:.3f} % off on "
        f"average, {'no worse' if passed else 'worse'} than the champion {champion.version} with "
        f"{100 * theirs.network.mre:.3f} %."
    )
    numbers = {"candidate_mre": ours.network.mre, "champion_mre": theirs.network.mre, "rows": float(theirs.rows)}
    return Gate(CHAMPION, passed, explanation, numbers)
