"""What becomes of an upload follows from what was found, by one table, whoever asks and how often."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.stages.outcomes import Decided, Situation, Standing, decide

KEY, TWIN, BYTES, OTHER = "uploads/a.csv", "uploads/a.csv.gz", "aa", "bb"
NOTHING = Situation("00000005", KEY, BYTES, owner=KEY)


def standing(delivery: int, sha256: str = BYTES, *, key: str = KEY, answer: str | None = "old") -> Standing:
    return Standing(f"{delivery:08d}", key, sha256, "PREDICTED" if answer else "REJECTED", answer)


@pytest.mark.parametrize(
    ("found", "outcome", "publishing"),
    [
        (NOTHING, "PREDICTED", "answer"),
        (replace(NOTHING, gone="it was deleted"), "SKIPPED", "report"),
        (replace(NOTHING, refusal="it is empty"), "REJECTED", "report"),
        (replace(NOTHING, owner=TWIN), "SKIPPED", "nothing"),
        (replace(NOTHING, owner=TWIN, refusal="it is empty"), "REJECTED", "nothing"),
        (replace(NOTHING, standing=standing(4)), "SKIPPED", "repeat"),
        (replace(NOTHING, standing=standing(4, OTHER)), "PREDICTED", "answer"),
        (replace(NOTHING, standing=replace(standing(4), retracted=True)), "PREDICTED", "answer"),
        (replace(NOTHING, standing=replace(standing(6), retracted=True)), "SKIPPED", "nothing"),
        (replace(NOTHING, standing=standing(4, key=TWIN)), "PREDICTED", "answer"),
        (replace(NOTHING, standing=standing(4, answer=None)), "PREDICTED", "answer"),
        (replace(NOTHING, standing=standing(5)), "PREDICTED", "answer"),
        (replace(NOTHING, standing=standing(6)), "SKIPPED", "nothing"),
        (replace(NOTHING, standing=standing(6, OTHER, key=TWIN)), "SKIPPED", "nothing"),
        (replace(NOTHING, standing=standing(6, answer=None)), "PREDICTED", "answer"),
        (replace(NOTHING, standing=standing(100_000_000)), "SKIPPED", "nothing"),
        (replace(NOTHING, refusal="it is empty", standing=standing(6)), "REJECTED", "nothing"),
        (replace(NOTHING, refusal="it is empty", standing=standing(4)), "REJECTED", "report"),
    ],
)
def test_the_table_of_outcomes(found: Situation, outcome: str, publishing: str) -> None:
    decided = decide(found)
    assert (decided.outcome, decided.publishing) == (outcome, publishing)
    assert (decided.reason is None) == (outcome == "PREDICTED")


some_standing = st.builds(
    Standing,
    delivery=st.sampled_from(["00000004", "00000005", "00000006", "100000000"]),
    upload_key=st.sampled_from([KEY, TWIN]),
    upload_sha256=st.sampled_from([BYTES, OTHER, None]),
    outcome=st.sampled_from(["PREDICTED", "REJECTED", "SKIPPED"]),
    answer_id=st.sampled_from(["old", None]),
    retracted=st.booleans(),
)
situations = st.builds(
    Situation,
    delivery=st.just("00000005"),
    upload_key=st.sampled_from([KEY, TWIN]),
    upload_sha256=st.sampled_from([BYTES, None]),
    owner=st.sampled_from([KEY, TWIN]),
    gone=st.sampled_from([None, "it was deleted"]),
    refusal=st.sampled_from([None, "it is empty"]),
    standing=st.none() | some_standing,
)


@given(found=situations)
def test_predictions_go_out_only_for_a_readable_file_that_no_newer_answer_outranks(found: Situation) -> None:
    decided: Decided = decide(found)
    newer = found.standing is not None and int(found.standing.delivery) > 5 and found.standing.answer_id is not None
    usable = not found.gone and not found.refusal and found.owner == found.upload_key and not newer
    assert (decided.publishing in ("answer", "repeat")) == usable
    assert (decided.outcome == "PREDICTED") == (decided.publishing == "answer")
    assert (decided.repeats is not None) == (decided.publishing == "repeat")
    if newer or found.owner != found.upload_key:
        assert decided.publishing == "nothing"
    if decided.repeats or decided.replaces:
        assert found.standing is not None
        assert found.standing.upload_key == found.upload_key
        assert (found.standing.upload_sha256 == found.upload_sha256) == (decided.replaces is None)
