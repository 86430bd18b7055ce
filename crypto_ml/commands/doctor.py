"""`crypto-ml doctor`: is everything reachable and running, and if not, what to do."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from crypto_ml.commands.printing import print_json, say
from crypto_ml.errors import CryptoMLError, Refused

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from crypto_ml.defs.dagster_internals import InstigatorState
    from crypto_ml.deployment import Deployment
    from crypto_ml.storage.objects import ObjectStore

MOST_SKEW: Final = 60.0
MOST_LAG: Final = 120.0
UNSETTLED: Final = timedelta(minutes=25)
"""Longer than a service that runs needs for what one that was killed left behind: a sweep leaves a quarter of an hour
alone, and comes every few minutes."""

MOST_NAMED: Final = 5
LOOKED_AT_TICKS: Final = 20
State = Literal["ok", "warn", "fail", "skipped"]
MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗", "skipped": "–"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: how it is, and what to do where it is not well."""

    what: str
    state: State
    detail: str


@dataclass
class Examined:
    """What was measured on the way: see `ledger.metrics.Metrics`; and how the sensor's last tick went."""

    metrics: dict[str, Any] = field(default_factory=dict)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings, and numbers for a monitor, as JSON.")
def command(as_json: bool) -> None:
    """Look at settings, store, model, Dagster and unanswered uploads, and say what to do about what is wrong."""
    examined = Examined()
    findings = list(examine(examined))
    if as_json:
        told = {"findings": [asdict(finding) for finding in findings], "metrics": examined.metrics}
        print_json(told)
    else:
        for finding in findings:
            say(f"{MARKS[finding.state]} {finding.what}: {finding.detail}")
    failed = [finding.what for finding in findings if finding.state == "fail"]
    if failed:
        raise Refused(f"not well: {', '.join(failed)}")


def examine(examined: Examined) -> Iterator[Finding]:
    """Every finding, in the order in which one thing depends on another; it ends where nothing further can be seen."""
    from crypto_ml.deployment import Deployment
    from crypto_ml.settings import Settings, unknown_variables, variable

    try:
        settings = Settings.from_environment()
    except CryptoMLError as error:
        yield Finding("settings", "fail", str(error))
        return
    yield Finding("settings", "ok", f"bucket {settings.bucket}, prefix {settings.prefix or 'none'}")
    if unknown := unknown_variables():
        known = ", ".join(map(variable, Settings.model_fields))
        yield Finding("variables", "warn", f"{', '.join(unknown)} is no setting and does nothing; there are {known}")
    deployment = Deployment(settings)
    store = None
    try:
        store = deployment.store
        yield Finding("store", "ok", f"{store.uri('')} is writable and keeps claims")
    except CryptoMLError as error:
        yield Finding("store", "fail", str(error))
    if store is not None:
        for look in (_clock, _champion, _retractions, _tables, _requests, _alarms):
            yield _examined(look, deployment)
        if settings.cluster:
            yield _examined(_cluster, deployment)
        try:
            yield from _uploads(store, examined)
        except CryptoMLError as error:
            yield Finding("uploads", "fail", str(error))
    yield from _dagster(examined)


def _examined(look: "Callable[[Deployment], Finding]", deployment: "Deployment") -> Finding:
    try:
        return look(deployment)
    except CryptoMLError as error:
        return Finding(look.__name__.strip("_"), "fail", str(error))


def _cluster(deployment: "Deployment") -> Finding:
    from crypto_ml.engine.cluster import Cluster

    settings = deployment.settings
    threads = Cluster(settings.cluster, unencrypted=settings.cluster_unencrypted).threads()
    if not threads:
        return Finding("cluster", "warn", f"{settings.cluster} has no workers; large work waits for some")
    return Finding("cluster", "ok", f"{settings.cluster} computes {threads} parts at once")


def _clock(deployment: "Deployment") -> Finding:
    from crypto_ml.storage.probe import clock_of

    try:
        time = clock_of(deployment.store)
    except CryptoMLError:
        return Finding("clock", "skipped", "the store did not answer")
    if time is None:
        return Finding("clock", "skipped", "the store does not say what time it is")
    ahead = (datetime.now(UTC) - time).total_seconds()
    if abs(ahead) > MOST_SKEW:
        where, waits = ("ahead of", "longer") if ahead > 0 else ("behind", "shorter")
        detail = f"{abs(ahead):.0f} s {where} the store's, so waits look {waits}; set this machine's clock"
        return Finding("clock", "warn", detail)
    return Finding("clock", "ok", f"within {max(abs(ahead), 1):.0f} s of the store's")


def _champion(deployment: "Deployment") -> Finding:
    champion = deployment.registry.champion()
    if champion is None:
        first = deployment.first_bundle().version
        return Finding("champion", "ok", f"none yet; the first run makes {first} the champion")
    deployment.bundle(champion.version)
    return Finding("champion", "ok", f"{champion.version}, since {champion.at}, by {champion.decided_by}")


def _retractions(deployment: "Deployment") -> Finding:
    """Whether every retraction was carried out, and whether the champion was trained on rows that were retracted."""
    from crypto_ml.forecasting.bundle import TRAINING_MANIFEST
    from crypto_ml.ledger.layout import APPENDS
    from crypto_ml.ledger.retractions import retracted_ids

    store, ids = deployment.store, retracted_ids(deployment.store)
    champion = deployment.registry.champion() if ids else None
    if champion is None:
        return Finding(
            "retractions", "ok", "no upload was retracted" if not ids else f"{len(ids)}, and no champion yet"
        )
    done = {found.key.removeprefix(APPENDS).split("-")[1] for found in store.list(f"{APPENDS}retraction-")}
    if left := [upload for upload in ids if upload not in done]:
        detail = f"decided for {_some(left)} and not carried out; `crypto-ml retract` it again"
        return Finding("retractions", "warn", detail)
    manifest = deployment.bundle(champion.version).document(TRAINING_MANIFEST)
    if trained := sorted({*ids} & {*manifest.get("uploads", ())}):
        detail = f"the champion {champion.version} was trained on rows of {_some(trained)}, which were retracted since"
        return Finding("retractions", "warn", f"{detail}; retrain, or roll back")
    return Finding("retractions", "ok", f"{len(ids)}; the champion was trained on none of their rows")


def _tables(deployment: "Deployment") -> Finding:
    """Whether the tables' small files are put together."""
    from crypto_ml.stages.upkeep import overdue

    if found := overdue(deployment.store):
        told = ", ".join(f"{name} has {count:,} small files" for name, count in found.items())
        detail = (
            f"{told}, and reading takes longer with each; switch the schedule upkeep_when_due on, or launch `upkeep`"
        )
        return Finding("tables", "warn", detail)
    return Finding("tables", "ok", "their small files are put together")


def _requests(deployment: "Deployment") -> Finding:
    """Whether what requests were answered with has come into the log of predictions."""
    from crypto_ml.ledger.layout import REQUESTS
    from crypto_ml.ledger.requests import time_of
    from crypto_ml.ledger.settlements import last_sweep
    from crypto_ml.stages.settled_requests import unsettled

    store, now = deployment.store, datetime.now(UTC)
    if next(store.list(REQUESTS), None) is None:
        return Finding("requests", "ok", "none was answered yet")
    if left := unsettled(store, last_sweep(store, now), now - UNSETTLED):
        packs = "1 delivery of answers to requests is" if len(left) == 1 else f"{len(left):,} deliveries of answers are"
        detail = f"{packs} not in prediction_log, the first of {time_of(left[0]):%Y-%m-%d %H:%M:%S} UTC"
        return Finding("requests", "warn", f"{detail}; start `crypto-ml serve`, which settles them when it starts")
    return Finding("requests", "ok", "all answers are in prediction_log")


def _alarms(deployment: "Deployment") -> Finding:
    """What the last looks of monitoring found, and whether alarms can be sent."""
    from crypto_ml.settings import variable
    from crypto_ml.stages.monitoring.alarms import standing
    from crypto_ml.stages.monitoring.telling import addresses, unreadable

    given = deployment.settings.alarm_urls
    wrong = unreadable(addresses(given.get_secret_value())) if given else []
    lost = [f"{variable('alarm_urls')} has what apprise cannot read: {', '.join(wrong)}"] if wrong else []
    found = standing(deployment.store).standing
    said = [
        f"{one.name} since {one.since}, {one.how_bad:.1f} times the limit: {one.what}; {one.todo}"
        for one in found[:MOST_NAMED]
    ]
    more = [f"and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    if found or wrong:
        return Finding("alarms", "warn", " · ".join([*said, *more, *lost]))
    return Finding("alarms", "ok", "none stands")


def _uploads(store: "ObjectStore", examined: Examined) -> Iterator[Finding]:
    from crypto_ml.ledger.metrics import measure

    found = measure(store, datetime.now(UTC))
    examined.metrics |= asdict(found)
    if not found.unanswered:
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.outcomes.items())) or "nothing yet"
        deliveries = "1 delivery" if found.deliveries == 1 else f"{found.deliveries} deliveries"
        yield Finding("uploads", "ok", f"all answered, in {deliveries} ({told})")
    else:
        detail = f"{found.unanswered} unanswered, the oldest {found.oldest_unanswered} for {found.lag_seconds:.0f} s"
        late = found.lag_seconds >= MOST_LAG
        advice = "; is the sensor on and the daemon running?" if late else ""
        yield Finding("uploads", "warn" if late else "ok", f"{detail}{advice}")
    stuck = found.unanswered_deliveries if found.lag_seconds >= MOST_LAG else []
    if stuck or found.given_up:
        parts = [f"no outcome for {_some(stuck)}"] if stuck else []
        parts += [f"gave up on {_some(found.given_up)}"] if found.given_up else []
        advice = "look at their runs in Dagster" if stuck else "mend the cause that their reports name"
        advice += ", then `crypto-ml retry --given-up`" if found.given_up else ""
        yield Finding("deliveries", "warn", f"{'; '.join(parts)}; {advice}")
    else:
        yield Finding("deliveries", "ok", "none is stuck, none was given up on")


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[-MOST_NAMED:]) + (f" and {more} before them" if more > 0 else "")


def _dagster(examined: Examined) -> Iterator[Finding]:
    if not os.environ.get("DAGSTER_HOME"):
        yield Finding("dagster", "skipped", "DAGSTER_HOME is not set, so there is no instance to look at")
        return
    from dagster import DagsterInstance

    try:
        with DagsterInstance.get() as instance:
            yield from _instance(instance, examined)
    except Exception as error:  # noqa: BLE001 - an instance can be misconfigured in any way
        yield Finding("dagster", "fail", f"the instance in DAGSTER_HOME cannot be opened: {error}")


def _instance(instance: "DagsterInstance", examined: Examined) -> Iterator[Finding]:
    statuses = instance.get_daemon_statuses()
    dead = sorted(name for name, status in statuses.items() if status.required and not status.healthy)
    if dead:
        yield Finding("daemon", "fail", f"{', '.join(dead)} not running; start `dagster dev` or `dagster-daemon run`")
    else:
        yield Finding("daemon", "ok", "running")
    from dagster import DagsterRunStatus, RunsFilter

    from crypto_ml.defs.dagster_internals import PARTITION_NAME_TAG, InstigatorStatus, InstigatorType
    from crypto_ml.defs.partitions import DELIVERIES

    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    # a code location that was called otherwise left states that nobody changes any more
    mine = [state for state in states if state.instigator_name == "uploads_sensor"]
    state = max(mine, key=lambda one: getattr(one.instigator_data, "last_tick_timestamp", None) or 0, default=None)
    if state is None or state.status == InstigatorStatus.STOPPED:
        why = "has never ticked here" if state is None else "is switched off; switch it on under Automation"
        yield Finding("sensor", "fail", f"uploads_sensor {why}")
    else:
        last = getattr(state.instigator_data, "last_tick_timestamp", None)
        examined.metrics |= _ticks(instance, state)
        when = f"last tick {max(time.time() - last, 0):.0f} s ago" if last else "no tick yet"
        yield Finding("sensor", "ok", f"uploads_sensor is on, {when}")
    yield from _waiting(instance, examined)
    failed = instance.get_run_records(
        RunsFilter(statuses=[DagsterRunStatus.FAILURE], job_name="score_uploads"), limit=5
    )
    # a run for a partition that somebody made up was refused, and nobody waits for it
    known = set(instance.get_dynamic_partitions(str(DELIVERIES.name)))
    recent = [
        record.dagster_run.run_id
        for record in failed
        if time.time() - record.create_timestamp.timestamp() < 86400
        and record.dagster_run.tags.get(PARTITION_NAME_TAG) in known
    ]
    if recent:
        yield Finding("runs", "warn", f"score_uploads failed in the last day: {', '.join(recent)}; look at their logs")
    else:
        yield Finding("runs", "ok", "no scoring run failed in the last day")


def _waiting(instance: "DagsterInstance", examined: Examined) -> Iterator[Finding]:
    """What unanswered deliveries wait for: what was unavailable to their last runs, and when it is tried next."""
    from crypto_ml.defs.watch import waiting

    now = datetime.now(UTC)
    found = waiting(instance, examined.metrics.get("unanswered_deliveries"))
    examined.metrics["waiting"] = {
        delivery: {"for": runs[-1].cause, "since": runs[0].launched.isoformat(), "next": next_.isoformat()}
        for delivery, (runs, next_) in found.items()
    }
    for cause in dict.fromkeys(runs[-1].cause for runs, _ in found.values()):
        those = {delivery: one for delivery, one in found.items() if one[0][-1].cause == cause}
        since = min(runs[0].launched for runs, _ in those.values())
        in_seconds = max((min(next_ for _, next_ in those.values()) - now).total_seconds(), 0)
        detail = f"unavailable since {since:%Y-%m-%d %H:%M:%S} UTC: {cause}"
        yield Finding(
            "waiting", "warn", f"{_some(sorted(those))}: {detail}; tried again by itself in {in_seconds:.0f} s"
        )


def _ticks(instance: "DagsterInstance", state: "InstigatorState") -> dict[str, float]:
    """How long the sensor's last ticks took, most of it waiting for uploads, and how long ago the last began."""
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=LOOKED_AT_TICKS)
    ended = [tick for tick in ticks if tick.end_timestamp]
    if not ended:
        return {}
    return {
        "tick_seconds": statistics.median(float(tick.end_timestamp or 0) - tick.timestamp for tick in ended),
        "last_tick_seconds_ago": max(time.time() - ended[0].timestamp, 0.0),
    }


COMMANDS: Final = (command,)
