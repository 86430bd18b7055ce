"""backtest: models at rolling origins of the market history, with the data as known then; its scoreboard is kept.

What is asked for runs over one version of the history. Where most of the rows before an origin became known only later
(years that were uploaded at once), rows are taken by their dates instead, and the scoreboard says so.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any, Final, get_args

import pandas as pd

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.forecasting.backtest import (
    EVERY_DAYS,
    Known,
    Maker,
    Ran,
    Scoreboard,
    Span,
    by_dates,
    first_origin,
    predicted,
    run,
    scoreboards,
    served,
    spans,
)
from crypto_ml.forecasting.bundle import NETWORK, TRAINING_MANIFEST, ModelBundle
from crypto_ml.forecasting.comparison import fitted_before
from crypto_ml.forecasting.leaks import LeakCheck, check_leaks
from crypto_ml.forecasting.plan import LearnerName, Plan
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.sorting import as_frame
from crypto_ml.forecasting.trained import Trained
from crypto_ml.forecasting.training import train
from crypto_ml.forecasting.training_set import rows_sha256, split_by_time
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import JSON, backtest_key
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings
from crypto_ml.stages.scaler import SOURCE, fitted_scaler
from crypto_ml.stages.trained_model import best, plans_of
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import rendered

FORMAT: Final = 1

MOST_LATE: Final = 0.5
"""Share of the rows before an origin that may have become known after it: with more, rows are taken by their dates."""

RETRAIN: Final = "retrain"
"""What a competitor is called that takes at each origin what a retrain would have taken."""

ONE_DAY: Final = timedelta(1)


class LeaksFound(Refused):
    """Predictions that know of the future."""


@dataclass(frozen=True)
class Asked:
    """What a backtest is asked for.

    every: days from origin to origin. first: the first origin; None for one after a year of history, or half of a
    shorter one. models: versions in the registry, each as it is at every origin. learners: who is trained anew at every
    origin; without either, those of the settings, and beside them what a retrain takes of them. symbols: None for all.
    check_leaks: whether the last origin of every competitor is run again with its future disturbed.
    """

    every: int = EVERY_DAYS
    first: date | None = None
    models: tuple[str, ...] = ()
    learners: tuple[LearnerName, ...] = ()
    symbols: tuple[str, ...] | None = None
    check_leaks: bool = False


def learners_named(names: Sequence[str]) -> tuple[LearnerName, ...]:
    """Learners by their names, in the order in which they are trained. Raises Refused for one that there is not."""
    if unknown := sorted(set(names) - set(get_args(LearnerName))):
        raise Refused(f"no learner is called {', '.join(unknown)}; there are {', '.join(get_args(LearnerName))}")
    return tuple(name for name in get_args(LearnerName) if name in names)


@dataclass(frozen=True, eq=False)
class Backtested:
    """A backtest that was kept: its id and key, the document as it is stored, and what it was made from."""

    id: str
    key: str
    document: Mapping[str, Any]
    scoreboards: tuple[Scoreboard, ...]
    leaks: Mapping[str, LeakCheck]

    @property
    def knowledge(self) -> str:
        """How it is known what there was at the origins, in words."""
        counted = self.document["knowledge"]
        known, dates = counted["known"], counted["dates"]
        if not dates:
            return f"the rows that were known then, at all {known} origins"
        told_later = "rows of earlier days, because the history was told of most of them later"
        return (
            told_later if not known else f"the rows that were known then at {known} origins; at {dates}, {told_later}"
        )

    @property
    def leaking(self) -> str:
        """What was found of predictions that know of the future, in words; empty where nothing was."""
        return " ".join(f"{name}: {found.explanation}" for name, found in self.leaks.items() if not found.passed)


class KnownThen:
    """What a version of the history says was known at the end of a day, of the days before it."""

    def __init__(self, history: MarketHistory, version: int, symbols: tuple[str, ...] | None) -> None:
        self._history, self._version, self._symbols = history, version, symbols
        self.rows = as_frame(history.current_rows(list(OBSERVATION), symbols=symbols, version=version))
        self._by_dates = by_dates(self.rows)

    def __call__(self, day: date) -> Known:
        there = self._by_dates(day)
        end = datetime.combine(day + ONE_DAY, time(), UTC)
        known_version = self._history.version_known_by(end)
        if known_version is None:
            return there
        known = as_frame(
            self._history.current_rows(
                list(OBSERVATION), symbols=self._symbols, before=day, version=self._version, known_by=end
            )
        )
        late = len(known) < (1 - MOST_LATE) * len(there.rows)
        return there if late else Known(known, "known")


def backtest(asked: Asked, deployment: Deployment, now: datetime, tell: Tell = tell_nobody) -> Backtested:
    """Run what is asked for, and keep its scoreboard under an id that follows from it.

    Raises Refused where there are no rows, no origin, or no model that can be made at one; NotInstalled where a model
    is to be trained and the libraries of training are missing.
    """
    history, settings = deployment.history, deployment.settings
    version = history.version()
    if version is None:
        raise Refused("the market history has no rows yet; drop files into uploads/ first")
    known = KnownThen(history, version, asked.symbols)
    if known.rows.empty:
        raise Refused(
            "the market history has no rows of these symbols; `crypto-ml backtest` takes all without --symbols"
        )
    if missing := sorted(set(asked.symbols or ()) - set(known.rows["symbol"].unique())):
        raise Refused(f"the market history has no rows of {', '.join(missing)}; leave that out of the symbols")
    first_day, last_day = known.rows["date"].min().date(), known.rows["date"].max().date()
    if asked.first and asked.first <= first_day:
        raise Refused(
            f"no row before the first origin {asked.first} is known: the oldest is of {first_day}; give a later one"
        )
    over = spans(asked.first or first_origin(first_day, last_day), last_day, asked.every)
    competitors = _competitors(asked, deployment.registry, settings, tell)
    ran = [run(name, over, known, one.make, tell) for name, one in competitors.items()]
    boards = tuple(scoreboards(ran))
    leaks = {
        one.name: _checked(one, known, alone)
        for one in ran
        if asked.check_leaks and (alone := competitors[one.name].alone)
    }
    knowledge = [at.knowledge for at in ran[0].origins]
    document = {
        "format": FORMAT,
        "at": now.astimezone(UTC).isoformat(),
        "asked": {**asdict(asked), "first": asked.first and str(asked.first)},
        "history_version": version,
        "first_origin": str(over[0].origin),
        "last_day": str(last_day),
        "knowledge": {name: knowledge.count(name) for name in ("known", "dates")},
        "competitors": {name: one.said for name, one in competitors.items()},
        "origins": {one.name: [at.to_dict() for at in one.origins] for one in ran},
        "scoreboards": [board.to_dict() for board in boards],
        "leaks": {name: found.to_dict() for name, found in leaks.items()} or None,
        "code": code_version("crypto_ml.stages.backtest"),
        "software": asdict(software(settings.image)),
    }
    backtest_id = f"{last_day}-{sha256_of(json.dumps(document, sort_keys=True).encode())[:12]}"
    kept = {"id": backtest_id, **document}
    key = backtest_key(backtest_id)
    deployment.store.create_or_same(key, rendered(kept), content_type=JSON)
    return Backtested(backtest_id, key, kept, boards, leaks)


@dataclass(frozen=True)
class _Competitor:
    """How a competitor makes its models, and what the document says of it; alone: the same that shares nothing with
    what was made before, for a look at leaks, None where others of the competitors are what it takes."""

    make: Maker
    said: Mapping[str, Any]
    alone: Callable[[], Maker] | None = None


def _competitors(asked: Asked, registry: Registry, settings: Settings, tell: Tell) -> dict[str, _Competitor]:
    found = {}
    for version in asked.models:
        bundle = registry.load(version)
        ours = bundle.document(TRAINING_MANIFEST).get("source") == SOURCE
        until = fitted_before(bundle) if ours else None
        make = served(bundle, until)
        known = {"version": version, "fitted_before": until and str(until)}
        found[version] = _Competitor(make, known, partial(served, bundle, until))
    if asked.models and not asked.learners:
        return found
    plans = plans_of(settings, asked.learners)
    together = _Retrained(plans, tell)
    for plan in plans:
        said = {"plan": asdict(plan)}
        found[plan.learner] = _Competitor(together.by(plan), said, partial(_alone, plan, tell))
    if not asked.learners and len(plans) > 1:
        found[RETRAIN] = _Competitor(together.taken, {"learners": [plan.learner for plan in plans]})
    return found


class _Retrained:
    """What retrains would have left behind at the origins; a learner is trained once at each, whoever asks for it."""

    def __init__(self, plans: Sequence[Plan], tell: Tell) -> None:
        self._plans, self._tell = plans, tell
        self._made: dict[tuple[date, str], Trained] = {}

    def by(self, plan: Plan) -> Maker:
        """The models of one learner."""
        return lambda rows, origin: self._trained(plan, rows, origin).bundle

    def taken(self, rows: pd.DataFrame, origin: date) -> ModelBundle:
        """The model that a retrain would have named: the best that BEATS the last close, else that."""
        one = best([self._trained(plan, rows, origin) for plan in self._plans])
        last_close = replace(self._plans[0], learner="last_close")
        return (one or self._trained(last_close, rows, origin)).bundle

    def _trained(self, plan: Plan, rows: pd.DataFrame, origin: date) -> Trained:
        key = (origin, plan.learner)
        if key not in self._made:
            split = split_by_time(rows["date"])
            scaler, _ = fitted_scaler(rows, split, plan.target)
            manifest = {
                "source": "backtest",
                "as_of": str(origin),
                "rows_sha256": rows_sha256(rows),
                "split": {name: str(day) for name, day in asdict(split).items()},
            }
            label = f"backtest-{origin}"
            self._made[key] = train(
                rows, split, scaler, plan, label=label, manifest=manifest, created_at=str(origin), tell=self._tell
            )
        return self._made[key]


def _alone(plan: Plan, tell: Tell) -> Maker:
    return _Retrained([plan], tell).by(plan)


def _checked(ran: Ran, known: KnownThen, alone: Callable[[], Maker]) -> LeakCheck:
    """A competitor at its last origin with a few days after it, everything done again from the training on."""
    at = next((one for one in reversed(ran.origins) if one.rows and _days(one.span) >= 4), None)
    if at is None:
        raise Refused(f"{ran.name} predicted at no origin that has four days after it; leaks show on such an origin")
    span = at.span

    def predict(rows: pd.DataFrame) -> pd.DataFrame:
        history = by_dates(rows)
        bundle = alone()(history(span.origin).rows, span.origin)
        found = predicted(history(span.last_day + ONE_DAY).rows, span, bundle)
        # at λ = 0 no prediction shows what the network has learnt, so the network itself is compared as a number
        network = float(int(sha256_of(bundle.files[NETWORK])[:12], 16))
        return found[["symbol", "date", "pred_open", "pred_low", "pred_high"]].assign(network=network)

    rows = by_dates(known.rows)(span.last_day + ONE_DAY).rows
    return check_leaks(predict, rows, [span.first_day, span.first_day + timedelta(_days(span) // 2)])


def _days(span: Span) -> int:
    return (span.last_day - span.first_day).days + 1
