"""The answer to an upload stands beside it in the contract's prefixes, under names that programs can work out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.ledger.layout import PREDICTIONS, UPLOADS, answer_keys, has_csv_name, is_upload

PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("upload", "predictions"),
    [
        ("uploads/crypto_test.csv", "predictions/crypto_test_preds.csv"),
        ("uploads/2018/03/26 daily.csv", "predictions/2018/03/26 daily_preds.csv"),
        ("uploads/a.csv.gz", "predictions/a_preds.csv"),
        ("uploads/A.CSV", "predictions/A_preds.csv"),
        ("uploads/a.Csv.Gz", "predictions/a_preds.csv"),
        ("uploads/a+b%20c é.csv", "predictions/a+b%20c é_preds.csv"),
        ("uploads/../up.csv", "predictions/../up_preds.csv"),
        ("uploads/uploads/a.csv", "predictions/uploads/a_preds.csv"),
        ("uploads/.csv", "predictions/_preds.csv"),
        ("uploads/notes.txt", "predictions/notes.txt_preds.csv"),
    ],
)
def test_an_answer_has_the_path_of_its_upload(upload: str, predictions: str) -> None:
    keys = answer_keys(upload)
    stem = predictions.removesuffix("_preds.csv")
    assert keys.predictions == predictions
    assert (keys.report, keys.rejected_rows) == (f"{stem}_report.json", f"{stem}_rejected_rows.csv")


@given(path=PATHS)
def test_an_answer_never_leaves_the_predictions(path: str) -> None:
    keys = answer_keys(UPLOADS + path)
    found = {keys.predictions, keys.report, keys.rejected_rows}
    assert len(found) == 3
    assert all(key.startswith(PREDICTIONS) and not is_upload(key) for key in found)


@given(one=PATHS, other=PATHS)
def test_two_csv_files_never_share_an_answer(one: str, other: str) -> None:
    keys = {answer_keys(f"{UPLOADS}{path}.csv") for path in (one, other)}
    assert len(keys) == len({one, other})


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
    assert (is_upload(key), has_csv_name(key)) == (upload, csv)
