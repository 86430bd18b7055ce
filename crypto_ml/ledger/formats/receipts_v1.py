"""The receipts of a delivery of several uploads as one object, since 0.4: each as it would stand by itself.

`receipts` has them by the ids of their answers; the seal is the sha256 of everything else, so that no byte of the
object changes unseen. The objects of a delivery are numbered, and of two receipts of one name the first stands.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from crypto_ml.digest import sha256_of

FORMAT: Final = 1
SEAL: Final = "seal"


def rendered(delivery: str, receipts: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The object as it is stored. receipts: id of the answer → its receipt's document."""
    unsealed = {"delivery": delivery, "format": FORMAT, "receipts": receipts}
    said = json.dumps(unsealed, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f'{said[:-1]}, "{SEAL}": "{sha256_of(said.encode())}"}}\n'.encode()


def is_whole(stored: bytes, delivery: str) -> bool:
    """Whether an object is as it was written, and that of a delivery."""
    said, _, seal = stored.decode(errors="replace").rpartition(f', "{SEAL}": ')
    if seal != f'"{sha256_of((said + "}").encode())}"}}\n':
        return False
    return bool(json.loads(stored)["delivery"] == delivery)
