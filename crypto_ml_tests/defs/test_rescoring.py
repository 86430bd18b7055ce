"""Days scored again as users start it: a month materialised in Dagster, and a command."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.ledger.registry import Registry
from crypto_ml_tests.forecasting.markets import market, relative_model
from crypto_ml_tests.in_process_dagster import InProcessDagster
from crypto_ml_tests.stages.road import upload


def test_a_month_is_scored_by_any_model_in_dagster_and_by_the_command_and_stands(
    dagster: InProcessDagster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = market({"BTC": 90, "NEW": 50})
    dagster.store.replace("uploads/prices.csv", upload(rows))
    dagster.answer_new()
    other = relative_model(1.0, label="raw")
    Registry(dagster.store).add(other)

    def materialised(month: str, *, raises: bool = True, **config: str) -> Any:
        config_of_run = {"ops": {"rescored_month": {"config": config}}}
        return dagster.run("rescore", month, config_of_run, raises=raises)

    (event,) = materialised("2018-02-01", model=other.version).asset_materializations_for_node("rescored_month")
    shown = event.metadata
    of_month = rows["date"].dt.strftime("%Y-%m") == "2018-02"
    assert (shown["dagster/row_count"].value, shown["series"].value) == (int(of_month.sum()), 2)
    assert (shown["model_version"].value, shown["shards"].value) == (other.version, 1)
    assert [dict(one.data)["worker"] for one in shown["workers"].records] == ["this process"]
    (again,) = materialised("2018-02-01", model=other.version).asset_materializations_for_node("rescored_month")
    assert "it stands" in again.metadata["computed"].value
    assert not materialised("2018-12-01", raises=False).success

    monkeypatch.setenv("CRYPTO_ML_BUCKET", dagster.store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", dagster.store.prefix)
    out = tmp_path / "february.csv"
    told = CliRunner().invoke(main, ["rescore", "2018-02", "--model", other.version, "-o", str(out)])
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(f"{of_month.sum()} rows of 2 series by {other.version}: ")
    assert "it stood already\nkept: s3://" in told.stderr
    assert pd.read_csv(out)["date"].tolist() == rows[of_month]["date"].dt.strftime("%Y-%m-%d").tolist()
    champion = CliRunner().invoke(main, ["rescore", "2018-02-01..2018-02-28", "--json"])
    document = json.loads(champion.stdout)
    assert document["model"] == Registry(dagster.store).champion().version  # type: ignore[union-attr]
    assert (document["rows"], document["predicted"]) == (int(of_month.sum()), int(of_month.sum()))
    assert CliRunner().invoke(main, ["rescore", "soon"]).exit_code == 2
    nothing = CliRunner().invoke(main, ["rescore", "2030-01"])
    assert (nothing.exit_code, nothing.stderr.count("\n")) == (1, 1)
    monkeypatch.setenv("CRYPTO_ML_CLUSTER", "tcp://10.1.2.3:8786")
    refused = CliRunner().invoke(main, ["rescore", "2018-02"])
    assert (refused.exit_code, "could run any code" in refused.stderr) == (1, True)
