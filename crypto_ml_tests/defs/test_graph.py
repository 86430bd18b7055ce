"""The graph is what other programs and people were promised."""

import json

from crypto_ml_tests.defs.graph import SNAPSHOT, graph

PROMISED_ASSETS = {
    "raw_uploads",
    "cleaned_features",
    "market_history",
    "scaler",
    "trained_model",
    "champion_model",
    "predictions",
    "daily_forecast",
    "backtest",
    "table_upkeep",
    "served_predictions",
    "prediction_performance",
    "model_drift",
    "data_faults",
    "service_health",
    "machine_use",
    "drift_report",
    "refreshed_rule",
    "rescored_month",
    "evidence_chain",
    "evidence_verified",
}


def test_the_graph_is_the_one_in_the_snapshot() -> None:
    assert graph() == json.loads(SNAPSHOT.read_text(encoding="utf-8")), (
        "the graph changed; if that is meant, run `python -m crypto_ml_tests.defs.graph` and commit the snapshot"
    )


def test_assets_jobs_sensors_and_schedules_have_the_promised_names() -> None:
    found = graph()
    assert set(found["assets"]) == PROMISED_ASSETS
    assert set(found["jobs"]) == {
        "score_uploads",
        "retrain",
        "promote_model",
        "daily_forecast",
        "retract_upload",
        "upkeep",
        "monitor",
        "report_on_drift",
        "refresh_rule",
        "rescore",
        "chain_evidence",
        "verify_evidence",
    }
    assert set(found["sensors"]) == {"uploads_sensor", "forecast_sensor", "requests_sensor", "alarm_sensor"}
    assert set(found["schedules"]) == {
        "weekly_retraining",
        "daily_forecast_at_close",
        "daily_monitoring",
        "daily_rule_refresh",
        "weekly_drift_report",
        "upkeep_when_due",
        "evidence_when_new",
        "daily_verification",
    }


def test_every_asset_says_what_it_is_who_owns_it_and_what_it_is_made_of() -> None:
    for name, asset in graph()["assets"].items():
        assert asset["description"], name
        assert asset["group"] != "default", name
        assert asset["kinds"], name
        assert asset["owners"], name
        assert asset["has_code_version"], name


def test_predictions_depend_on_the_pointer_and_never_on_a_candidate() -> None:
    deps = graph()["assets"]["predictions"]["deps"]
    assert "champion_model" in deps
    assert "trained_model" not in deps
