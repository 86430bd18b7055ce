"""Editing a module changes the code version of exactly the stages that use it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import crypto_ml

MODELS = {"scaler", "trained_model"}
STAGES = ("raw_uploads", "cleaned_features", "market_history", "predictions", "daily_forecast", *sorted(MODELS))
SCRIPT = f"""
import json
from crypto_ml.ledger.code import code_version
modules = {{name: f"crypto_ml.stages.{{name}}" for name in {STAGES}}} | {{"verify": "crypto_ml.audit.verify"}}
print(json.dumps({{name: code_version(module) for name, module in modules.items()}}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that may be edited."""
    source = Path(crypto_ml.__file__).parent
    return Path(
        shutil.copytree(source, tmp_path_factory.mktemp("sources") / "crypto_ml", ignore=lambda *_: {"__pycache__"})
    )


def versions(package: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT],
        cwd=package.parent,
        env={"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def edited(module: str, package: Path) -> dict[str, str]:
    """The versions once a module was edited, which is undone."""
    path = package / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(source + "\n# edited\n", encoding="utf-8")
    try:
        return versions(package)
    finally:
        path.write_text(source, encoding="utf-8")


@pytest.fixture(scope="module")
def before(package: Path) -> dict[str, str]:
    return versions(package)


def test_each_stage_has_a_version_of_its_own(before: dict[str, str]) -> None:
    assert set(before) == {*STAGES, "verify"}
    assert len(set(before.values())) == len(STAGES) + 1
    assert {len(version) for version in before.values()} == {12}


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("stages/raw_uploads", {"raw_uploads", "cleaned_features", "market_history", "predictions"}),
        ("stages/scaler", MODELS),
        ("stages/earlier_rows", {"predictions", "daily_forecast"}),
        ("stages/next_opens", {"daily_forecast"}),
        ("forecasting/uploads/dates", {"cleaned_features", "market_history", "predictions"}),
        ("forecasting/answers", {"predictions", "daily_forecast", "trained_model"}),
        ("forecasting/current", set(STAGES) - {"raw_uploads"}),
        ("forecasting/scoring", {"predictions", "daily_forecast", "trained_model"}),
        ("forecasting/scaler_estimator", MODELS),
        ("forecasting/handover", set()),
        ("cli", set()),
    ],
)
def test_an_edit_changes_the_version_of_the_stages_that_use_the_module_and_of_no_other(
    module: str, stages: set[str], package: Path, before: dict[str, str]
) -> None:
    after = edited(module, package)
    assert {name for name in STAGES if after[name] != before[name]} == stages


def test_an_edit_of_a_rule_of_verification_changes_its_version_alone(package: Path, before: dict[str, str]) -> None:
    after = edited("audit/walk", package)
    assert {name for name in before if after[name] != before[name]} == {"verify"}
