"""The chain of evidence in a real Dagster: what came is taken in, the whole verified, and what is wrong is red."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from pydantic import SecretStr

from crypto_ml.audit.verify import verify
from crypto_ml.defs.assets.evidence import VERIFIED
from crypto_ml.defs.resources import Platform
from crypto_ml.defs.schedules import evidence_when_new
from crypto_ml.ledger.alarms import AlarmLog
from crypto_ml.settings import Settings
from crypto_ml.stages.witnesses import witnesses
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.stages.road import upload


def test_evidence_is_chained_and_verified_and_red_with_an_alarm_where_something_is_wrong(
    store: ObjectStore, tmp_path: Path
) -> None:
    settings = Settings(bucket=store.bucket, prefix=store.prefix, witnesses=SecretStr(f"file://{tmp_path}/heads.jsonl"))
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = InProcessDagster.of(settings, instance)

        def tick() -> object:
            context = dg.build_schedule_context(
                instance, scheduled_execution_time=datetime.now(UTC), resources={"platform": Platform.of(settings)}
            )
            return evidence_when_new(context)

        assert isinstance(tick(), dg.SkipReason)
        store.replace("uploads/prices.csv", upload(market({"BTC": 12})))
        dagster.answer_new()
        assert isinstance(tick(), dg.RunRequest)
        found = dagster.run("verify_evidence")
        assert {one.check_name for one in found.get_asset_check_evaluations() if one.passed} == {
            "head_is_witnessed",
            "evidence_is_whole",
        }
        assert isinstance(tick(), dg.SkipReason)
        (witness,) = witnesses(settings, store)
        assert [head.number for head in witness.heads(store.uri(""))] == [1]

        def verified() -> tuple[int, int, bool]:
            result = dagster.run("verify_evidence", raises=False)
            metadata = result.asset_materializations_for_node("evidence_verified")[0].metadata
            (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "evidence_is_whole"]
            return (
                int(str(metadata["known_records"].value)),
                int(str(metadata["dagster/row_count"].value)),
                check.passed,
            )

        decided = {"upload": "prices.csv", "by": "ann", "why": "wrong file"}
        dagster.run("retract_upload", config={"ops": {"retract": {"config": decided}}})
        chained = verify(store)  # by whoever decided, and told to the witness at once
        assert (chained.whole, chained.waiting) == (True, 0)
        assert [head.number for head in witness.heads(store.uri(""))] == [1, 2]
        verified()
        known, read, passed = verified()
        assert (read < 3 < known, passed) == (True, True)  # the log of alarms may have grown
        store.replace(VERIFIED, store.read(VERIFIED).replace(b'"head"', b'"head" '))
        assert verified()[1] > 3  # what a writer of the bucket made of the state counts for nothing
        store.replace("receipts/deliveries/00000001.json", b"{}")
        assert not verified()[2]
        (alarm,) = AlarmLog(store).state().standing
        assert alarm.name == "evidence_changed"
        assert "receipts/deliveries/00000001.json" in alarm.what
