"""Whatever happens in the drop box, every version that could be seen gets one outcome, and the newest answer stands."""

import os
import random
import uuid

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.dropbox.histories import KEYS, Body, Box, bodies

HISTORIES = 2_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 40
STEPS = 14

some_key = st.sampled_from(KEYS)
some_body = st.integers(0, len(bodies()) - 1).map(lambda number: bodies()[number])


def test_every_version_of_a_random_history_gets_exactly_one_outcome(store: ObjectStore) -> None:
    class History(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.box = Box(store.below(f"{store.prefix}{uuid.uuid4().hex}"))

        @rule(key=some_key, body=some_body)
        def put(self, key: str, body: Body) -> None:
            self.box.put(key, body)

        @rule(seed=st.integers(0, 9))
        def put_a_burst(self, seed: int) -> None:
            self.box.put_burst(seed)

        @precondition(lambda self: self.box.current)
        @rule(data=st.data())
        def put_the_same_bytes_again(self, data: st.DataObject) -> None:
            key = data.draw(st.sampled_from(sorted(self.box.current)))
            self.box.put(key, self.box.current[key])

        @precondition(lambda self: self.box.current)
        @rule(data=st.data())
        def delete(self, data: st.DataObject) -> None:
            self.box.delete(data.draw(st.sampled_from(sorted(self.box.current))))

        @rule(key=some_key, body=some_body)
        def begin_a_multipart_upload(self, key: str, body: Body) -> None:
            if key not in self.box.pending:
                self.box.begin(key, body)

        @precondition(lambda self: self.box.pending)
        @rule(data=st.data())
        def complete_a_multipart_upload(self, data: st.DataObject) -> None:
            self.box.complete(data.draw(st.sampled_from(sorted(self.box.pending))))

        @rule()
        def tick(self) -> None:
            self.box.tick()

        @rule()
        def tick_twice_at_once(self) -> None:
            self.box.ticks_at_once()

        @rule()
        def restart_the_sensor(self) -> None:
            self.box.restart()

        @precondition(lambda self: self.box.log.last_number)
        @rule(data=st.data())
        def run_a_delivery(self, data: st.DataObject) -> None:
            self.box.answer(data.draw(st.integers(1, self.box.log.last_number)))

        @precondition(lambda self: self.box.log.last_number)
        @rule(data=st.data(), after=st.integers(0, 30))
        def run_a_delivery_and_crash(self, data: st.DataObject, after: int) -> None:
            self.box.answer_and_crash(data.draw(st.integers(1, self.box.log.last_number)), after)

        @precondition(lambda self: self.box.log.last_number)
        @rule(data=st.data())
        def run_two_at_once(self, data: st.DataObject) -> None:
            some = st.integers(1, self.box.log.last_number)
            self.box.answer_two_at_once(data.draw(some), data.draw(some))

        @precondition(lambda self: self.box.log.last_number)
        @rule(data=st.data())
        def give_up_on_a_delivery(self, data: st.DataObject) -> None:
            self.box.give_up(data.draw(st.integers(1, self.box.log.last_number)))

        @precondition(lambda self: self.box.log.last_number)
        @rule(data=st.data(), file=st.integers(0, 20), after=st.none() | st.integers(0, 12))
        def retract_an_upload(self, data: st.DataObject, file: int, after: int | None) -> None:
            self.box.retract(data.draw(st.integers(1, self.box.log.last_number)), file, after)

        def teardown(self) -> None:
            self.box.settle(random.Random(len(self.box.seen)))  # noqa: S311
            self.box.check()

    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        ),
    )
