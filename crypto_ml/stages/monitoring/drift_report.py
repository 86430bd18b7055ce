"""drift_report: what was watched in a week as one page that can be sent on: no link is fetched, no script runs in it.

It is drawn by hand: the library that is made for such reports, evidently, compares distributions of inputs, which fire
on every healthy month of a market and cannot see lost skill, and brings a hundred megabytes with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, Final

import numpy as np

from crypto_ml.deployment import Deployment
from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.drift import LIMIT, PSI_TOLD, RECENT_DAYS
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.forecasting.sketches import OBSERVED, OTHER, PREDICTED, Line, sketch
from crypto_ml.ledger.alarms import AlarmLog
from crypto_ml.ledger.formats.alarms_v1 import AlarmsEntry
from crypto_ml.ledger.layout import drift_report_key
from crypto_ml.stages.monitoring import data_faults, model_drift, prediction_performance, service_health
from crypto_ml.stages.monitoring.data_faults import WatchedData
from crypto_ml.stages.monitoring.model_drift import ModelDrift
from crypto_ml.stages.monitoring.prediction_performance import Performance
from crypto_ml.stages.monitoring.service_health import ServiceHealth
from crypto_ml.storage.failures import AlreadyExists
from crypto_ml.visible import visible

MOST_COINS: Final = 50
HTML: Final = "text/html; charset=utf-8"
STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
    "td.n{text-align:right}.bad{color:#a40000;font-weight:600}.good{color:#2e6b2e}svg{max-width:100%;height:auto}"
    "figure{margin:1em 0}figcaption{color:#555;font-size:13px}"
)


@dataclass(frozen=True, eq=False)
class Watched:
    """Everything that a report tells of; None where there was nothing to look at."""

    deployment: str
    week: str
    made_at: datetime
    performance: Performance | None
    drift: ModelDrift | None
    data: WatchedData | None
    service: ServiceHealth
    alarms: AlarmsEntry
    entries: Sequence[AlarmsEntry]


@dataclass(frozen=True)
class Written:
    """A report: its key, its size in bytes, and how many alarms stand."""

    key: str
    size: int
    standing: int
    week: str


def write_report(deployment: Deployment, version: str, now: datetime) -> Written:
    """Look at everything, and keep the page, once for what it says."""
    settings, store = deployment.settings, deployment.store
    alarms = AlarmLog(store)
    where = f"{settings.bucket}/{settings.prefix}".rstrip("/") + f", {settings.environment}"
    page = rendered(
        Watched(
            deployment=where,
            week=week_of(now),
            made_at=now,
            performance=prediction_performance.performance(deployment),
            drift=model_drift.model_drift(deployment, version),
            data=data_faults.data_faults(deployment, now),
            service=service_health.service_health(store, now),
            alarms=alarms.state(),
            entries=alarms.since(now - timedelta(7)),
        )
    )
    body = page.encode()
    key = drift_report_key(week_of(now), sha256_of(body))
    with suppress(AlreadyExists):
        store.create(key, body, content_type=HTML)
    return Written(key, len(body), len(alarms.state().standing), week_of(now))


def week_of(now: datetime) -> str:
    """The week that ended last, as ISO 8601 counts weeks."""
    year, week, _ = (now.astimezone(UTC).date() - timedelta(7)).isocalendar()
    return f"{year}-W{week:02d}"


def rendered(watched: Watched) -> str:
    """The page."""
    parts = [
        f"<h1>What was watched, {_text(watched.week)}</h1>",
        f"<p>{_text(watched.deployment)}; made {watched.made_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC.</p>",
        *_alarms(watched),
        *_performance(watched.performance),
        *_drift(watched.drift),
        *_data(watched.data),
        *_service(watched.service),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>crypto_ml {_text(watched.week)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _alarms(watched: Watched) -> Iterator[str]:
    yield "<h2>Alarms</h2>"
    if not watched.alarms.standing:
        yield "<p class='good'>None stands.</p>"
    else:
        yield _table(
            [
                {
                    "alarm": one.name,
                    "since": one.since,
                    "times the limit": f"{one.how_bad:.1f}",
                    "what": one.what,
                    "to do": one.todo,
                }
                for one in watched.alarms.standing
            ]
        )
    changes = [(entry.at, name, change) for entry in watched.entries for name, change in entry.changes.items()]
    if told := [one for one in changes if one[2] in {"raised", "worse", "confirmed", "cleared"}]:
        yield "<p>In the last seven days:</p>"
        yield _table([{"when": at, "alarm": name, "became": change} for at, name, change in told])


def _performance(found: Performance | None) -> Iterator[str]:
    yield "<h2>Predictions</h2>"
    yield _said(prediction_performance.not_worse_than_last_close(found))
    yield _said(prediction_performance.intervals_hold(found))
    if found is None:
        return
    overall = found.overall
    yield _table(
        [
            {
                "": name,
                "mean absolute error over the last close's": _number(one.mase),
                "mean relative error": _number(one.mre),
            }
            for name, one in (
                ("predictions", overall.network),
                ("last close", overall.last_close),
                ("last open", overall.last_open),
            )
        ]
    )
    losses = prediction_performance.daily_losses(found)
    zero = np.zeros(len(losses))
    yield _figure(
        [Line(zero, OBSERVED, thick=True), Line(losses, PREDICTED)],
        f"loss of each day beyond the last close's, as a share of it; {found.loss.days[0]} to {found.loss.days[-1]}",
    )
    if found.level is not None and np.isfinite(found.covered_by_day).any():
        promised = np.full(len(found.covered_by_day), found.level)
        yield _figure(
            [Line(promised, OBSERVED, thick=True), Line(found.covered_by_day, PREDICTED)],
            f"share of opens within their interval, by day; {100 * found.level:g} % is promised (grey)",
        )
    yield f"<p>By coin, the worst first{_more(len(found.by_coin), MOST_COINS)}:</p>"
    yield _table(
        [
            {"coin": one.symbol, "rows": one.rows, "MASE": _number(one.mase), "coverage": _number(one.coverage)}
            for one in found.by_coin[:MOST_COINS]
        ]
    )


def _drift(found: ModelDrift | None) -> Iterator[str]:
    yield "<h2>Model drift</h2>"
    yield _said(model_drift.model_is_what_it_was(found))
    if found is not None and found.sum is not None and len(found.sum.sums):
        limit = np.full(len(found.sum.sums), LIMIT)
        yield _figure(
            [Line(limit, OTHER), Line(found.sum.sums, PREDICTED)],
            f"sum of daily losses above what they were, since {found.sum.days[0]}; the limit (orange) is {LIMIT:g}",
        )


def _data(found: WatchedData | None) -> Iterator[str]:
    yield "<h2>Data</h2>"
    if found is None:
        yield "<p>The history has no rows.</p>"
        return
    for verdict in data_faults.verdicts(found).values():
        yield _said(verdict)
    if found.found.by_day:
        limit = np.full(len(found.found.by_day), found.found.most_large_gaps)
        yield _figure(
            [Line(limit, OTHER), Line.of(found.found.by_day, PREDICTED)],
            f"share of opens far from the close before, by day; the limit of {RECENT_DAYS} days together is orange",
        )
    if found.found.psi is not None:
        marked = "above" if found.found.psi > PSI_TOLD else "below"
        yield (
            f"<p>Population stability index of gaps: {found.found.psi:.3f}, {marked} the {PSI_TOLD:g} that is usually "
            "worth a look; healthy months are often above it, so that it is no alarm.</p>"
        )


def _service(found: ServiceHealth) -> Iterator[str]:
    yield "<h2>Service</h2>"
    yield _said(service_health.answers_in_time(found))
    yield _said(service_health.nothing_given_up(found))
    outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(found.outcomes.items())) or "none"
    yield f"<p>Uploads: {_text(outcomes)}; requests: {found.requests:,}, rejected: {found.rejected_requests:,}.</p>"
    if len(found.lags):
        yield _figure([Line(found.lags, PREDICTED)], "seconds from upload to answer, of each delivery")


def _said(verdict: Verdict) -> str:
    mark = "<span class='good'>✓</span>" if verdict.passed else "<span class='bad'>✗</span>"
    return f"<p>{mark} {_text(verdict.explanation)}</p>"


def _figure(lines: Sequence[Line], caption: str) -> str:
    return f"<figure>{sketch(lines)}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0]) if rows else []
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(_cell(row[name]) for name in names) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    marked = " class='n'" if isinstance(value, int | float) else ""
    return f"<td{marked}>{_text(str(value))}</td>"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _more(count: int, shown: int) -> str:
    return f" ({shown} of {count:,})" if count > shown else ""


def _text(text: str) -> str:
    return escape(visible(text))
