"""The answer to an upload stands beside it in the contract's prefixes, under names that programs can work out."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.ledger.layout import (
    PREDICTIONS,
    UPLOADS,
    answer_keys,
    companions,
    has_table_name,
    is_upload,
    latest_forecast_of,
)

PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("upload", "predictions"),
    [
        ("uploads/crypto_test.csv", "predictions/crypto_test_preds.csv"),
        ("uploads/2018/03/26 daily.csv", "predictions/2018/03/26 daily_preds.csv"),
        ("uploads/a.csv.gz", "predictions/a_preds.csv"),
        ("uploads/a+b%20c é.csv", "predictions/a+b%20c é_preds.csv"),
        ("uploads/../up.csv", "predictions/../up_preds.csv"),
        ("uploads/uploads/a.csv", "predictions/uploads/a_preds.csv"),
        ("uploads/.csv", "predictions/_preds.csv"),
    ],
)
def test_an_answer_has_the_path_of_its_upload(upload: str, predictions: str) -> None:
    keys = answer_keys(upload)
    stem = predictions.removesuffix("_preds.csv")
    assert keys.predictions == predictions
    assert (keys.report, keys.rejected_rows) == (f"{stem}_report.json", f"{stem}_rejected_rows.csv")


@pytest.mark.parametrize("name", ["A.CSV", "a.Csv.Gz", "notes.txt", "a", "a_report", "a_preds.csv.GZ"])
def test_what_is_not_named_as_the_contract_has_it_keeps_its_whole_name(name: str) -> None:
    keys = answer_keys(UPLOADS + name)
    stem = f"predictions/{name}"
    assert (keys.predictions, keys.report) == (f"{stem}.preds.csv", f"{stem}.report.json")


@given(path=PATHS)
def test_an_answer_never_leaves_the_predictions(path: str) -> None:
    keys = answer_keys(UPLOADS + path)
    found = {keys.predictions, keys.report, keys.rejected_rows}
    assert len(found) == 3
    assert all(key.startswith(PREDICTIONS) and not is_upload(key) for key in found)


@given(path=PATHS)
def test_what_stands_beside_predictions_follows_from_their_name(path: str) -> None:
    keys = answer_keys(UPLOADS + path)
    assert companions(keys.predictions) == keys
    assert latest_forecast_of(f"s3/prefix/{keys.predictions}") == "s3/prefix/forecasts/latest.csv"
    assert latest_forecast_of("predictions/a_preds.csv") == "forecasts/latest.csv"
    assert companions(path) is None or path.endswith("preds.csv")


WORDS = ("a", "A", "_", ".", "~", "/", "é", "preds", "report", ".json", ".csv", ".CSV", ".csv.gz", ".gz")
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map("".join)


def of_one_name(one: str, other: str) -> bool:
    """Whether two uploads are `<path>.csv` and `<path>.csv.gz`, which are answered under one name."""
    return one.removesuffix(".gz") == other.removesuffix(".gz") and one.removesuffix(".gz").endswith(".csv")


def objects_of(name: str, room: int) -> set[str]:
    keys = answer_keys(UPLOADS + name, room)
    return {keys.predictions, keys.report, keys.rejected_rows}


@settings(max_examples=500)
@given(one=NAMES | PATHS, other=NAMES | PATHS, room=st.sampled_from([60, 75, 1_024]))
def test_no_two_uploads_share_an_object_but_a_csv_and_its_gzip(one: str, other: str, room: int) -> None:
    names = {one, other}
    for first in list(names):  # what could be taken for the answer's own name
        names |= {key.removeprefix(PREDICTIONS) for key in objects_of(first, room)}
        names |= {f"{key.removeprefix(PREDICTIONS)}.csv" for key in objects_of(first, room)}
    for first, second in itertools.combinations(sorted(names), 2):
        if not of_one_name(first, second):
            assert not objects_of(first, room) & objects_of(second, room)


@given(path=st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=1_024), room=st.integers(100, 1_024))
def test_every_key_of_an_answer_fits_into_the_room_there_is(path: str, room: int) -> None:
    for ending in ("", ".csv", ".csv.gz", ".CSV"):
        assert all(len(key.encode()) <= room for key in objects_of(path + ending, room))


def test_a_name_that_just_fits_is_answered_under_its_own_name_and_a_longer_one_is_told_apart() -> None:
    fits = "x" * (1_024 - len("predictions/_rejected_rows.csv"))
    assert answer_keys(f"uploads/{fits}.csv").predictions == f"predictions/{fits}_preds.csv"
    too_long = [answer_keys(f"uploads/{fits}{end}.csv") for end in "ab"]
    assert [keys.fits for keys in too_long] == [False, False]
    assert too_long[0].report != too_long[1].report


@pytest.mark.parametrize(
    ("key", "upload", "csv"),
    [
        ("uploads/a.csv", True, True),
        ("uploads/a.CSV.gz", True, True),
        ("uploads/a.txt", True, False),
        ("uploads/csv", True, False),
        ("uploads/", False, False),
        ("uploads/folder/", False, False),
        ("predictions/a.csv", False, True),
        ("my/uploads/a.csv", False, True),
    ],
)
def test_what_is_an_upload_and_what_is_named_as_one(key: str, upload: bool, csv: bool) -> None:
    assert (is_upload(key), has_table_name(key)) == (upload, csv)
