"""What an upload is answered with, and what stands behind the answer."""

import gzip
import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from crypto_ml.digest import sha256_of
from crypto_ml.forecasting.bundle import NETWORK, ModelBundle, make_bundle
from crypto_ml.forecasting.schema import PRICES
from crypto_ml.forecasting.scoring import score_rows
from crypto_ml.ledger.formats.receipt_v2 import Vouched
from crypto_ml.ledger.layout import answer_keys, raw_key, receipt_key
from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.settings import Settings
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.road import COLUMNS, NOW, Road, upload

HEADER = ",".join(COLUMNS).encode() + b"\n"


def test_a_history_is_answered_row_by_row_with_what_scoring_gives(road: Road) -> None:
    rows = market({"BTC": 20, "NEW": 14, "Z": 3})
    road.drop(prices=upload(rows.sample(frac=1, random_state=1)))
    (answers,) = road.answer_new()
    content = road.store.read("predictions/prices_preds.csv")
    assert content.startswith(b"symbol,index,date,pred_open,val_open,status,prediction_id\n")
    found = road.predictions("prices")
    expected = score_rows(rows, road.bundle, "one_step")
    assert found["pred_open"].tolist() == expected["pred_open"].tolist()
    assert found["val_open"].tolist() == rows["open"].tolist()
    for name in ("symbol", "index", "status"):
        assert found[name].tolist() == expected[name].tolist()
    assert found["date"].tolist() == rows["date"].dt.strftime("%Y-%m-%d").tolist()
    assert found["prediction_id"].is_unique
    (receipt,) = answers.receipts
    assert set(found["prediction_id"].str.rpartition("-")[0]) == {receipt.answer_id}


def test_a_prediction_id_leads_to_the_line_of_the_upload(road: Road) -> None:
    rows = market({"BTC": 5}).sample(frac=1, random_state=3)
    road.drop(prices=upload(rows))
    road.answer_new()
    lines = dict(zip(rows["date"].dt.strftime("%Y-%m-%d"), range(2, 7), strict=True))
    found = road.predictions("prices")
    assert found["prediction_id"].str.rpartition("-")[2].astype(int).tolist() == [lines[day] for day in found["date"]]


def test_a_report_says_what_happened_and_its_receipt_names_all_that_went_in(road: Road) -> None:
    body = upload(market({"BTC": 12}))
    road.drop(prices=body)
    road.answer_new()
    report = road.report("prices")
    assert (report["outcome"], report["reason"]) == ("PREDICTED", None)
    assert report["rows"] == {
        **{"received": 12, "accepted": 12, "refused": 0, "repeated": 0},
        **{"predicted": 11, "seed": 1},
    }
    assert report["predictions"] == "predictions/prices_preds.csv"
    assert report["rejected_rows"] is None
    assert report["model_version"] == road.bundle.version
    receipt = read_receipt(report["answer_id"], road.store)
    assert report["receipt"] == receipt_key(receipt.answer_id)
    assert receipt.inputs.upload_sha256 == report["upload"]["sha256"] == sha256_of(body)
    assert road.store.read(raw_key(sha256_of(body))) == body
    assert receipt.inputs.bundle_sha256 == road.bundle.sha256
    assert receipt.inputs.history_version == road.history.version()
    assert receipt.champion["by"] == "crypto_ml"
    published = road.store.read("predictions/prices_preds.csv")
    assert receipt.published == {
        "predictions": Vouched("predictions/prices_preds.csv", sha256_of(published)),
        "report": Vouched(
            "predictions/prices_report.json", sha256_of(road.store.read("predictions/prices_report.json"))
        ),
    }


def test_the_cleaned_rows_of_the_receipt_are_kept_and_hashed(road: Road) -> None:
    road.drop(prices=upload(market({"BTC": 4})))
    (answers,) = road.answer_new()
    _, cleaned = road.clean(1)
    content = road.store.read(cleaned.accepted_key)
    assert sha256_of(content) == cleaned.accepted_sha256 == answers.receipts[0].inputs.accepted_sha256
    kept = pq.read_table(io.BytesIO(content)).to_pandas()
    assert kept["symbol"].tolist() == ["BTC"] * 4
    assert {"close_ratio", "spread", "log_shares"} < set(kept.columns)


def test_what_a_chart_reads_has_no_nan(road: Road) -> None:
    rows = market({"BTC": 12, "NEW": 12})
    road.drop(prices=upload(rows.assign(market="")))
    road.answer_new()
    found = road.predictions("prices")
    assert np.isfinite(found[["pred_open", "val_open"]].to_numpy(np.float64)).all()
    assert "" not in found.astype(str).to_numpy()


def test_a_daily_row_is_answered_from_history_as_in_the_whole_file(road: Road) -> None:
    rows = market({"BTC": 30, "LTC": 8, "NEW": 15, "FEW": 9})
    last = rows.groupby("symbol").tail(1)
    road.drop(past=upload(rows.drop(last.index)))
    road.answer_new()
    road.drop(today=upload(last))
    road.answer_new()
    today = road.predictions("today")
    expected = score_rows(rows, road.bundle, "one_step").groupby("symbol").tail(1)
    assert today["index"].tolist() == [0] * 4
    assert today["pred_open"].tolist() == expected["pred_open"].tolist()
    assert today["status"].tolist() == expected["status"].tolist() == ["predicted", "seed", "predicted", "predicted"]
    note = road.report("today")["notes"]
    assert note[0].startswith("NEW: not known to the model's scaler")
    assert note[1].startswith("1 row has too few earlier rows")


def test_history_fills_the_holes_of_an_upload_and_the_uploads_own_rows_come_first(road: Road) -> None:
    rows = market({"BTC": 20, "NEW": 20})
    wrong = rows.assign(**{name: rows[name] * 7 for name in PRICES})
    road.drop(past=upload(wrong))
    road.answer_new()
    holes = rows[rows.groupby("symbol").cumcount().isin([12, 13, 15, 16, 19])]
    road.drop(now=upload(holes))
    road.answer_new()
    # each asked row stands for history's row of its day, every other day is history's
    mixed = pd.concat([wrong.drop(holes.index).assign(context=True), holes]).sort_values(["symbol", "date"])
    expected = score_rows(mixed, road.bundle, "one_step")
    assert road.predictions("now")["pred_open"].tolist() == expected["pred_open"].tolist()


def test_a_file_is_not_its_own_past(road: Road) -> None:
    rows = market({"BTC": 12, "NEW": 15})
    road.drop(prices=upload(rows))
    road.answer_new()
    first = road.predictions("prices")
    assert road.history.count() == len(rows)  # when it is answered again, history holds its rows
    road.drop(copy=upload(rows))
    road.answer_new()
    assert road.predictions("copy")["pred_open"].tolist() == first["pred_open"].tolist()


def test_later_rows_of_history_change_nothing(road: Road) -> None:
    rows = market({"BTC": 20, "NEW": 20})
    early = rows[rows.groupby("symbol").cumcount() < 14]
    road.drop(late=upload(rows.drop(early.index)))
    road.answer_new()
    road.drop(early=upload(early))
    road.answer_new()
    assert (
        road.predictions("early")["pred_open"].tolist()
        == score_rows(early, road.bundle, "one_step")["pred_open"].tolist()
    )


def test_the_files_of_a_delivery_are_answered_each_for_itself(road: Road) -> None:
    rows = market({"BTC": 15})
    road.drop(a=upload(rows), b=upload(rows.iloc[:6]), c=b"nonsense", d=upload(rows.iloc[9:]))
    (answers,) = road.answer_new()
    assert [receipt.outcome for receipt in answers.receipts] == ["PREDICTED", "PREDICTED", "REJECTED", "PREDICTED"]
    whole = road.predictions("a")["pred_open"].tolist()
    assert road.predictions("b")["pred_open"].tolist() == whole[:6]
    # what the delivery's other files say of earlier days is known by then
    assert road.predictions("d")["pred_open"].tolist() == whole[9:]
    assert answers.preview["symbol"].to_pylist()


def test_cumulative_recovery_is_a_setting(road: Road) -> None:
    rows = market({"BTC": 15})
    road.settings = Settings(recovery="cumulative")
    road.drop(prices=upload(rows))
    road.answer_new()
    expected = score_rows(rows, road.bundle, "cumulative")["pred_open"].tolist()
    assert road.predictions("prices")["pred_open"].tolist() == expected


def test_repeated_rows_are_answered_once_and_counted(road: Road) -> None:
    rows = market({"BTC": 6})
    road.drop(prices=upload(pd.concat([rows, rows.iloc[2:4]])))
    road.answer_new()
    assert len(road.predictions("prices")) == road.history.count() == 6
    counts = road.report("prices")["rows"]
    assert (counts["received"], counts["accepted"], counts["repeated"]) == (8, 6, 2)


def test_numbers_that_json_does_not_have_are_no_obstacle(road: Road) -> None:
    rows = market({"BTC": 6}).assign(volume=[np.inf, -np.inf, np.nan, 1e308, 0, 1])
    road.drop(prices=upload(rows, columns=[*COLUMNS, "volume"]))
    road.answer_new()
    assert road.report("prices")["outcome"] == "PREDICTED"
    assert len(road.predictions("prices")) == 6


def test_a_rejected_file_without_one_valid_row_still_lists_its_rows(road: Road) -> None:
    road.drop(bad=HEADER + b"BTC,2018-01-01,-1,12,9,11,500\n,2018-01-01,10,12,9,11,500\n")
    road.answer_new()
    report = road.report("bad")
    assert report["outcome"] == "REJECTED"
    assert report["rows"]["received"] == report["rows"]["refused"] == 2
    assert road.rejected_rows("bad") == [(2, "open: not positive"), (3, "symbol: empty")]
    assert report["rejected_rows"] == "predictions/bad_rejected_rows.csv"


def test_refused_rows_of_each_kind_stand_in_order_of_lines(road: Road) -> None:
    good = upload(market({"BTC": 3})).decode().splitlines()
    lines = [*good, "ragged", good[1].replace("BTC", "LTC"), good[1].replace("BTC", ""), good[1].replace("BTC", "LTC")]
    lines[-1] = lines[-1].rpartition(",")[0] + ",1"
    road.drop(prices="\n".join(lines).encode())
    road.answer_new()
    reasons = road.rejected_rows("prices")
    assert [line for line, _ in reasons] == [5, 6, 7, 8]
    assert reasons[1][1] == reasons[3][1] == "symbol and date: more than once, with different values (first in line 6)"


def test_a_correction_without_refused_rows_replaces_the_list_of_them(road: Road) -> None:
    rows = market({"BTC": 5})
    road.drop(prices=upload(rows) + b"ragged\n")
    road.answer_new()
    assert road.rejected_rows("prices") == [(7, "the line has 1 values where the header names 7")]
    road.drop(prices=upload(rows))
    road.answer_new()
    assert road.rejected_rows("prices") == []
    assert road.report("prices")["rows"]["refused"] == 0


def test_skipping_the_same_bytes_leaves_the_earlier_answer_whole(road: Road) -> None:
    body = upload(market({"BTC": 5})) + b"ragged\n"
    road.drop(prices=body)
    road.answer_new()
    before, report = road.objects(without="_report.json"), road.report("prices")
    for _ in range(2):
        road.drop(prices=body)
        road.answer_new()
        again = road.report("prices")
        assert again["outcome"] == "SKIPPED"
        assert report["answer_id"] in again["reason"]
        for name in ("answer_id", "rows", "predictions", "rejected_rows", "receipt"):
            assert again[name] == report[name]
    after = road.objects(without="_report.json")
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    # the rows are in the history once more: they were received once more, and count from then on
    kept = ("receipts/", "raw/", "market_history/")
    assert {key for key in changed if not key.startswith(kept)} == {"uploads/prices.csv"} & changed


def test_a_file_that_vanishes_leaves_its_earlier_answer_whole(road: Road) -> None:
    road.drop(prices=upload(market({"BTC": 5})) + b"ragged\n")
    road.answer_new()
    refused = road.rejected_rows("prices")
    road.drop(prices=upload(market({"BTC": 6})))
    (delivery,) = road.assign()
    road.drop(prices=upload(market({"BTC": 7})))
    road.answer(delivery.number)
    assert road.report("prices")["outcome"] == "SKIPPED"
    assert road.rejected_rows("prices") == refused
    assert len(road.predictions("prices")) == 5
    road.answer_new()
    assert (road.report("prices")["outcome"], len(road.predictions("prices"))) == ("PREDICTED", 7)


def test_a_bad_correction_is_rejected_and_the_first_bytes_are_then_answered_anew(road: Road) -> None:
    good = upload(market({"BTC": 5}))
    for body in (good, b"nonsense", good):
        road.drop(prices=body)
        road.answer_new()
    assert road.report("prices")["outcome"] == "PREDICTED"
    assert len(road.predictions("prices")) == 5
    assert len([key for key in road.objects() if key.startswith("receipts/answers/")]) == 3


def test_a_correction_is_what_history_says_from_then_on(road: Road) -> None:
    rows = market({"BTC": 8})
    corrected = rows.assign(**{name: rows[name] * 2 for name in PRICES})
    road.drop(prices=upload(rows.iloc[:7]))
    road.answer_new()
    road.drop(prices=upload(corrected.iloc[:7]))
    road.answer_new()
    road.drop(today=upload(corrected.iloc[7:]))
    road.answer_new()
    assert road.history.count() == 15
    expected = score_rows(corrected, road.bundle, "one_step")["pred_open"].iloc[-1]
    assert road.predictions("today")["pred_open"].tolist() == [expected]


def test_a_delivery_answered_again_by_another_model_has_two_receipts_and_the_new_numbers(road: Road) -> None:
    rows = market({"BTC": 8})
    road.drop(prices=upload(rows))
    (first,) = road.answer_new()
    other = model("change", label="other")
    road.registry.add(other)
    road.registry.promote(other.version, by="ann", why="better", at=NOW)
    second = road.answer(1, "another run")
    assert road.predictions("prices")["pred_open"].tolist() == score_rows(rows, other, "one_step")["pred_open"].tolist()
    for answers, bundle in ((first, road.bundle), (second, other)):
        receipt = read_receipt(answers.receipts[0].answer_id, road.store)
        assert receipt.inputs.model_version == bundle.version
    assert road.report("prices")["model_version"] == other.version
    assert road.history.count() == 8


@pytest.mark.parametrize("lost", ["_preds.csv", "_report.json", "_rejected_rows.csv"])
def test_a_run_that_broke_off_is_finished_by_the_next_with_the_same_answer(road: Road, lost: str) -> None:
    road.drop(prices=upload(market({"BTC": 5})) + b"ragged\n")
    road.answer_new()
    before = road.objects()
    key = road.store.physical(f"predictions/prices{lost}")
    road.store.client.delete_object(Bucket=road.store.bucket, Key=key)
    road.answer(1, "another run")
    assert road.objects() == before


def test_every_stage_run_twice_changes_nothing_at_all(road: Road) -> None:
    road.drop(prices=upload(market({"BTC": 5, "NEW": 12})) + b"ragged\n", bad=b"")
    (first,) = road.answer_new()
    before = road.objects()
    again = road.answer(1, "another run")
    assert again.receipts == first.receipts
    assert road.objects() == before
    assert road.history.count() == 17


def test_a_second_coin_of_a_symbol_is_named_apart_everywhere(road: Road) -> None:
    names = [*COLUMNS, "slug"]
    rows = market({"BTM": 14})
    road.drop(one=upload(rows.assign(slug="bitmark"), columns=names))
    road.answer_new()
    both = pd.concat([rows.assign(slug="bytom", open=rows["low"]), rows.assign(slug="bitmark")])
    road.drop(both=upload(both, columns=names))
    road.answer_new()
    found = road.predictions("both")
    assert found["symbol"].tolist() == ["BTM"] * 14 + ["BTM:bytom"] * 14
    assert found["index"].tolist() == [*range(14), *range(14)]
    assert found["val_open"].tolist() == [*rows["open"], *rows["low"]]
    assert road.history.slugs() == {"BTM": "bitmark", "BTM:bytom": "bytom"}
    assert any("bytom is named BTM:bytom" in note for note in road.report("both")["notes"])


def with_slugs(slugs: dict[str, str]) -> ModelBundle:
    bundle = model("gap")
    return make_bundle(
        label="slugs",
        target="gap",
        scaler=bundle.statistics,
        slugs=slugs,
        network_onnx=bundle.files[NETWORK],
        weights_sha256="slugs",
        about={},
        documents={},
    )


@pytest.mark.parametrize("said", ["bytom", None])
def test_a_daily_row_of_another_coin_than_the_scalers_is_scaled_by_its_own_rows(road: Road, said: str | None) -> None:
    # history knew bytom as BTC before this model, which knows bitcoin under that symbol, was promoted
    rows, names = market({"BTC": 16}), [*COLUMNS, "slug"]
    road.drop(past=upload(rows.iloc[:15].assign(slug="bytom"), columns=names))
    road.answer_new()
    bundle = with_slugs({"BTC": "bitcoin"})
    road.registry.add(bundle)
    road.registry.promote(bundle.version, by="ann", why="newer", at=NOW)
    road.drop(today=upload(rows.iloc[15:].assign(slug=said), columns=names))
    road.answer_new()
    expected = score_rows(rows.assign(slug="bytom"), bundle, "one_step").iloc[-1]
    assert expected["scaled_by"] == "own rows"
    (found,) = road.predictions("today").to_dict("records")
    assert (found["status"], found["pred_open"]) == ("predicted", expected["pred_open"])


@pytest.mark.parametrize(
    "name", ["with space.csv", "a+b%20c.csv", "日本/ünï.csv", "../../up.csv", "a//b.csv", "CAPS.CSV"]
)
def test_the_evidence_of_any_key_is_found_from_its_report(road: Road, name: str) -> None:
    road.put({name: upload(market({"BTC": 3}))})
    road.answer_new()
    report = json.loads(road.store.read(answer_keys(f"uploads/{name}").report))
    assert report["upload"]["key"] == f"uploads/{name}"
    assert read_receipt(report["answer_id"], road.store).upload.key == f"uploads/{name}"
    assert road.store.head(report["predictions"]) is not None


def test_a_file_and_its_gzip_twin_are_told_apart(road: Road) -> None:
    rows = market({"BTC": 9})
    road.put({"a.csv": upload(rows)})
    road.answer_new()
    road.put({"a.csv.gz": gzip.compress(upload(rows.iloc[:4]))})
    road.answer_new()
    again = road.answer(1)
    # they share an answer's name, as the layout has it: the newer delivery's answer stays, and says whose it is
    assert "a newer upload, uploads/a.csv.gz, was answered" in str(again.receipts[0].reason)
    assert len(road.predictions("a")) == 4
    assert road.report("a")["upload"]["key"] == "uploads/a.csv.gz"
