"""The settings: what the environment may say, what a record may, and that README and messages name none but them."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from crypto_ml.commands.local_dagster import chosen_settings
from crypto_ml.settings import (
    DECIDING,
    LONGEST_PREFIX,
    OTHER_VARIABLES,
    BadSetting,
    Settings,
    secret_variables,
    unknown_variables,
    variable,
)
from crypto_ml_tests.readme import README, expected

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = {variable(name) for name in Settings.model_fields}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing is set."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_an_environment_that_says_nothing_gives_the_defaults(environment: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment() == Settings()


def test_every_variable_is_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = Settings(
        bucket="elsewhere",
        prefix="team/a",
        recovery="cumulative",
        interval_level="0.95",
        date_order="mdy",
        columns="open=Apertura,high=Massimo",
        learners="boosting,last_close",
        max_upload_bytes=1,
        max_run_seconds=2,
        target="change",
        epochs=3,
        tune_trials=9,
        tune_seconds=10,
        model_out=tmp_path,
        cluster="tls://scheduler:8786",
        cluster_unencrypted=True,
        cluster_from_rows=11,
        environment="preprod",
        image="crypto_ml@sha256:0",
        alarm_urls=SecretStr("json://token@inbox"),
        witnesses=SecretStr("file:///heads.jsonl"),
        retrain_on_alarm=True,
        uploads_queue="https://sqs.eu-central-1.amazonaws.com/1/hints",
        serve_tokens="charts read 0",
        serve_tokens_file=tmp_path,
        serve_unrecorded=True,
        serve_max_bytes=4,
        serve_max_rows=5,
        serve_max_seconds=6,
        serve_max_requests=7,
        serve_max_requests_each=8,
    )
    assert given.model_fields_set == set(Settings.model_fields)
    for name, value in given.model_dump().items():
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        environment.setenv(variable(name), str(plain))
    assert Settings.from_environment() == given


def test_a_variable_that_holds_a_secret_is_shown_to_no_other_shell(environment: pytest.MonkeyPatch) -> None:
    assert secret_variables() == {"CRYPTO_ML_ALARM_URLS", "CRYPTO_ML_WITNESSES"}
    environment.setenv("CRYPTO_ML_ALARM_URLS", "slack://a/b/c")
    environment.setenv("CRYPTO_ML_PREFIX", "team")
    shown = chosen_settings()
    assert shown["CRYPTO_ML_PREFIX"] == "team"
    assert "slack" not in f"{shown} {Settings.from_environment()!r}"


def test_a_secret_may_stand_in_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "alarm_urls"
    environment.setenv("CRYPTO_ML_ALARM_URLS_FILE", str(file))
    with pytest.raises(BadSetting, match=r"CRYPTO_ML_ALARM_URLS_FILE names .*which cannot be read"):
        Settings.from_environment()
    file.write_text("\n")
    assert Settings.from_environment() == Settings()
    file.write_text("json://token@inbox\n")
    assert Settings.from_environment() == Settings(alarm_urls=SecretStr("json://token@inbox"))
    environment.setenv("CRYPTO_ML_ALARM_URLS", "json://other@inbox")
    assert Settings.from_environment() == Settings(alarm_urls=SecretStr("json://other@inbox"))
    assert "CRYPTO_ML_ALARM_URLS_FILE" not in unknown_variables()


def test_an_empty_variable_counts_as_not_given(environment: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        environment.setenv(name, "")
    assert Settings.from_environment() == Settings()


def test_everything_that_is_wrong_is_said_at_once_with_what_may_stand_there(environment: pytest.MonkeyPatch) -> None:
    wrong = {
        "CRYPTO_ML_RECOVERY": ("backwards", "one_step or cumulative"),
        "CRYPTO_ML_INTERVAL_LEVEL": ("0.9", "0.80 or 0.90 or 0.95"),
        "CRYPTO_ML_DATE_ORDER": ("ymd", "dmy or mdy"),
        "CRYPTO_ML_LEARNERS": ("gru,gru", "learners out of gru, boosting, absolute, last_close, each once"),
        "CRYPTO_ML_COLUMNS": ("Apertura", "like open=Apertura,high=Massimo, with names from symbol, date, open"),
        "CRYPTO_ML_TARGET": ("close", "change or gap"),
        "CRYPTO_ML_ENVIRONMENT": ("live", "dev or preprod or prod"),
        "CRYPTO_ML_EPOCHS": ("0", "a whole number above 0"),
        "CRYPTO_ML_MAX_UPLOAD_BYTES": ("2 GB", "a whole number above 0"),
        "CRYPTO_ML_MAX_RUN_SECONDS": ("1.5", "a whole number above 0"),
        "CRYPTO_ML_SERVE_UNRECORDED": ("perhaps", "true or false"),
    }
    for name, (value, _) in wrong.items():
        environment.setenv(name, value)
    with pytest.raises(BadSetting) as raised:
        Settings.from_environment()
    said = str(raised.value)
    assert all(f"{name} is {value!r}; it must be {may}" in said for name, (value, may) in wrong.items())
    assert "pydantic" not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("prefix", "may"),
    [
        ("team/../other", "without `..`"),
        ("..", "without `..`"),
        ("team\n", "printable"),
        ("team\udcff", "printable"),
        ("team\x7f", "printable"),
        ("ü" * (LONGEST_PREFIX // 2 + 1), f"at most {LONGEST_PREFIX} bytes"),
    ],
)
def test_a_prefix_that_keys_could_not_live_under_is_refused(
    environment: pytest.MonkeyPatch, prefix: str, may: str
) -> None:
    environment.setenv("CRYPTO_ML_PREFIX", prefix)
    with pytest.raises(BadSetting, match=f"CRYPTO_ML_PREFIX is .*{may}"):
        Settings.from_environment()


def test_a_long_value_is_not_repeated_in_full(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CRYPTO_ML_EPOCHS", "s" * 100)
    with pytest.raises(BadSetting) as raised:
        Settings.from_environment()
    assert "s" * 41 not in str(raised.value)


def test_a_record_is_read_whatever_stands_in_the_environment_and_whatever_settings_came_and_went_since(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("CRYPTO_ML_RECOVERY", "cumulative")
    environment.setenv("CRYPTO_ML_EPOCHS", "99")
    read = Settings.recorded({"recovery": "one_step", "date_order": None, "gone_since": "x"})
    assert read == Settings(recovery="one_step")
    assert read.epochs == Settings().epochs


def test_a_record_of_what_has_no_meaning_any_more_is_refused() -> None:
    with pytest.raises(BadSetting, match="CRYPTO_ML_RECOVERY"):
        Settings.recorded({"recovery": "backwards"})


def test_what_decides_an_answer_comes_out_of_its_record_again() -> None:
    given = Settings(recovery="cumulative", date_order="dmy", max_upload_bytes=5, environment="preprod")
    assert set(given.deciding()) == set(DECIDING)
    assert Settings.recorded(given.deciding()) == given


def test_a_variable_that_is_no_setting_is_found(environment: pytest.MonkeyPatch) -> None:
    before = unknown_variables()
    environment.setenv("CRYPTO_ML_BUKET", "mine")
    environment.setenv("CRYPTO_ML_DEBUG", "1")
    assert unknown_variables() == sorted([*before, "CRYPTO_ML_BUKET"])


def test_readme_has_the_table_that_make_settings_writes() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme == expected(readme)


def test_no_file_names_a_variable_that_is_no_setting() -> None:
    folders = [ROOT / name for name in ("crypto_ml", "benchmarks", "deploy", "model_out")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md", ".yaml"}]
    files += [ROOT / name for name in ("README.md", "Dockerfile", "Makefile", "dagster.yaml", "pyproject.toml")]
    known = VARIABLES | set(OTHER_VARIABLES) | {f"{name}_FILE" for name in secret_variables()}
    wrong = {
        f"{path.relative_to(ROOT)} names {name}"
        for path in files
        for name in re.findall(r"CRYPTO_ML_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
        if name not in known
    }
    assert not wrong


def test_a_heavy_run_has_the_image_of_its_own_container_and_nobody_else_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTO_ML_TRAINING_IMAGE", "sha256:full")
    assert Settings.from_environment().image is None
    monkeypatch.setenv("DAGSTER_RUN_JOB_NAME", "retrain")
    assert Settings.from_environment().image == "sha256:full"
    monkeypatch.setenv("CRYPTO_ML_IMAGE", "sha256:said")
    assert Settings.from_environment().image == "sha256:said"
