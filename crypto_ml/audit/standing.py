"""Whether stored objects are still what somebody vouched for."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.layout import APPENDS
from crypto_ml.storage.objects import ObjectStore

AT_ONCE: Final = 8


def stands(stage: str, key: str, sha256: str, store: ObjectStore, why: str | None = None) -> None:
    """Return where the object has this sha256. Raises Differs."""
    content = at_stage(stage, lambda: store.read(key))
    if sha256_of(content) != sha256:
        raise Differs(stage, f"{store.uri(key)} is not what it was" if why is None else f"{store.uri(key)}: {why}")


def appends_stand(version: int, store: ObjectStore) -> set[int]:
    """Return the recorded versions where every append up to `version` is still what was written. Raises Differs."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        records = [
            at_stage("market_history", found.result)
            for found in [pool.submit(store.read_json, found.key) for found in store.list(APPENDS)]
        ]
        objects: dict[str, str] = {}
        for record in records:
            objects |= at_stage("market_history", partial(_objects, record, version))
        looked = [pool.submit(stands, "market_history", key, sha256, store) for key, sha256 in objects.items()]
        for one in looked:
            one.result()
    return {record["version"] for record in records}


def _objects(record: Mapping[str, Any], version: int) -> Mapping[str, str]:
    objects: Mapping[str, str] = record["objects"]
    return objects if record["version"] <= version else {}
