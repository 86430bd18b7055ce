"""An entry of the log of alarms since 0.6: which alarms stand after it, and what became of others by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

FORMAT: Final = 1

Change = Literal["raised", "worse", "confirmed", "goes on", "cleared", "told"]


@dataclass(frozen=True)
class Alarm:
    """One alarm. id: its name and the number of the entry that raised it.

    what: a sentence with the numbers. since: the day (of the market) or moment on which it began, ISO 8601. raised_at:
    when it was seen first. how_bad: how many times its threshold. todo: what to do about it. first_seen, last_seen: the
    last day of the data in which it was seen first and last; confirmed: those differ. asks_retrain: a retrain may mend
    it. told: destination → how bad it was when that one was told last; a destination is its kind and number, never its
    address.
    """

    id: str
    name: str
    what: str
    since: str
    raised_at: str
    how_bad: float
    todo: str
    first_seen: str
    last_seen: str
    confirmed: bool = False
    asks_retrain: bool = False
    told: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AlarmsEntry:
    """One entry: when, what changed (alarm's id → change), the alarms that stand, and those that were cleared and whose
    end somebody is still to be told."""

    at: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    standing: Sequence[Alarm] = ()
    ended: Sequence[Alarm] = ()
    format: int = FORMAT
