"""backtest: models at rolling origins of the market history, with the data as known then; its scoreboard is kept.

What is asked for runs over one version of the history. Where most of the rows before an origin became known only later
(years that were uploaded at once), rows are taken by their dates instead, and the scoreboard says so.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

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
    refitted,
    run,
    scoreboards,
    served,
    spans,
)
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
from crypto_ml.forecasting.comparison import fitted_before
from crypto_ml.forecasting.leaks import LeakCheck, check_leaks
from crypto_ml.forecasting.plan import Plan
from crypto_ml.forecasting.progress import Tell, tell_nobody
from crypto_ml.forecasting.schema import OBSERVATION
from crypto_ml.forecasting.sorting import as_frame
from crypto_ml.ledger.code import code_version
from crypto_ml.ledger.layout import JSON, backtest_key
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.software import software
from crypto_ml.settings import Settings
from crypto_ml.stages.scaler import SOURCE
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import rendered

FORMAT: Final = 1

MOST_LATE: Final = 0.5
"""Share of the rows before an origin that may have become known after it: with more, rows are taken by their dates."""

ONE_DAY: Final = timedelta(1)


class LeaksFound(Refused):
    """Predictions that know of the future."""


@dataclass(frozen=True)
class Asked:
    """What a backtest is asked for.

    every: days from origin to origin. first: the first origin; None for one after a year of history, or half of a
    shorter one. models: versions in the registry, each as it is at every origin. symbols: None for all. check_leaks:
    whether the last origin of every competitor is run again with its future disturbed.
    """

    every: int = EVERY_DAYS
    first: date | None = None
    models: tuple[str, ...] = ()
    symbols: tuple[str, ...] | None = None
    check_leaks: bool = False


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

    Without models it is what a retrain with these settings trains, fitted anew at every origin. Raises Refused where
    there are no rows, no origin, or no model that can be made at one.
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
    first_day, last_day = known.rows["date"].min().date(), known.rows["date"].max().date()
    over = spans(asked.first or first_origin(first_day, last_day), last_day, asked.every)
    competitors = _competitors(asked, deployment.registry, settings, tell)
    ran = [run(name, over, known, one.make, tell) for name, one in competitors.items()]
    boards = tuple(scoreboards(ran))
    leaks = {one.name: _checked(one, known, competitors[one.name].make) for one in ran} if asked.check_leaks else {}
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
    """How a competitor makes its models, and what the document says of it."""

    make: Maker
    said: Mapping[str, Any]


def _competitors(asked: Asked, registry: Registry, settings: Settings, tell: Tell) -> dict[str, _Competitor]:
    found = {}
    for version in asked.models:
        bundle = registry.load(version)
        ours = bundle.document(TRAINING_MANIFEST).get("source") == SOURCE
        until = fitted_before(bundle) if ours else None
        found[version] = _Competitor(served(bundle, until), {"version": version, "fitted_before": until and str(until)})
    if not asked.models:
        plan = Plan(target=settings.target, epochs=settings.epochs, drawn="each epoch")
        found["retrain"] = _Competitor(refitted(plan, tell), {"plan": asdict(plan)})
    return found


def _checked(ran: Ran, known: KnownThen, make: Maker) -> LeakCheck:
    """A competitor at its last origin with a few days after it, everything done again from the training on."""
    at = next((one for one in reversed(ran.origins) if one.rows and _days(one.span) >= 4), None)
    if at is None:
        raise Refused(f"{ran.name} predicted at no origin that has four days after it; leaks show on such an origin")
    span = at.span

    def predict(rows: Any) -> Any:
        history = by_dates(rows)
        found = predicted(history(span.last_day + ONE_DAY).rows, span, make(history(span.origin).rows, span.origin))
        return found[["symbol", "date", "pred_open", "pred_low", "pred_high"]]

    rows = by_dates(known.rows)(span.last_day + ONE_DAY).rows
    return check_leaks(predict, rows, [span.first_day, span.first_day + timedelta(_days(span) // 2)])


def _days(span: Span) -> int:
    return (span.last_day - span.first_day).days + 1
