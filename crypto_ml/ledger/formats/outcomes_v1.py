"""What became of each upload of a delivery, as 0.1 wrote it and every release since: upload key → outcome.

An outcome names its answer. One without was given up, and says why; since 0.2 also for which request to answer
it again it was tried last (see `retries_v1`).
"""

import json
from collections.abc import Mapping
from typing import Any

Outcome = dict[str, Any]
Outcomes = Mapping[str, Mapping[str, Any]]


def answered(outcome: str, answer_id: str) -> Outcome:
    """An upload that has an answer."""
    return {"outcome": outcome, "answer_id": answer_id}


def overtaken(reason: str) -> Outcome:
    """An upload whose runs came to nothing, and of which a newer version has an answer."""
    return {"outcome": "SKIPPED", "answer_id": None, "reason": reason}


def given_up(reason: str, retry: int) -> Outcome:
    """An upload whose runs came to nothing. retry: the last request that it was tried for, 0 where nobody asked."""
    return {"outcome": "REJECTED", "answer_id": None, "reason": reason, "retry": retry}


def is_given_up(outcome: Mapping[str, Any]) -> bool:
    """Whether an outcome is one that no run came to: a file rejected for what is in it has an answer that says so."""
    return outcome["outcome"] == "REJECTED" and outcome["answer_id"] is None


def was_given_up(outcomes: Outcomes) -> bool:
    """Whether a list of outcomes holds one that no run came to."""
    return any(is_given_up(outcome) for outcome in outcomes.values())


def tried_for(outcomes: Outcomes) -> int:
    """The number of the last request that what was given up was tried for; 0 where nobody had asked."""
    return max((int(outcome.get("retry", 0)) for outcome in outcomes.values() if is_given_up(outcome)), default=0)


def may_be_replaced(stored: bytes) -> bool:
    """Whether a stored list of outcomes gives way to one that was answered: an upload in it has no answer."""
    try:
        return any(outcome["answer_id"] is None for outcome in json.loads(stored).values())
    except (ValueError, AttributeError, TypeError, KeyError):  # damaged: nothing takes its place
        return False
