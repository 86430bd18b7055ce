"""champion_model: promote and roll back, the one way to either, whoever asks for it.

The gates of a promotion: no blocking check of the candidate's own training failed; its holdout has enough rows to say
anything; there it BEATS the last close or TIES with it (see `forecasting.verdicts`), and what corrects the last close
by a serving rule has to BEAT it; and it BEATS the champion or TIES with it on the same rows. Everything that can fail
comes before the pointer is written, and the same decision is carried out once.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import uuid4

import pandas as pd

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.evaluation import holdout_size_verdict
from crypto_ml.forecasting.holdout import holdout_predictions
from crypto_ml.forecasting.holdout_verdicts import against_last_close, against_model
from crypto_ml.forecasting.trained import METRICS
from crypto_ml.forecasting.training_set import Split, TooLittleHistory
from crypto_ml.forecasting.verdicts import ADVISED_DAYS, Judgement
from crypto_ml.ledger.registry import Champion, Gate, Registry
from crypto_ml.stages.scaler import NoTrainingSet, training_rows
from crypto_ml.storage.caller import caller
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
    """Carry out a decision, once; the entry of the pointer that it led to, which says who acted (see `caller`).

    Raises what `Registry.promote` and `Registry.roll_back` raise.
    """
    if carried_out := registry.decided(decision.id):
        return carried_out
    acted_as = caller(registry.store.client)
    if decision.version is None:
        return registry.roll_back(by=decision.by, why=decision.why, at=at, decision=decision.id, acted_as=acted_as)
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
        acted_as=acted_as,
    )


def gates(candidate: ModelBundle, champion: ModelBundle | None, history: MarketHistory) -> Iterator[Gate]:
    """What a candidate has to pass; `champion` is the bundle that serves, None where it is the candidate itself."""
    metrics = candidate.document(METRICS)
    for name in BLOCKING:
        yield _recorded(name, metrics)
    holdout = _Holdout(candidate, history)
    yield _against_last_close(candidate, metrics, holdout)
    rows = metrics.get("holdout", {}).get("overall", {}).get("rows")
    if rows is not None:  # without a holdout there is no verdict on it either
        size = holdout_size_verdict(int(rows))
        yield Gate(HOLDOUT, size.passed, size.explanation, size.numbers)
    if champion:
        yield _against_champion(candidate, champion, holdout)


class _Holdout:
    """The rows of a candidate's holdout, as the history has them, read where a gate asks for them."""

    def __init__(self, candidate: ModelBundle, history: MarketHistory) -> None:
        self._candidate, self._history = candidate, history

    @cached_property
    def _rows(self) -> tuple[pd.DataFrame, Split]:
        return training_rows(self._candidate, self._history)

    def predicted_by(self, bundle: ModelBundle) -> pd.DataFrame:
        """See `holdout_predictions`. Raises Refused where the history does not have the rows."""
        return holdout_predictions(*self._rows, bundle)


def _recorded(name: str, metrics: Mapping[str, Any]) -> Gate:
    found = metrics.get("checks", {}).get(name)
    if found is None:
        return Gate(name, False, f"Its training left no verdict {name}, so it was not shown to be fit to serve.")
    return Gate(name, bool(found["passed"]), str(found["explanation"]), found["numbers"])


def _against_last_close(candidate: ModelBundle, metrics: Mapping[str, Any], holdout: _Holdout) -> Gate:
    rule = candidate.rule
    if rule and rule.serves_last_close:
        return Gate(LAST_CLOSE, True, "TIES: it serves the last close itself (λ = 0).", {"lambda": 0.0})
    judgement = recorded_judgement(metrics)
    if judgement is None:  # of a release that compared means
        try:
            judgement = against_last_close(holdout.predicted_by(candidate)).judgement
        except (NoTrainingSet, TooLittleHistory):  # the history never had its rows
            return _recorded(LAST_CLOSE, metrics)
    return last_close_gate(judgement, rule.shrink if rule else None)


def recorded_judgement(metrics: Mapping[str, Any]) -> Judgement | None:
    """The word against the last close that a model's training left in its metrics.json; None before 0.6."""
    found = metrics.get("verdicts", {}).get("last_close")
    return Judgement.read(found) if found else None


def last_close_gate(judgement: Judgement, shrink: float | None) -> Gate:
    """What a word against the last close means for a candidate that corrects it by λ = `shrink`; None: by no rule."""
    passed = judgement.word == "BEATS" or (judgement.word == "TIES" and shrink is None)
    what_to_do = {
        "TIES": f"It corrects the last close (λ = {shrink}), which only a model that BEATS it may: retrain, which "
        "leaves λ at 0 otherwise.",
        "WORSE": "The last close is the better prediction: train with the target relative_gap, which falls back to it.",
        "INCONCLUSIVE": f"Retrain when the holdout has more days, {ADVISED_DAYS} of them at least; until then the last "
        "close is the safer prediction.",
    }
    return _gate(LAST_CLOSE, judgement, passed, what_to_do)


def champion_gate(judgement: Judgement, *, is_last_close: bool = False) -> Gate:
    """What a word against the champion means for a candidate. is_last_close: whether it serves the last close."""
    passed = judgement.word in ("BEATS", "TIES")
    unless = (
        ", or, where the champion is in doubt, promote this one with that as override: it is the last close itself "
        "(λ = 0), which can be no worse than the last close"
    )
    what_to_do = {
        "WORSE": "Keep the champion.",
        "INCONCLUSIVE": f"Keep the champion until a candidate's holdout has more days, {ADVISED_DAYS} at least"
        f"{unless * is_last_close}.",
    }
    return _gate(CHAMPION, judgement, passed, what_to_do)


def _gate(name: str, judgement: Judgement, passed: bool, what_to_do: Mapping[str, str]) -> Gate:
    sentence = f"{judgement.word}: {judgement.explanation}"
    return Gate(name, passed, sentence if passed else f"{sentence} {what_to_do[judgement.word]}", judgement.numbers)


def _against_champion(candidate: ModelBundle, champion: ModelBundle, holdout: _Holdout) -> Gate:
    who = f"the champion {champion.version}"
    try:
        judged = against_model(holdout.predicted_by(candidate), holdout.predicted_by(champion), who)
    except (NoTrainingSet, TooLittleHistory) as none:
        return Gate(CHAMPION, False, f"It cannot be compared with {who}: {none}.")
    size = holdout_size_verdict(judged.judgement.rows if judged else 0)
    if judged is None or not size.passed:
        why = f"It cannot be compared with {who} on the rows both can predict. "
        return Gate(CHAMPION, False, why + size.explanation, size.numbers)
    rule = candidate.rule
    return champion_gate(judged.judgement, is_last_close=rule is not None and rule.serves_last_close)
