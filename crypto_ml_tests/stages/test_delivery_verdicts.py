"""A check says in its sentence which files it is about, however many they are."""

from crypto_ml.ledger.deliveries import Upload
from crypto_ml.ledger.formats.receipt_v2 import Receipt, RowCounts
from crypto_ml.stages.cleaned_features import Cleaned, CleanedFile
from crypto_ml.stages.delivery_verdicts import every_row_answered, every_upload_predicted, no_row_refused
from crypto_ml.stages.raw_uploads import Received, ReceivedFile
from crypto_ml_tests.ledger.test_receipts import receipt


def upload(name: str) -> Upload:
    return Upload(f"uploads/{name}", "etag", 1, "2024-01-01T00:00:00+00:00")


def answered(name: str, outcome: str, reason: str | None = None, **rows: int) -> Receipt:
    return receipt(upload=upload(name), outcome=outcome, reason=reason, rows=RowCounts(**rows))


def cleaned(**files: CleanedFile) -> tuple[Received, Cleaned]:
    received = Received("00000001", "", "", [ReceivedFile(upload(f"{name}.csv"), "sha") for name in files])
    return received, Cleaned("00000001", "code", "sha", dict(enumerate(files.values())), {}, {}, [])


def file(received: int, refused: int = 0, refusal: str | None = None) -> CleanedFile:
    return CleanedFile(received, received - refused, refused, 0, None, [], refusal)


def test_refused_files_are_counted_and_named_with_their_reasons() -> None:
    bad = [answered(f"{name}.csv", "REJECTED", f"no {name}") for name in "abcdefg"]
    verdict = every_upload_predicted([*bad, answered("good.csv", "PREDICTED"), answered("old.csv", "SKIPPED")])
    assert not verdict.passed
    assert verdict.explanation == (
        "7 of 9 files refused: a.csv: no a; b.csv: no b; c.csv: no c; d.csv: no d; e.csv: no e; and 2 more; "
        "1 predicted; 1 skipped"
    )
    assert verdict.numbers == {"files": 9, "refused": 7, "skipped": 1, "predicted": 1}
    assert every_upload_predicted([answered("old.csv", "SKIPPED")]).explanation == "no file refused; 1 skipped"


def test_a_long_reason_is_cut() -> None:
    verdict = every_upload_predicted([answered("a.csv", "REJECTED", "x" * 5000)])
    assert len(verdict.explanation) < 300


def test_refused_rows_are_counted_by_file_beside_the_files_refused_as_a_whole() -> None:
    verdict = no_row_refused(*cleaned(a=file(3, 3, "no valid row"), b=file(1000, 10), c=file(50)))
    assert not verdict.passed
    assert verdict.explanation == (
        "1 of 3 files refused as a whole: a.csv: no valid row; 13 of 1,053 rows refused: b.csv: 10"
    )
    assert verdict.numbers == {"rows": 1053, "refused_rows": 13, "files": 3, "refused_files": 1}
    assert no_row_refused(*cleaned(c=file(50))).explanation == "all 50 rows of 1 file accepted"


def test_rows_without_an_answer_are_counted_and_their_files_named() -> None:
    right = answered("a.csv", "PREDICTED", accepted=5, predicted=4, seed=1)
    assert every_row_answered([right]).explanation == "5 accepted rows of 1 file, and each is answered once"
    verdict = every_row_answered([right, answered("b.csv", "PREDICTED", accepted=5, predicted=3)])
    assert not verdict.passed
    assert verdict.explanation == "rows without an answer in 1 of 2 files: b.csv: +2"
    assert verdict.numbers["unanswered_rows"] == 2
