"""What looks found as alarms: noted in the log, told to whoever is to be told, until it is over.

An alarm that stands is told once to each destination, again where it became much worse, and its end to those who heard
of it. What could not be sent is sent by the next look.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from crypto_ml.ledger.alarms import AlarmLog, Condition, Message, after_look, after_telling, to_tell
from crypto_ml.ledger.formats.alarms_v1 import Alarm, AlarmsEntry
from crypto_ml.settings import Settings
from crypto_ml.stages.monitoring.telling import PAUSES, Kind, addresses, destinations, send
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible

log: Final = logging.getLogger(__name__)
AT_ONCE: Final = 8


@dataclass(frozen=True)
class LookedAfter:
    """The alarms that stand after a look, how many messages were taken, and who could not be told."""

    standing: Sequence[Alarm]
    told: int
    not_told: Sequence[str]


def look_after(
    conditions: Sequence[Condition],
    store: ObjectStore,
    settings: Settings,
    now: datetime,
    *,
    pauses: Sequence[float] = PAUSES,
) -> LookedAfter:
    """Note what a look found, and tell what is to be told. Raises what the log does; what cannot be sent does not."""
    alarms = AlarmLog(store)
    state = alarms.change(lambda before, number: after_look(before, conditions, number, now))
    given = addresses(settings.alarm_urls.get_secret_value()) if settings.alarm_urls else []
    names = destinations(given)
    wanted = to_tell(state, names)
    if not wanted:
        return LookedAfter(state.standing, 0, ())
    where = dict(zip(names, given, strict=True))
    deployment = f"{settings.bucket}/{settings.prefix}".rstrip("/") + f", {settings.environment}"

    def told(message: Message) -> bool:
        title, text, kind = in_words(message, deployment)
        return send(where[message.destination], title, text, kind, called=message.destination, pauses=pauses)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        taken = [message for message, ok in zip(wanted, pool.map(told, wanted), strict=True) if ok]
    if taken:
        state = alarms.change(lambda before, _: after_telling(before, taken, names, now))
    lost = sorted({message.destination for message in wanted} - {message.destination for message in taken})
    return LookedAfter(state.standing, len(taken), lost)


def in_words(message: Message, deployment: str) -> tuple[str, str, Kind]:
    """Title, text and kind of a message: what, since when, how bad, what to do."""
    alarm = message.alarm
    title = f"crypto_ml ({visible(deployment)}): {alarm.name.replace('_', ' ')}"
    if message.change == "cleared":
        return f"{title}: over", f"It began {alarm.since}. It was: {visible(alarm.what)}", "success"
    again = ": worse" if message.change == "worse" else ""
    text = "\n".join(
        [
            visible(alarm.what),
            f"Since: {alarm.since} (seen {alarm.raised_at})",
            f"How bad: {alarm.how_bad:.1f} times the limit",
            f"What to do: {visible(alarm.todo)}",
        ]
    )
    return f"{title}{again}", text, "failure" if message.change == "worse" or alarm.confirmed else "warning"


def standing(store: ObjectStore) -> AlarmsEntry:
    """The alarms that stand. Raises RecordDamaged, RecordTooNew, and what the store does."""
    return AlarmLog(store).state()


def retrain_for(state: AlarmsEntry) -> list[Alarm]:
    """The alarms that ask for a retrain: those about the model that were confirmed."""
    return [alarm for alarm in state.standing if alarm.asks_retrain and alarm.confirmed]
