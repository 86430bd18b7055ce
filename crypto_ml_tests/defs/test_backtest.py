"""The backtest as its users start it: materialised in Dagster, and typed."""

import json
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.ledger.registry import Registry
from crypto_ml_tests.forecasting.markets import market, relative_model
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.stages.road import upload


def materialised(dagster: InProcessDagster, *, raises: bool = True, **config: Any) -> dg.ExecuteInProcessResult:
    job = dagster.definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        run_config={"ops": {"backtest": {"config": config}}},
        instance=dagster.instance,
        asset_selection=[dg.AssetKey("backtest")],
        raise_on_error=raises,
    )


def test_the_asset_shows_the_scoreboard_and_the_command_prints_it(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {"BTC": 120, "ETH": 120, "NEW": 110}
    dagster.store.replace("uploads/prices.csv", upload(market(lengths)))
    dagster.answer_new()
    registry = Registry(dagster.store)
    for bundle in (relative_model(0.0, label="close"), relative_model(1.0, label="raw")):
        registry.add(bundle)
    versions = [relative_model(0.0, label="close").version, relative_model(1.0, label="raw").version]
    result = materialised(dagster, models=versions, first_origin="2018-02-10", check_leaks=True)
    (event,) = result.asset_materializations_for_node("backtest")
    shown: Any = event.metadata
    table = [dict(record.data) for record in shown["scoreboard"].records]
    assert [row["predicted by"] for row in table] == versions
    assert (table[0]["MASE"], table[0]["against the last close"]) == (1.0, "TIES")
    assert table[1]["coverage, %"] == table[0]["coverage, %"] != ""
    assert "No prediction knows of the future" in str(shown["leaks"].value)
    assert {"by_regime", "by_month", "by_coin", "kept", "mase_1", "picture_2"} <= set(shown)
    assert not materialised(dagster, raises=False, first_origin="soon").success

    monkeypatch.setenv("CRYPTO_ML_BUCKET", dagster.store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", dagster.store.prefix)
    asked = ["backtest", "--model", versions[0], "--first", "2018-03-01", "--every", "20"]
    printed = CliRunner().invoke(main, asked)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith(f"{versions[0]}: TIES. On ")
    assert "  regime turbulent  " in printed.stdout and "  coin NEW  " in printed.stdout
    assert "kept: s3://" in printed.stderr
    document = json.loads(CliRunner().invoke(main, [*asked, "--symbols", "BTC", "--json"]).stdout)
    assert [line["group"] for line in document["scoreboards"][0]["by_coin"]] == ["BTC"]
    assert CliRunner().invoke(main, ["backtest", "--first", "soon"]).exit_code == 2
    refused = CliRunner().invoke(main, ["backtest", "--model", versions[0], "--first", "2030-01-01"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
