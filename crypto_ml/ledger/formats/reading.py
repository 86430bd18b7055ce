"""A stored document as one of our records."""

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from crypto_ml.errors import Refused

T = TypeVar("T")


class RecordDamaged(Refused):
    """A stored record that is not as it was written."""


class RecordTooNew(Refused):
    """A stored record in a format that a later release made."""


def read_record(kind: type[T], document: Any, where: str) -> T:
    """A document as a dataclass; fields that are not known here are left out. Raises RecordDamaged."""
    dataclass: Any = kind
    try:
        record: T = adapter(dataclass).validate_python(document)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RecordDamaged(f"{where} is not as it was written (at {field or 'its beginning'}); restore it") from error
    return record


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads a dataclass, and knows its JSON Schema."""
    return TypeAdapter(kind)


def too_new(what: str, where: str, found: Any, known: int) -> RecordTooNew:
    """The refusal of a record of a later format."""
    return RecordTooNew(
        f"{where} is a {what} of format {found}, and this crypto_ml knows {known} at most; read it with a later release"
    )
