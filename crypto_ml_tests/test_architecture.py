"""The rules of the house that a reader relies on, held by the import graph itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "crypto_ml"

MAY_IMPORT = {
    "forecasting": set(),
    "storage": {"forecasting"},
    "ledger": {"forecasting", "storage"},
    "stages": {"forecasting", "storage", "ledger"},
    "audit": {"forecasting", "storage", "ledger", "stages"},
    "defs": {"forecasting", "storage", "ledger", "stages"},
}
"""Room → the rooms it may import. Modules beside the rooms (errors, digest, settings …) are listed in BESIDE."""

BESIDE = {
    "forecasting": {"errors", "digest"},
    "storage": {"errors", "digest"},
    "ledger": {"errors", "digest"},
    "stages": {"errors", "digest", "settings"},
    "audit": {"errors", "digest", "settings"},
    "defs": {"errors", "digest", "settings", "model_out", "times"},
}

FORBIDDEN = {
    "forecasting": {"dagster", "boto3", "botocore", "os.environ"},
    "storage": {"dagster"},
    "ledger": {"dagster"},
    "stages": {"dagster"},
    "audit": {"dagster"},
}

LEARNING = "tensorflow keras sklearn matplotlib"
ROWS = "pandas pyarrow duckdb onnxruntime deltalake"

KERAS_ONLY_IN = {"forecasting/network.py"}


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    allowed = MAY_IMPORT[room] | BESIDE[room] | {room}
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules(room)
        for name in imports_of(path)
        if name.startswith("crypto_ml.") and name.split(".")[1] not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_knows_nothing_of_what_it_must_not(room: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules(room)
        for name in imports_of(path)
        if name.split(".")[0] in FORBIDDEN[room]
    }
    assert not wrong


def test_only_the_network_module_imports_keras_or_tensorflow() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if {"keras", "tensorflow"} & {name.split(".")[0] for name in imports_of(path)}
    }
    assert importers == KERAS_ONLY_IN


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import crypto_ml.definitions; crypto_ml.definitions.defs()",
            "tensorflow keras sklearn matplotlib pandas pyarrow duckdb onnxruntime deltalake",
        ),
        (
            "import crypto_ml.defs.sensors",
            "tensorflow keras sklearn matplotlib pandas pyarrow duckdb onnxruntime deltalake",
        ),
        ("import crypto_ml.cli", f"dagster boto3 {LEARNING} {ROWS}"),
        (
            "import crypto_ml.stages.predictions, crypto_ml.stages.cleaned_features",
            "tensorflow keras sklearn matplotlib",
        ),
        ("import crypto_ml.stages.training", "tensorflow keras sklearn matplotlib"),
    ],
)
def test_an_import_stays_light(statement: str, absent: str) -> None:
    script = f"import sys; {statement}; print([name for name in {absent.split()} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
