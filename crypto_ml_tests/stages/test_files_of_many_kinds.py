"""Files as people have them, down the whole road: how each was read stands in its report, and it comes out again."""

import io
from typing import Any

import pandas as pd

from crypto_ml.audit.corrections import corrections
from crypto_ml.audit.references import Reference
from crypto_ml.audit.replay import replay
from crypto_ml.audit.trace import trace
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.settings import Settings
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import Road, upload

ROWS = market({"BTC": 15})


def semicolons(rows: pd.DataFrame) -> bytes:
    named = rows.rename(columns={"symbol": "Simbolo", "open": "Apertura"})
    columns = ["Simbolo", "date", "Apertura", "high", "low", "close", "market"]
    return named[columns].to_csv(index=False, sep=";", decimal=",", date_format="%d.%m.%Y").encode()


def parquet(rows: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    rows[["symbol", "date", "open", "high", "low", "close", "volume"]].to_parquet(out)
    return out.getvalue()


def test_the_report_says_how_each_file_was_read_and_its_answer_comes_out_again(road: Road) -> None:
    road.settings = Settings(columns="symbol=Simbolo,open=Apertura")
    files = {"a.csv": semicolons(ROWS), "b.parquet": parquet(ROWS), "c.csv": upload(ROWS)}
    files |= {"d.xlsx": b"PK", "e.csv": b"PK\x03\x04 xl/workbook.xml", "f.csv": upload(ROWS.assign(symbol="btc"))}
    road.put(files)
    (answers,) = road.answer_new()
    reports: dict[str, dict[str, Any]] = {name: road.report(name) for name in files}
    assert {name: report["reason"] for name, report in reports.items() if report["reason"]} == {
        "d.xlsx": "the name of an upload must end in .csv, .csv.gz or .parquet; by its name it is a spreadsheet; save "
        "it as CSV in UTF-8 and upload that",
        "e.csv": "the file is an Excel workbook (.xlsx); save it as CSV in UTF-8 and upload that",
    }
    assert [reports[name]["read_as"] and reports[name]["read_as"]["in_words"] for name in files] == [
        "CSV in UTF-8, semicolons between values; a decimal comma; dates as d.m.yyyy; symbol is its column Simbolo; "
        "open is its column Apertura",
        "Parquet",
        "CSV in UTF-8, commas between values; a decimal point",
        None,
        None,
        "CSV in UTF-8, commas between values; a decimal point",
    ]
    assert reports["a.csv"]["read_as"]["columns"] == {"symbol": "Simbolo", "open": "Apertura"}
    assert "no column has the market capitalisation" in reports["b.parquet"]["notes"][0]
    assert any("btc is a series of its own beside BTC" in note for note in reports["f.csv"]["notes"])
    assert not any("series of its own" in note for name in ("a.csv", "c.csv") for note in reports[name]["notes"])
    published = [road.store.read(f"predictions/{name}preds.csv") for name in ("a_", "b.parquet.", "c_")]
    opens = [pd.read_csv(io.BytesIO(content))["val_open"].tolist() for content in published]
    assert opens == [ROWS["open"].tolist()] * 3
    for receipt in answers.receipts:
        assert str(replay(receipt.answer_id, road.store)) == "IDENTICAL", receipt.upload.key
        recorded = read_receipt(receipt.answer_id, road.store)
        assert recorded.read_as == receipt.read_as
        if receipt.upload.key == "uploads/b.parquet":
            found = trace(Reference(receipt.answer_id, line=13), road.store).row
            assert found is not None
            assert found.as_received.startswith("symbol=BTC, date=2018-01-12 00:00:00.000")
            assert f" open={found.val_open!r}, " in found.as_received


def test_a_symbol_in_other_capitals_is_told_of_once_the_history_has_the_usual_ones(road: Road) -> None:
    road.drop(first=upload(ROWS.assign(symbol="NEW")))
    road.answer_new()
    road.drop(second=upload(ROWS.assign(symbol="new")), third=upload(ROWS.assign(symbol="Other")))
    (answers,) = road.answer_new()
    notes = {receipt.upload.key: " ".join(receipt.notes) for receipt in answers.receipts}
    assert "new is a series of its own beside NEW" in notes["uploads/second.csv"]
    assert "series of its own" not in notes["uploads/third.csv"]
    assert set(road.history.current_rows(["symbol"])["symbol"].to_pylist()) == {"NEW", "new", "Other"}


def test_a_later_file_with_fewer_columns_corrects_nothing_and_one_with_another_price_does(road: Road) -> None:
    full = ROWS.assign(slug="bitcoin", volume=5.0)
    columns = ("symbol", "date", "open", "high", "low", "close", "market")
    road.drop(all=upload(full, columns=(*columns, "volume", "slug")))
    road.answer_new()
    fewer = upload(full.drop(columns="market"), columns=columns[:-1])
    corrected = full.assign(close=full["close"].where(full.index != 4, full["low"]))
    found = []
    for name, content in (("plain", upload(full)), ("fewer", fewer), ("corrected", upload(corrected))):
        road.drop(**{name: content})
        (answers,) = road.answer_new()
        found.append(corrections(answers.receipts[0].answer_id, road.store))
    assert [len(one.corrections) for one in found] == [0, 0, 1]
    assert found[2].corrections[0].date == full["date"].iloc[4].date()
    assert [used.upload for used in found[2].answers] == ["uploads/all.csv", "uploads/plain.csv", "uploads/fewer.csv"]
