"""The rules of the house that no linter of imports can say; which room may import which is said in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "crypto_ml"

LEARNING = "tensorflow keras sklearn matplotlib"
ROWS = "pandas pyarrow duckdb onnxruntime deltalake"

READS_THE_ENVIRONMENT = {
    "cli.py",
    "commands/companions.py",
    "commands/demo.py",
    "commands/doctor.py",
    "commands/local_dagster.py",
    "commands/score.py",
    "defs/warm/launcher.py",
    "defs/warm/nursery.py",
    "defs/warm/worker.py",
    "forecasting/network.py",  # it tells TensorFlow how to behave, before it is imported
    "service/running.py",
    "stages/experiments.py",  # MLflow's own variables
    "settings.py",
    "storage/embedded.py",
}


def source(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names_of(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def test_the_environment_is_read_by_settings_and_by_what_starts_processes() -> None:
    readers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(source(path))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"})
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {"environ", "getenv"} & names_of(node))
    }
    assert readers == READS_THE_ENVIRONMENT


def test_what_dagster_keeps_to_itself_is_imported_in_one_module_and_what_a_launcher_needs_in_another() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(source(path))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("dagster._", "dagster_shared"))
    }
    assert importers == {"defs/dagster_internals.py", "defs/warm/dagster_launching.py"}


def test_no_module_names_a_file_that_only_linux_has() -> None:
    """What of a module macOS does not have, the type checker says (`make types`)."""
    naming = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(source(path))
        if isinstance(node, ast.Constant) and str(node.value).startswith(("/proc", "/sys/", "/dev/shm"))  # noqa: S108
    }
    # processes that are ready are for Linux alone, elsewhere nothing asks this module; and where no file says how much
    # memory a container is given, the machine's counts
    assert naming == {"defs/warm/identity.py", "defs/machine.py"}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if not ast.get_docstring(source(path))
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
        ("import crypto_ml.cli", f"dagster boto3 pydantic bokeh tornado {LEARNING} {ROWS}"),
        ("import crypto_ml.deployment", f"dagster boto3 {LEARNING} {ROWS}"),
        (
            "import crypto_ml.stages.predictions, crypto_ml.stages.cleaned_features",
            "tensorflow keras sklearn matplotlib",
        ),
        ("import crypto_ml.stages.trained_model", "tensorflow keras sklearn matplotlib"),
    ],
)
def test_an_import_stays_light(statement: str, absent: str) -> None:
    script = f"import sys; {statement}; print([name for name in {absent.split()} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
