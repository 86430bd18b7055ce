"""The settings of the product, read from the environment when asked for, never at import.

How S3 is reached is not among them: that is the AWS SDK's own affair.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast, get_args

from crypto_ml.errors import Refused
from crypto_ml.forecasting.schema import DateOrder, Recovery, Target
from crypto_ml.ledger.layout import Environment

DEFAULT_BUCKET: Final = "crypto-ml"


class BadSetting(Refused):
    """An environment variable with a value that means nothing."""


@dataclass(frozen=True)
class Settings:
    """One field for each `CRYPTO_ML_…` variable, in the same words."""

    bucket: str = DEFAULT_BUCKET
    prefix: str = ""
    recovery: Recovery = "one_step"
    date_order: DateOrder | None = None
    max_upload_bytes: int = 20 << 30
    target: Target = "gap"
    epochs: int = 10
    environment: Environment = "dev"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings. Raises BadSetting naming the variable and the values it may have."""
        given = os.environ if environment is None else environment
        return cls(
            bucket=given.get("CRYPTO_ML_BUCKET") or DEFAULT_BUCKET,
            prefix=given.get("CRYPTO_ML_PREFIX", ""),
            recovery=cast(Recovery, _one_of(given, "CRYPTO_ML_RECOVERY", get_args(Recovery), "one_step")),
            date_order=cast(DateOrder | None, _one_of(given, "CRYPTO_ML_DATE_ORDER", get_args(DateOrder), "") or None),
            max_upload_bytes=_positive(given, "CRYPTO_ML_MAX_UPLOAD_BYTES", cls.max_upload_bytes),
            target=cast(Target, _one_of(given, "CRYPTO_ML_TARGET", get_args(Target), "gap")),
            epochs=_positive(given, "CRYPTO_ML_EPOCHS", cls.epochs),
            environment=cast(Environment, _one_of(given, "CRYPTO_ML_ENVIRONMENT", get_args(Environment), "dev")),
        )


def _one_of(given: Mapping[str, str], name: str, values: tuple[str, ...], default: str) -> str:
    value = given.get(name) or default
    if value not in (*values, default):
        raise BadSetting(f"{name} is {value!r}; it may be {' or '.join(values)}")
    return value


def _positive(given: Mapping[str, str], name: str, default: int) -> int:
    value = given.get(name) or str(default)
    if not value.isdecimal() or int(value) < 1:
        raise BadSetting(f"{name} is {value!r}; it must be a whole number above 0")
    return int(value)
