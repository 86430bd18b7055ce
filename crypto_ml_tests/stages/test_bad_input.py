"""Every file gets its outcome, whatever is in it and whatever it is called; nothing else is touched."""

import csv
import gzip
import io
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from crypto_ml.forecasting.refusals import LISTED
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.layout import answer_keys
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import Report, read_report
from crypto_ml.model_out import first_bundle
from crypto_ml.settings import Settings
from crypto_ml.stages.cleaned_features import KnownCoins, clean
from crypto_ml.stages.delivery_scoring import Sources
from crypto_ml.stages.market_history import remember
from crypto_ml.stages.predictions import Answers, answer
from crypto_ml.stages.raw_uploads import receive
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.stages.road import PREFIXES

HEADER = "symbol,date,open,high,low,close,market\n"


def row(symbol: str = "BTC", day: int = 1, **values: str) -> str:
    given = {
        "open": "10",
        "high": "12",
        "low": "9",
        "close": "11",
        "market": "500",
        "date": f"2018-01-{day:02d}",
    } | values
    return f"{symbol},{given['date']},{','.join(given[name] for name in ('open', 'high', 'low', 'close', 'market'))}\n"


def series(symbol: str = "BTC", days: int = 20) -> str:
    return HEADER + "".join(row(symbol, day, open=str(10 + day % 3 * 0.5)) for day in range(1, days + 1))


def answer_all(store: ObjectStore) -> list[Answers]:
    """Send what is new down the road, stage by stage, as the assets do."""
    history, registry, settings = MarketHistory(store), Registry(store), Settings()
    champion = registry.champion_or_first(first_bundle, datetime.now(UTC))
    bundle = registry.load(champion.version)
    answers = []
    log = DeliveryLog(store)
    for delivery in log.assign_new(datetime.now(UTC)):
        received = receive(delivery, store, datetime.now(UTC))
        cleaned = clean(received, KnownCoins(history, history.version(), bundle), store, settings)
        remember(received, cleaned, history, store)
        sources = Sources(store, history, history.version(), bundle, champion, settings, "a run")
        answers.append(answer(received, cleaned, sources))
    return answers


def drop(store: ObjectStore, files: Mapping[str, bytes | str]) -> None:
    for name, body in files.items():
        store.replace(f"uploads/{name}", body.encode() if isinstance(body, str) else body)


def report(store: ObjectStore, name: str) -> Report:
    found = read_report(f"uploads/{name}", store)
    assert found is not None, name
    return found


def rows_of(store: ObjectStore, key: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(store.read(key).decode())))


BAD_FILES: dict[str, tuple[bytes | str, str]] = {
    "empty.csv": (b"", "empty"),
    "header_only.csv": (HEADER, "a header and no rows"),
    "binary.csv": (bytes(range(256)) * 50, "NUL byte"),
    "latin1.csv": ((HEADER + row("Ö")).encode("latin-1"), "not UTF-8"),
    "long_line.csv": (HEADER + "x" * 10_000_000, "line 2 is longer than"),
    "nul.csv": (HEADER + row() + "\0", "NUL byte"),
    "open_quote.csv": (HEADER + row() + '"BTC,2018-01-02,1,1,1,1,1\n', "line 3 opens a quote"),
    "two_opens.csv": ("symbol,date,open,Open,high,low,close,market\n", "more than one column for open"),
    "missing.csv": ("symbol,date,open\nBTC,2018-01-01,1\n", "high, low, close, market missing"),
    "ambiguous.csv": (HEADER + row(date="5/3/2018"), "CRYPTO_ML_DATE_ORDER"),
    "contradictory.csv": (HEADER + row(date="25/3/2018") + row(date="3/25/2018"), "cannot all be read the same way"),
    "future.csv": (HEADER + row(date="2999-01-01"), "date: in the future"),
    "negative.csv": (HEADER + row(open="-1"), "open: not positive"),
    "huge.csv": (HEADER + row(open="1e308", high="1e308"), "larger than 1e+15"),
    "contradicting_rows.csv": (HEADER + row() + row(open="11"), "more than once, with different values"),
    "truncated.csv.gz": (gzip.compress(series().encode())[:60], "damaged or cut short"),
    "prices.txt": (series(), "must end in .csv"),
}


def test_bad_files_are_refused_each_with_its_reason_and_the_good_one_among_them_is_answered(store: ObjectStore) -> None:
    drop(store, {name: body for name, (body, _) in BAD_FILES.items()} | {"good.csv": series("GOOD")})
    before = {found.key: found.etag for found in store.list("uploads/")}
    answer_all(store)
    for name, (_, reason) in BAD_FILES.items():
        found = report(store, name)
        assert found.outcome == "REJECTED", name
        assert reason in str(found.document["reason"]), (name, found.document["reason"])
        assert store.head(answer_keys(f"uploads/{name}").predictions) is None
    assert report(store, "good.csv").outcome == "PREDICTED"
    assert {found.key: found.etag for found in store.list("uploads/")} == before
    assert MarketHistory(store).count() == 20
    assert all(found.key.startswith(PREFIXES) for found in store.list())


NAMES = ["with space.csv", "plus+percent%25.csv", "ünï/cödé/日本.csv", "../../escape.csv", "a//b.csv", 'quo"te.csv']


@pytest.mark.parametrize("name", NAMES)
def test_any_key_is_answered_beside_itself(store: ObjectStore, name: str) -> None:
    drop(store, {name: series()})
    answer_all(store)
    assert report(store, name).outcome == "PREDICTED"
    assert len(rows_of(store, f"predictions/{name.removesuffix('.csv')}_preds.csv")) == 20
    assert all(found.key.startswith(PREFIXES) for found in store.list())


@pytest.mark.parametrize("character", ["x", "é", "🚀"])
def test_a_name_that_leaves_no_room_for_its_answer_is_refused_by_a_report_and_the_file_beside_it_is_answered(
    store: ObjectStore, character: str
) -> None:
    longest = store.room - len("uploads/.csv")
    name = character * (longest // len(character.encode())) + ".csv"
    drop(store, {name: series("LONG"), "good.csv": series("GOOD")})
    answer_all(store)
    found = read_report(f"uploads/{name}", store)
    assert found is not None
    assert found.outcome == "REJECTED"
    assert "its name is too long" in str(found.document["reason"])
    assert found.upload_key == f"uploads/{name}"
    assert report(store, "good.csv").outcome == "PREDICTED"
    assert [listed.key for listed in store.list("predictions/") if len(listed.key.encode()) > store.room] == []


def test_a_file_that_is_no_csv_leaves_the_answer_to_the_csv_of_its_name_alone(store: ObjectStore) -> None:
    drop(store, {"a.csv": series()})
    answer_all(store)
    before = {found.key: found.etag for found in store.list("predictions/")}
    drop(store, {"a": b"not a market", "a.CSV": series("CAPS")})
    answer_all(store)
    assert before.items() <= {found.key: found.etag for found in store.list("predictions/")}.items()
    assert [report(store, name).outcome for name in ("a", "a.CSV")] == ["REJECTED", "PREDICTED"]


@pytest.mark.parametrize("symbol", ["A B", "A/B", "🚀", '"A,B"', "1+1="])
def test_odd_symbols_are_symbols(store: ObjectStore, symbol: str) -> None:
    drop(store, {"odd.csv": series(symbol)})
    answer_all(store)
    answered = rows_of(store, "predictions/odd_preds.csv")
    assert {found["symbol"] for found in answered} == {symbol.strip('"')}
    assert len(answered) == 20


def test_no_cell_of_an_answer_is_run_by_a_spreadsheet(store: ObjectStore) -> None:
    lines = [
        '=HYPERLINK("http://x"),2\n',
        "@SUM(A1)\n",
        row('"=HYPERLINK(""http://x"")"'),
        row("+1"),
        row("-1", open="-1"),
    ]
    drop(store, {"formulas.csv": series() + "".join(lines)})
    answer_all(store)
    published = [rows_of(store, f"predictions/formulas_{what}.csv") for what in ("preds", "rejected_rows")]
    assert [len(rows) for rows in published] == [20, 5]
    texts = [row[name] for rows in published for row in rows for name in ("symbol", "text", "reason") if name in row]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]


def test_of_very_many_refused_rows_the_first_are_listed_and_the_report_says_so(store: ObjectStore) -> None:
    more = "".join(row(f"S{number}", open="-1") for number in range(LISTED + 5))
    drop(store, {"some.csv": series() + more, "none.csv": HEADER + more})
    answer_all(store)
    for name, good in (("some", 20), ("none", 0)):
        said = report(store, f"{name}.csv").document
        assert said["rows"]["refused"] == LISTED + 5
        assert said["rows"]["received"] == LISTED + 5 + good
        assert said["notes"][0] == "10,000 of 10,005 refused rows are listed, the first ones"
        refused = rows_of(store, f"predictions/{name}_rejected_rows.csv")
        assert [int(found["line"]) for found in refused] == list(range(2 + good, 2 + good + LISTED))
    assert report(store, "none.csv").document["reason"] == "no valid row is left: open: not positive (10005 rows)"


def test_refused_rows_are_named_with_their_lines_and_the_rest_is_scored(store: ObjectStore) -> None:
    drop(store, {"some.csv": series() + row(day=21, open="x") + row("S" * 3000, 22) + row(day=23, high="1")})
    answer_all(store)
    assert report(store, "some.csv").document["rows"] == {
        "received": 23, "accepted": 20, "refused": 3, "repeated": 0, "predicted": 19, "seed": 1,
    }  # fmt: skip
    refused = rows_of(store, "predictions/some_rejected_rows.csv")
    assert [(found["line"], found["reason"]) for found in refused] == [
        ("22", "open: missing or not a number"),
        ("23", "symbol: longer than 100 characters"),
        ("24", "high: below low"),
    ]


def test_the_same_bytes_again_are_skipped_and_the_earlier_answer_named(store: ObjectStore) -> None:
    drop(store, {"twice.csv": series()})
    (first,) = answer_all(store)
    published = store.read("predictions/twice_preds.csv")
    drop(store, {"twice.csv": series()})
    (again,) = answer_all(store)
    (receipt,) = again.receipts
    assert receipt.outcome == "SKIPPED"
    assert receipt.earlier_answer == first.receipts[0].answer_id
    found = report(store, "twice.csv")
    assert found.outcome == "SKIPPED"
    assert found.document["answer_id"] == first.receipts[0].answer_id
    assert found.document["predictions"] == "predictions/twice_preds.csv"
    assert store.read("predictions/twice_preds.csv") == published
    history = MarketHistory(store)
    assert (history.count(), len(history.current_rows())) == (40, 20)


def test_other_bytes_under_the_same_key_are_a_correction_and_both_answers_stay_traceable(store: ObjectStore) -> None:
    drop(store, {"prices.csv": series()})
    (first,) = answer_all(store)
    drop(store, {"prices.csv": series(days=25)})
    (second,) = answer_all(store)
    assert len(rows_of(store, "predictions/prices_preds.csv")) == 25
    for answers in (first, second):
        receipt = answers.receipts[0]
        assert read_receipt(receipt.answer_id, store) == receipt
    assert first.receipts[0].answer_id != second.receipts[0].answer_id


def test_an_older_delivery_answered_again_does_not_replace_a_newer_answer(store: ObjectStore) -> None:
    drop(store, {"prices.csv": series()})
    answer_all(store)
    drop(store, {"prices.csv": series(days=25)})
    answer_all(store)
    published = store.read("predictions/prices_preds.csv")
    history, registry = MarketHistory(store), Registry(store)
    champion = registry.champion()
    assert champion is not None
    received = receive(DeliveryLog(store).get(1), store, datetime.now(UTC))
    cleaned = clean(received, KnownCoins(history, None, first_bundle()), store, Settings())
    sources = Sources(store, history, history.version(), first_bundle(), champion, Settings(), "again")
    again = answer(received, cleaned, sources)
    assert "a newer version of the file was answered in delivery 00000002" in str(again.receipts[0].reason)
    assert store.read("predictions/prices_preds.csv") == published
    assert report(store, "prices.csv").document["delivery"] == "00000002"


def test_a_file_that_vanishes_before_it_is_read_is_skipped_with_that_reason(store: ObjectStore) -> None:
    drop(store, {"gone.csv": series()})
    (delivery,) = DeliveryLog(store).assign_new(datetime.now(UTC))
    drop(store, {"gone.csv": series(days=5)})
    (file,) = receive(delivery, store, datetime.now(UTC)).files
    assert file.outcome == "SKIPPED"
    assert "replaced or deleted" in str(file.reason)


def test_gzip_is_answered_under_the_plain_name(store: ObjectStore) -> None:
    drop(store, {"packed.csv.gz": gzip.compress(series().encode())})
    answer_all(store)
    assert len(rows_of(store, "predictions/packed_preds.csv")) == 20


def test_an_unseen_series_is_predicted_from_its_second_row_on(store: ObjectStore) -> None:
    drop(store, {"past.csv": HEADER + row("NEW", 1, close="11")})
    answer_all(store)
    (first,) = rows_of(store, "predictions/past_preds.csv")
    assert (first["status"], first["pred_open"]) == ("seed", first["val_open"])
    drop(store, {"today.csv": HEADER + row("NEW", 2)})
    answer_all(store)
    (answered,) = rows_of(store, "predictions/today_preds.csv")
    assert (answered["status"], float(answered["pred_open"])) == ("predicted", 11.0)


def test_a_second_coin_of_a_symbol_is_a_series_of_its_own(store: ObjectStore) -> None:
    header = HEADER.replace("symbol", "slug,symbol")

    def coin(slug: str) -> str:
        return "".join(f"{slug},{line}\n" for line in series("BTM", 12).splitlines()[1:])

    drop(store, {"first.csv": header + coin("bitmark")})
    answer_all(store)
    drop(store, {"second.csv": header + coin("bytom")})
    answer_all(store)
    assert {found["symbol"] for found in rows_of(store, "predictions/first_preds.csv")} == {"BTM"}
    assert {found["symbol"] for found in rows_of(store, "predictions/second_preds.csv")} == {"BTM:bytom"}
    assert any("BTM:bytom" in note for note in report(store, "second.csv").document["notes"])


def test_each_stage_run_twice_changes_nothing(store: ObjectStore) -> None:
    drop(store, {"prices.csv": series() + row(day=31, open="-1")})
    (first,) = answer_all(store)
    objects = {found.key: found.etag for found in store.list() if not found.key.endswith("_report.json")}
    history, registry = MarketHistory(store), Registry(store)
    champion = registry.champion()
    assert champion is not None
    received = receive(DeliveryLog(store).get(1), store, datetime.now(UTC))
    cleaned = clean(received, KnownCoins(history, None, first_bundle()), store, Settings())
    remember(received, cleaned, history, store)
    sources = Sources(store, history, history.version(), first_bundle(), champion, Settings(), "another run")
    again = answer(received, cleaned, sources)
    assert again.receipts == first.receipts
    assert {found.key: found.etag for found in store.list() if not found.key.endswith("_report.json")} == objects
