"""What is wrong and since when: a log in S3 of alarms that were raised, became worse, and were cleared.

Each entry repeats what stands after it, so that one object tells. Deciding is pure: what a look found makes the next
state, and what is still to be told follows from the state alone, so that a process that died in between loses no
message; at worst one is sent twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from crypto_ml.ledger.formats.alarms_v1 import FORMAT, Alarm, AlarmsEntry, Change
from crypto_ml.ledger.formats.reading import read_record, too_new
from crypto_ml.ledger.layout import ALARMS
from crypto_ml.ledger.log import AppendOnlyLog, Entry
from crypto_ml.storage.objects import ObjectStore

WORSE: Final = 1.5
"""An alarm is told again where it is so many times as bad as when it was told."""

NOTHING: Final = AlarmsEntry(at="")


@dataclass(frozen=True)
class Condition:
    """One thing that was looked at. passed: None where there was too little to tell, which leaves an alarm as it is.

    day: the last day of the data that was looked at, ISO 8601. The rest is what an alarm says (see `Alarm`).
    """

    name: str
    passed: bool | None
    what: str
    how_bad: float
    todo: str
    day: str
    since: str | None = None
    asks_retrain: bool = False


@dataclass(frozen=True)
class Message:
    """What one destination is to be told of one alarm."""

    destination: str
    change: Literal["raised", "worse", "cleared"]
    alarm: Alarm


def after_look(state: AlarmsEntry, conditions: Sequence[Condition], number: int, now: datetime) -> AlarmsEntry | None:
    """The state after a look, as entry `number`; None where the look changes nothing. Alarms of names that were not
    looked at stay as they are."""
    at = now.astimezone(UTC).isoformat(timespec="seconds")
    standing = {alarm.name: alarm for alarm in state.standing}
    changes: dict[str, Change] = {}
    ended = list(state.ended)
    for one in conditions:
        before = standing.get(one.name)
        if one.passed is False:
            alarm = _raised(one, number, at) if before is None else _seen_again(before, one)
            if alarm != before:
                changes[alarm.id] = _change(before, alarm)
            standing[one.name] = alarm
        elif one.passed and before is not None:
            changes[before.id] = "cleared"
            del standing[one.name]
            ended += [before] if before.told else []
    if not changes:
        return None
    return AlarmsEntry(at, changes, tuple(standing.values()), tuple(ended))


def _raised(one: Condition, number: int, at: str) -> Alarm:
    return Alarm(
        id=f"{one.name}-{number}", name=one.name, what=one.what, since=one.since or one.day, raised_at=at,
        how_bad=one.how_bad, todo=one.todo, first_seen=one.day, last_seen=one.day, asks_retrain=one.asks_retrain,
    )  # fmt: skip


def _seen_again(before: Alarm, one: Condition) -> Alarm:
    if one.day == before.last_seen and one.how_bad == before.how_bad:
        return before  # the same data once more
    return replace(
        before,
        what=one.what,
        how_bad=one.how_bad,
        todo=one.todo,
        last_seen=one.day,
        confirmed=before.confirmed or one.day > before.first_seen,
    )


def _change(before: Alarm | None, alarm: Alarm) -> Change:
    if before is None:
        return "raised"
    if alarm.how_bad >= WORSE * before.how_bad:
        return "worse"
    return "confirmed" if alarm.confirmed and not before.confirmed else "goes on"


def to_tell(state: AlarmsEntry, destinations: Sequence[str]) -> list[Message]:
    """What each destination is still to be told: of an alarm once, again where it became WORSE, and of its end."""
    found = []
    for alarm in state.standing:
        for one in destinations:
            if one not in alarm.told:
                found.append(Message(one, "raised", alarm))
            elif alarm.how_bad >= WORSE * alarm.told[one]:
                found.append(Message(one, "worse", alarm))
    found += [Message(one, "cleared", alarm) for alarm in state.ended for one in destinations if one in alarm.told]
    return found


def after_telling(
    state: AlarmsEntry, told: Sequence[Message], destinations: Sequence[str], now: datetime
) -> AlarmsEntry:
    """The state once some messages were taken; whoever is no destination any more is not waited for."""
    heard = {(one.destination, one.alarm.id, one.change == "cleared") for one in told}
    standing = [
        replace(
            alarm,
            told={**alarm.told, **{one: alarm.how_bad for one in destinations if (one, alarm.id, False) in heard}},
        )
        for alarm in state.standing
    ]
    left = [
        replace(
            alarm,
            told={
                one: bad
                for one, bad in alarm.told.items()
                if one in destinations and (one, alarm.id, True) not in heard
            },
        )
        for alarm in state.ended
    ]
    return AlarmsEntry(
        now.astimezone(UTC).isoformat(timespec="seconds"),
        {one.alarm.id: "told" for one in told},
        tuple(standing),
        tuple(alarm for alarm in left if alarm.told),
    )


class AlarmLog:
    """The alarms of a store. Raises what ObjectStore raises, RecordDamaged, RecordTooNew."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._log = AppendOnlyLog(store, ALARMS)

    def state(self) -> AlarmsEntry:
        """What stands now."""
        last = self._log.last()
        return self._read(last) if last else NOTHING

    def since(self, moment: datetime) -> list[AlarmsEntry]:
        """The entries since a moment, oldest first."""
        found: list[AlarmsEntry] = []
        for number in range(self._log.last_number(), 0, -1):
            entry = self._read(self._log.read(number))
            if datetime.fromisoformat(entry.at) < moment:
                break
            found.insert(0, entry)
        return found

    def change(self, decide: Callable[[AlarmsEntry, int], AlarmsEntry | None]) -> AlarmsEntry:
        """Add what `decide` makes of the state and the number of the next entry, and return the state then; where
        somebody else was first, it decides anew."""
        number = self._log.last_number()
        while True:
            state = self._read(self._log.read(number)) if number else NOTHING
            made = decide(state, number + 1)
            if made is None:
                return state
            if self._log.append(asdict(made), after=number) is not None:
                return made
            number = self._log.last_number(number)

    def _read(self, entry: Entry) -> AlarmsEntry:
        where = self._store.uri(self._log.key(entry.number))
        document: Mapping[str, object] = entry.document
        found = document.get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise too_new("record of alarms", where, found, FORMAT)
        return read_record(AlarmsEntry, document, where)
