"""The answer to a request is as good as one to a file: traced and replayed from its pack, all there is of it."""

from datetime import UTC, datetime, timedelta

import pytest

from crypto_ml.audit import used_by
from crypto_ml.audit.corrections import corrections
from crypto_ml.audit.references import UnknownAnswer, resolve
from crypto_ml.audit.replay import NOT_SETTLED, replay
from crypto_ml.audit.retractions import used
from crypto_ml.audit.trace import lines, trace
from crypto_ml.audit.used_by import told_of
from crypto_ml.ledger.requests import pack_key
from crypto_ml.ledger.settlements import record_sweep
from crypto_ml.stages.requests import Reply
from crypto_ml.stages.retraction import Decision, NothingToRetract, retract
from crypto_ml.stages.upkeep import keep_tables
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.packed import PackedStore, unpacked
from crypto_ml.storage.prediction_log import PredictionLog
from crypto_ml.storage.tables import compaction
from crypto_ml_tests.audit.test_replay import flipped, rewrite_log
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.asking import ask, csv, in_json, records, settle
from crypto_ml_tests.stages.road import Road, upload

ROWS = market({"BTC": 40, "NEW": 40})
BEFORE, LAST = ROWS[ROWS["date"] < "2018-02-08"], ROWS[ROWS["date"] >= "2018-02-08"]
REFUSED = '[{"symbol": "BTC", "date": "2018-02-09", "open": -1.50}, '


@pytest.fixture
def road(store: ObjectStore) -> Road:
    """A history of a series that the model scales and one that it does not, which came in three files."""
    made = Road(store)
    for name, end in (("old", 10), ("older", 20), ("oldest", 38)):
        days = BEFORE.groupby("symbol").cumcount()
        made.drop(**{name: upload(BEFORE[(days >= end - 18) & (days < end)])})
        made.answer_new()
    return made


def asked(road: Road) -> list[Reply]:
    """Requests of one moment (a file's rows, records beside a refused one, an unknown series, no rows), and another."""
    together = ask(
        road,
        csv(upload(LAST), "file"),
        records(REFUSED.encode() + in_json(LAST[LAST["symbol"] == "NEW"])[1:], "records"),
        csv(upload(market({"NOBODY": 3})), "seeds"),
        csv(b"not,a,market\n", "nothing"),
    )
    (alone,) = ask(road, records(in_json(LAST[:1])[1:-1], "one"))
    return [*together, alone]


def verdicts(road: Road, replies: list[Reply], *, full: bool = False) -> set[tuple[str, bool]]:
    """What comes of replaying these, and whether their rows are said to be on their way to the log."""
    found = [replay(reply.answer_id, road.store, full=full) for reply in replies]
    return {(str(one), NOT_SETTLED in (one.note or "")) for one in found}


def test_every_answer_to_a_request_comes_out_again_whatever_becomes_of_history_model_and_log(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = asked(road)
    assert [one.outcome for one in replies] == ["PREDICTED"] * 3 + ["REJECTED", "PREDICTED"]
    assert verdicts(road, replies[:1]) == {("IDENTICAL", True)}
    assert verdicts(road, replies[2:4]) == {("IDENTICAL", False)}  # they predicted nothing
    assert settle(road, replies) == 2
    assert verdicts(road, replies) == {("IDENTICAL", False)}
    other = model("change", label="other")
    road.registry.add(other)
    road.registry.promote(other.version, by="ann", why="better", at=road.now)
    road.drop(old=upload(market({"BTC": 38, "NEW": 38}, seed=2)))  # corrects every row
    road.answer_new()
    later = ask(road, csv(upload(LAST), "file"))
    settle(road, later)
    assert later[0].report["model_version"] == other.version
    assert later[0].predictions_csv != replies[0].predictions_csv
    monkeypatch.setattr(compaction, "TINY_TOGETHER", 3)
    assert all(one.compactions for one in keep_tables(road.store)[:1])
    assert verdicts(road, [*replies, *later]) == {("IDENTICAL", False)}
    assert verdicts(road, replies[:2], full=True) == {("IDENTICAL", False)}
    log = PredictionLog(road.store)
    assert set(log.rows(later[0].answer_id)["road"].to_pylist()) == {"request"}
    rewrite_log(road.store, log.predictions(later[0].answer_id))
    record_sweep(datetime.now(UTC) + timedelta(hours=1), road.store)
    assert str(replay(replies[0].answer_id, road.store)) == (
        f"DIFFERS AT prediction_log: no prediction of {replies[0].answer_id} is there"
    )
    assert str(replay(later[0].answer_id, road.store)) == "IDENTICAL"


def test_every_prediction_is_traced_to_what_was_asked_and_nothing_is_told_of_that_is_not_there(road: Road) -> None:
    replies = asked(road)
    bodies = {0: upload(LAST).decode().splitlines()[1:], 1: in_json(LAST[LAST["symbol"] == "NEW"]).decode()}
    for reply in replies[:2]:
        for row in reply.predictions.to_pylist():
            found = trace(resolve(row["prediction_id"], road.store), road.store)
            assert found.row is not None
            assert (found.row.symbol, found.row.pred_open) == (row["symbol"], row["pred_open"])
            assert found.row.as_received in bodies[replies.index(reply)]
            uploads = {one.upload for one in found.row.earlier_rows}
            assert all(one.startswith(("uploads/", f"requests/{reply.delivery}/")) for one in uploads)
            assert found.row.scaled_by == ("model" if row["symbol"] == "BTC" else "own rows")
    reference = resolve(replies[1].predictions["prediction_id"][0].as_py(), road.store)
    found = trace(reference, road.store)
    text = "\n".join(line for _, line in lines(found, road.store))
    pack = road.store.uri(pack_key(replies[1].delivery))
    assert found.document()["pack"] == pack_key(replies[1].delivery)
    assert "  as received   record 2, as line 3: {" in text
    assert "request         records.json  sha256 " in text
    assert "the rows of requests do not become part of it" in text
    assert f"_report.json in {pack}" in text or f".report.json in {pack}" in text
    for address in (word.rstrip(",") for word in text.split() if word.startswith("s3://")):
        assert road.store.head(address.removeprefix(road.store.uri(""))), address
    for name in (found.receipt.upload.key, found.receipt.published["predictions"].key):
        assert resolve(name, road.store).answer_id == replies[1].answer_id
    assert trace(resolve(replies[3].answer_id, road.store), road.store).published == "nothing was published"
    (unrecorded,) = ask(road, csv(upload(LAST)), record=False)
    for name, said in (
        (unrecorded.answer_id, "asked for without being recorded"),
        (f"{replies[0].delivery}-0123456789abcdef", "the requests that were answered as .* have others"),
    ):
        with pytest.raises(UnknownAnswer, match=said):
            trace(resolve(name, road.store), road.store)


STAGES = {
    "receipts/deliveries/": "raw_uploads",
    "receipts/answers/": "receipt",
    "receipts/answered/": "predictions",
    "raw/received/": "raw_uploads",
    "raw/together/": "raw_uploads",
    "raw/cleaned/": "cleaned_features",
    "predictions/": "",
}
"""What a flipped byte in an entry of a pack makes differ, where somebody seals it again."""


def test_one_flipped_byte_in_a_pack_is_noticed_and_so_is_a_pack_that_was_sealed_again_or_is_gone(road: Road) -> None:
    one = ask(road, csv(upload(LAST), "file"), csv(upload(LAST[:1]), "other"))[0]
    key = pack_key(one.delivery)
    content = road.store.read(key)
    said = f"DIFFERS AT receipt: {road.store.uri(key)} is not as it was written"
    for at in [*range(0, len(content), max(len(content) // 12, 1)), 8, 10, 12, len(content) - 1, len(content) - 70]:
        road.store.replace(key, flipped(content, at))
        assert str(replay(one.answer_id, road.store)).startswith(said), at
    entries = unpacked(content, "")
    looked = set()
    for name, entry in entries.items():
        belongs = [stage for prefix, stage in STAGES.items() if name.startswith(prefix)]
        if "other" in name or name.startswith("raw/predicted/"):  # another request's; and what the log has by now
            continue
        assert belongs, name
        forged = PackedStore(road.store, one.delivery, entries | {name: flipped(entry, len(entry) // 3)})
        road.store.replace(key, forged.rendered())
        found = str(replay(one.answer_id, road.store))
        assert found.startswith(f"DIFFERS AT {belongs[0]}"), (name, found)
        looked.add(name.split("/")[0] + name.split("/")[1])
    assert len(looked) >= len(STAGES)
    road.store.replace(key, content)
    assert str(replay(one.answer_id, road.store)) == "IDENTICAL"
    road.store.client.delete_object(Bucket=road.store.bucket, Key=road.store.physical(key))
    assert str(replay(one.answer_id, road.store)) == (
        f"DIFFERS AT receipt: evidence is gone: There is no object {road.store.uri(key)}."
    )


def test_what_used_rows_that_were_corrected_or_retracted_lists_requests_and_a_request_cannot_be_retracted(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = ask(road, csv(upload(LAST), "file"), csv(upload(market({"NOBODY": 3})), "seeds"))
    settle(road, replies)
    last = BEFORE[BEFORE["date"] == "2018-02-07"]
    road.drop(fixed=upload(last.assign(high=last["high"] * 1.5)))
    road.answer_new()
    (after,) = ask(road, csv(upload(LAST), "after"))
    settle(road, [after])
    found = corrections(str(road.report("fixed")["answer_id"]), road.store)
    assert [(one.name, len(one.used)) for one in found.answers] == [(replies[0].answer_id, len(LAST))]
    assert f"  {replies[0].answer_id} to request file.csv: {len(LAST)} predictions" in "\n".join(told_of(found))
    retracted = retract(Decision("uploads/fixed.csv", "ann", "wrong"), road.store, road.history, road.now)
    voided = used(retracted[0], road.store)
    assert [one.name for one in voided.answers] == [after.answer_id]
    assert voided.requests_not_looked_at == 0
    monkeypatch.setattr(used_by, "MOST_REQUESTS", 0)
    assert used(retracted[0], road.store).requests_not_looked_at == 2
    for name in (after.answer_id, f"{after.delivery}.0", str(after.report["upload"]["key"])):
        with pytest.raises(NothingToRetract, match="its rows did not become part of the market history"):
            retract(Decision(name, "ann", "wrong"), road.store, road.history, road.now)
