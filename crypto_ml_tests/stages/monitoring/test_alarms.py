"""An alarm is told once to each destination, again where it is worse, and so is its end; an address is told nobody."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from crypto_ml.ledger.alarms import NOTHING, AlarmLog, Condition, after_look, after_telling, to_tell
from crypto_ml.ledger.formats.alarms_v1 import AlarmsEntry
from crypto_ml.ledger.layout import ALARMS
from crypto_ml.settings import Settings
from crypto_ml.stages.monitoring.alarms import LookedAfter, look_after, retrain_for
from crypto_ml.stages.monitoring.telling import destinations, send, unreadable
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.stages.monitoring.inbox import Inbox, dripping, opened

SECRET = "Wq7pT0kenNobodySees"  # noqa: S105 - what must never be shown
FIRST = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from crypto_ml.stages.monitoring.telling import send
if send(sys.argv[1], "title", "text", "warning", called="json 1", pauses=()):
    print("sent")
"""
NOW = datetime(2026, 1, 5, 5, 30, tzinfo=UTC)
WELL = Condition("model_drifts", True, "all is well", 0.0, "nothing", "2026-01-04")
BAD = replace(WELL, passed=False, what="BTC \x1b[31m is\nworse", how_bad=1.1, todo="retrain", asks_retrain=True)


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with opened() as found:
        yield found


def look(store: ObjectStore, inbox: Inbox, *conditions: Condition, days: int = 0) -> LookedAfter:
    inbox.messages.clear()
    settings = Settings(bucket=store.bucket, prefix=store.prefix, alarm_urls=SecretStr(inbox.url(SECRET)))
    return look_after(conditions, store, settings, NOW + timedelta(days), pauses=(0.0, 0.0))


def test_an_alarm_is_told_once_until_it_is_worse_or_over_and_every_message_says_what_to_do(
    store: ObjectStore, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert look(store, inbox, WELL).standing == ()
    assert inbox.messages == []
    assert look(store, inbox, BAD).told == 1
    (message,) = inbox.messages
    assert message["title"].endswith("model drifts")
    assert message["message"].splitlines() == [
        r"BTC \x1b[31m is\nworse",
        "Since: 2026-01-04 (seen 2026-01-05T05:30:00+00:00)",
        "How bad: 1.1 times the limit",
        "What to do: retrain",
    ]
    look(store, inbox, BAD)
    look(store, inbox, replace(BAD, how_bad=1.3, day="2026-01-05"), days=1)
    assert inbox.messages == []
    assert look(store, inbox, replace(BAD, how_bad=1.7, day="2026-01-06"), days=2).told == 1
    assert inbox.messages[0]["title"].endswith(": worse")
    # too little to tell leaves an alarm as it is, and so does a look at other things
    assert len(look(store, inbox, replace(BAD, passed=None), replace(WELL, name="other")).standing) == 1
    assert look(store, inbox, WELL, days=3).standing == ()
    assert [one["title"].endswith(": over") for one in inbox.messages] == [True]
    look(store, inbox, WELL, days=4)
    assert inbox.messages == []
    kept = b"".join(store.read(found.key) for found in store.list(ALARMS)).decode()
    assert json.loads(store.read(next(store.list(ALARMS)).key))["standing"][0]["name"] == "model_drifts"
    for said in (kept, caplog.text, repr(Settings(alarm_urls=SecretStr(SECRET)))):
        assert SECRET not in said
    assert "127.0.0.1" not in kept


def test_what_is_not_taken_is_tried_again_and_what_could_not_be_sent_is_sent_by_the_next_look(
    store: ObjectStore, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.refusing = 2
    assert look(store, inbox, BAD).told == 1
    inbox.refusing = 3
    lost = look(store, inbox, replace(BAD, name="other"))
    assert (lost.told, list(lost.not_told)) == (0, ["json 1"])
    assert [alarm.name for alarm in lost.standing] == ["model_drifts", "other"]
    assert look(store, inbox, replace(BAD, name="other")).told == 1
    assert inbox.messages[0]["title"].endswith("other")
    assert SECRET not in caplog.text
    assert "could not be sent to json 1" in caplog.text


def test_a_receiver_that_never_ends_its_answer_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with dripping() as port:
        address = f"json://user:{SECRET}@127.0.0.1:{port}/{SECRET}"
        assert not send(address, "title", "text", "warning", called="json 1", pauses=(0.0,), longest=0.3)
    assert caplog.text.count("sending to json 1 took longer than 0.3 s") == 2
    assert SECRET not in caplog.text


def test_a_process_that_sends_for_the_first_time_and_logs_everything_logs_no_address(inbox: Inbox) -> None:
    said = subprocess.run([sys.executable, "-c", FIRST, inbox.url(SECRET)], capture_output=True, text=True, check=True)
    assert "sent" in said.stdout
    assert SECRET not in said.stdout + said.stderr


def test_several_at_once_are_silent_to_the_last_and_everything_is_logged_again_then(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ThreadPoolExecutor(8) as pool:
        sent = pool.map(
            lambda number: send(inbox.url(SECRET), "title", "text", "warning", called=f"json {number}", pauses=()),
            range(24),
        )
        assert all(sent)
    assert SECRET not in caplog.text
    logging.getLogger("urllib3.connectionpool").debug("heard again")
    assert "heard again" in caplog.text


def test_only_a_confirmed_alarm_about_the_model_asks_for_a_retrain(store: ObjectStore, inbox: Inbox) -> None:
    data = replace(BAD, name="days_missing", asks_retrain=False)
    look(store, inbox, BAD, data)
    look(store, inbox, BAD, data)
    assert retrain_for(AlarmLog(store).state()) == []
    look(store, inbox, *(replace(one, day="2026-01-05") for one in (BAD, data)), days=1)
    assert [alarm.name for alarm in retrain_for(AlarmLog(store).state())] == ["model_drifts"]
    assert [dict(entry.changes) for entry in AlarmLog(store).since(NOW + timedelta(hours=1))] == [
        {"model_drifts-1": "confirmed", "days_missing-1": "confirmed"}
    ]


def test_destinations_are_called_by_kind_and_number_and_what_apprise_cannot_read_is_named_by_that() -> None:
    given = ["slack://a/b/c", "json://x", "slack://d/e/f", f"nothing://{SECRET}", SECRET]
    assert destinations(given) == ["slack 1", "json 1", "slack 2", "nothing 1", "unreadable 1"]
    assert unreadable(["json://localhost", f"nothing://{SECRET}", SECRET]) == ["nothing 1", "unreadable 1"]


looks = st.lists(st.lists(st.sampled_from([WELL, BAD, replace(BAD, how_bad=5.0), None]), min_size=1, max_size=1))


@given(looks, st.data())
def test_whoever_hears_of_an_alarm_hears_of_its_end_once_and_of_nothing_twice(
    sequence: list[list[Condition | None]], data: st.DataObject
) -> None:
    names = ["a 1", "b 1"]
    state: AlarmsEntry = NOTHING
    heard: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for number, found in enumerate(sequence, 1):
        conditions = [replace(one, day=f"2026-01-{number:02d}") for one in found if one is not None]
        state = after_look(state, conditions, number, NOW) or state
        taken = [one for one in to_tell(state, names) if data.draw(st.booleans())]
        for one in taken:
            heard[one.destination].append((one.alarm.id, one.change))
        state = after_telling(state, taken, names, NOW)
    for told in heard.values():
        ids = {alarm for alarm, _ in told}
        for alarm in ids:
            own = [change for one, change in told if one == alarm]
            assert own[0] == "raised"
            assert own.count("raised") == 1
            assert "cleared" not in own[:-1]
