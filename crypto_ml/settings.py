"""The settings of the product: each written once, as a field whose variable, words and default everything else reads.

Belongs here: every choice that whoever runs crypto_ml may make, in the types of the rooms that take it. Does not belong
here: how S3 is reached, which is the AWS SDK's own affair. One may hold secrets, and nothing shows it. The rooms below
get values, never these settings. The environment is read when asked for, never at import.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from crypto_ml.errors import Refused
from crypto_ml.forecasting.plan import LearnerName
from crypto_ml.forecasting.schema import DateOrder, IntervalLevel, Recovery, Target
from crypto_ml.forecasting.uploads.layouts import columns_given
from crypto_ml.ledger.layout import Environment
from crypto_ml.packaged import MODEL_OUT

VARIABLES: Final = "CRYPTO_ML_"
TRAINING_IMAGE: Final = "CRYPTO_ML_TRAINING_IMAGE"
MADE_FOR_A_RUN: Final = "DAGSTER_RUN_JOB_NAME"
"""What Dagster's launchers set in each container that they make for one run, and nobody else does."""

OTHER_VARIABLES: Final = (
    "CRYPTO_ML_DEBUG",
    "CRYPTO_ML_DEMO_ID",
    "CRYPTO_ML_SHARED",
    "CRYPTO_ML_DATABASE_URL",
    TRAINING_IMAGE,
)
"""Variables that are no settings: tracebacks of the command, the mark of a demo's processes, data for the tests; what
a dagster.yaml of deploy/ has its database and the image of heavy runs from."""

LONGEST_PREFIX: Final = 512
"""Bytes. S3 takes keys of 1,024, and what is published below the prefix needs room for names of its own."""

LONGEST_SHOWN: Final = 40
IN_A_FILE: Final = "_FILE"
"""Behind the variable of a secret: another one, which names a file with it. An environment is shown to more people."""


class BadSetting(Refused):
    """Settings with values that mean nothing."""


def _printable(given: str) -> str:
    if not given.isprintable():
        raise ValueError("printable characters in UTF-8")
    return given


def _livable(prefix: str) -> str:
    if ".." in prefix.split("/"):
        raise ValueError("a prefix without `..`, which is no way up in S3")
    if len(prefix.encode()) > LONGEST_PREFIX:
        raise ValueError(f"a prefix of at most {LONGEST_PREFIX} bytes")
    return prefix


def _columns(given: str) -> str:
    columns_given(given)
    return given


def _learners(given: str) -> str:
    names = given.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(get_args(LearnerName)):
        raise ValueError(f"learners out of {', '.join(get_args(LearnerName))}, each once, with commas between them")
    return given


Text = Annotated[str, AfterValidator(_printable)]


class Settings(BaseModel):
    """One field for each `CRYPTO_ML_…` variable, in the same words. Constructed, it is what is given and defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    bucket: Text = Field(default="crypto-ml", description="where everything is")
    prefix: Annotated[Text, AfterValidator(_livable)] = Field(
        default="", description="what every key in the bucket begins with; slashes at its ends do not matter"
    )
    recovery: Recovery = Field(
        default="one_step",
        description="`one_step`: from the observed row before; `cumulative`: running sum of changes",
    )
    interval_level: IntervalLevel = Field(
        default="0.90",
        description="how often the next open is to lie within `pred_low` … `pred_high`: `0.80`, `0.90` or `0.95`",
    )
    date_order: DateOrder | None = Field(
        default=None, description="`dmy` or `mdy`, for files whose dates can be read both ways"
    )
    columns: Annotated[Text, AfterValidator(_columns)] = Field(
        default="", description="what files call their columns, where not as asked: `open=Apertura,high=Massimo`"
    )
    max_upload_bytes: PositiveInt = Field(default=20 << 30, description="largest upload after decompression")
    max_run_seconds: PositiveInt = Field(
        default=7200, description="a scoring run that takes longer is ended, and counts against its files"
    )
    target: Target = Field(
        default="relative_gap",
        description="what a new model predicts: `relative_gap` (gap after the last close, in recent gap sizes, with "
        "intervals), or as before 0.6 `gap` (open − last close) or `change` (open − last open)",
    )
    learners: Annotated[Text, AfterValidator(_learners)] = Field(
        default="gru,boosting,absolute",
        description="who learns the `relative_gap`, each a candidate: of `gru`, `boosting`, `absolute`, `last_close`",
    )
    epochs: PositiveInt = Field(default=10, description="epochs of training at most")
    tune_trials: PositiveInt = Field(default=20, description="trials of `crypto-ml tune` for each learner, at most")
    tune_seconds: PositiveInt = Field(default=600, description="seconds of `crypto-ml tune` for each learner, at most")
    model_out: Path = Field(default=MODEL_OUT, description="the bundle that a fresh deployment serves with")
    cluster: Text = Field(
        default="",
        description="the scheduler of a [Dask cluster](docs/cluster.md) for large work, like `tls://HOST:8786`; "
        "without one it is done in this process",
    )
    cluster_unencrypted: bool = Field(
        default=False,
        description="`true`: a cluster on another machine may be reached without TLS; only where nobody else reaches "
        "that network, as who does can run any code on it",
    )
    cluster_from_rows: PositiveInt = Field(
        default=1_000_000, description="rows from which on a delivery or a training set is work for the cluster"
    )
    environment: Environment = Field(
        default="dev",
        description="`dev`, `preprod` or `prod`: whose champion serves; `prod` takes only what `preprod` serves",
    )
    image: Text | None = Field(default=None, description="the image that runs, best by digest; recorded in receipts")
    alarm_urls: SecretStr | None = Field(
        default=None,
        description="where [alarms are sent](docs/monitoring.md#where-alarms-go): URLs as apprise has them, with "
        "spaces between them; nothing of them is logged or recorded. `CRYPTO_ML_ALARM_URLS_FILE` names a file of them",
    )
    witnesses: SecretStr | None = Field(
        default=None,
        description="who is told of the [chain of evidence](docs/evidence.md#witnesses): URLs with commas between "
        "them; nothing of them is logged or recorded",
    )
    retrain_on_alarm: bool = Field(
        default=False, description="`true`: an alarm about the model that stands for two days asks for a retrain, once"
    )
    uploads_queue: Text = Field(
        default="",
        description="the URL of an SQS queue in which S3 tells of new objects: uploads are noticed as fast with far "
        "fewer listings, and without it all the same",
    )
    serve_tokens: Text = Field(
        default="", description="who may ask the service: `NAME RIGHTS SHA256`, several with `;` between them"
    )
    serve_tokens_file: Path | None = Field(default=None, description="a file of such lines")
    serve_unrecorded: bool = Field(
        default=False, description="`true`: the service answers `?record=false`, and keeps nothing of it"
    )
    serve_max_bytes: PositiveInt = Field(default=32 << 20, description="largest body of a request")
    serve_max_rows: PositiveInt = Field(default=100_000, description="most rows in a request")
    serve_max_seconds: PositiveInt = Field(default=30, description="longest time for a request")
    serve_max_requests: PositiveInt = Field(
        default=512, description="requests at once in a worker, waiting ones included"
    )
    serve_max_requests_each: PositiveInt = Field(default=256, description="the same of one token")

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables; an empty one counts as not given. In the container of a heavy run that is told no
        image it is the one of heavy runs. Raises BadSetting with everything that is wrong."""
        given = {name.upper(): value for name, value in os.environ.items() if value}
        if MADE_FOR_A_RUN in given and TRAINING_IMAGE in given:
            # the daemon hands over only what stands in its own environment, where the image is that which scores
            given.setdefault(variable("image"), given[TRAINING_IMAGE])
        for name in secret_variables() - given.keys():
            if (file := given.get(name + IN_A_FILE)) and (value := _content(name + IN_A_FILE, file)):
                given[name] = value
        return cls._checked({name: given[variable(name)] for name in cls.model_fields if variable(name) in given})

    @classmethod
    def recorded(cls, given: Mapping[str, Any]) -> Self:
        """The settings that a record tells of, whatever stands in the environment.

        One that the record lacks, because it is newer, has its default; one that is no setting any more is left out.
        Raises BadSetting.
        """
        return cls._checked({name: value for name, value in given.items() if name in cls.model_fields})

    @property
    def level(self) -> float:
        """The interval level as a number."""
        return float(self.interval_level)

    @property
    def learner_names(self) -> tuple[LearnerName, ...]:
        """The learners, in the order in which they are trained."""
        return tuple(name for name in get_args(LearnerName) if name in self.learners.split(","))

    def deciding(self) -> dict[str, str | int | None]:
        """Those that decide what an upload is answered with, and by whose champion: what a receipt has to record."""
        return {name: getattr(self, name) for name in DECIDING}

    @classmethod
    def _checked(cls, given: Mapping[str, Any]) -> Self:
        try:
            return cls(**given)
        except ValidationError as error:
            wrong = "; ".join(_mismatch(details) for details in error.errors())
        raise BadSetting(wrong)


DECIDING: Final = ("recovery", "interval_level", "date_order", "columns", "max_upload_bytes", "environment")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return VARIABLES + name.upper()


def secret_variables() -> set[str]:
    """The variables whose values are shown to nobody."""
    return {variable(name) for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)}


def _content(name: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{name} names {file!r}, which cannot be read ({error}); it must be a file of text") from error


def unknown_variables() -> list[str]:
    """The variables in the environment that are named as settings are, and are none."""
    files = {name + IN_A_FILE for name in secret_variables()}
    known = {*map(variable, Settings.model_fields), *files, *OTHER_VARIABLES}
    return sorted(name for name in os.environ if name.upper().startswith(VARIABLES) and name.upper() not in known)


def settings_table() -> str:
    """README's table of the settings."""
    return "\n".join(["| variable | default | |", "|---|---|---|", *_rows()])


def _rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = f"{field.default.name}/" if isinstance(field.default, Path) else field.default
        if isinstance(default, bool):
            default = str(default).lower()
        shown = "none" if default in (None, "") else default if isinstance(default, int) else f"`{default}`"
        yield f"| `{variable(name)}` | {shown} | {field.description} |"


def _mismatch(details: ErrorDetails) -> str:
    name = str(details["loc"][0])
    given = str(details["input"])
    shown = repr(given if len(given) <= LONGEST_SHOWN else f"{given[:LONGEST_SHOWN]}…")
    return f"{variable(name)} is {shown}; it must be {_wanted(name, details)}"


def _wanted(name: str, details: ErrorDetails) -> str:
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    annotation = Settings.model_fields[name].annotation
    kinds = [kind for kind in (annotation, *get_args(annotation)) if getattr(kind, "__origin__", None) is Literal]
    if kinds:
        return " or ".join(get_args(kinds[0]))
    if annotation is bool:
        return "true or false"
    return "a whole number above 0" if annotation is int else "text"
