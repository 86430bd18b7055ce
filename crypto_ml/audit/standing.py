"""Whether stored objects are still what somebody vouched for."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from crypto_ml.audit.differences import Differs, at_stage
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.layout import APPENDS, compactions_prefix
from crypto_ml.storage.history import MarketHistory
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.storage.tables.compaction import is_compacted

AT_ONCE: Final = 8
STAGE: Final = "market_history"


def stands(stage: str, key: str, sha256: str, store: ObjectStore, why: str | None = None) -> None:
    """Return where the object has this sha256. Raises Differs."""
    content = at_stage(stage, lambda: store.read(key))
    if sha256_of(content) != sha256:
        raise Differs(stage, f"{store.uri(key)} is not what it was" if why is None else f"{store.uri(key)}: {why}")


def appends_stand(version: int, store: ObjectStore) -> set[int]:
    """Return the recorded versions where everything that was appended to the market history up to `version`, and every
    file that took the place of others up to then, is still what was written. Raises Differs."""
    table = MarketHistory(store).table
    with ThreadPoolExecutor(AT_ONCE) as pool:
        keys = [found.key for prefix in (APPENDS, compactions_prefix(table.key)) for found in store.list(prefix)]
        reading = [pool.submit(store.read_json, key) for key in keys]
        records = [at_stage(STAGE, found.result) for found in reading]
        objects: dict[str, str] = {}
        for record in records:
            objects |= at_stage(STAGE, partial(_objects, record, version))
        for record in records:
            at_stage(STAGE, partial(_took_their_place, record, version, objects))
        looked = [pool.submit(stands, STAGE, key, sha256, store) for key, sha256 in objects.items()]
        for one in looked:
            one.result()
    state = at_stage(STAGE, lambda: table.at(version))
    paths: list[str] = [] if state is None else state.files["path"].to_pylist()
    for path in paths:
        if is_compacted(path) and f"{table.key}/{path}" not in objects:
            raise Differs(STAGE, f"nothing vouches for {store.uri(f'{table.key}/{path}')}")
    return {record["version"] for record in records}


def _objects(record: Mapping[str, Any], version: int) -> Mapping[str, str]:
    objects: Mapping[str, str] = record["objects"]
    return objects if record["version"] <= version else {}


def _took_their_place(record: Mapping[str, Any], version: int, objects: Mapping[str, str]) -> None:
    """Files that others took the place of were read as they had been written."""
    removed: Mapping[str, str] = record.get("removed", {}) if record["version"] <= version else {}
    for key, sha256 in removed.items():
        if objects.get(key, sha256) != sha256:
            raise Differs(STAGE, f"version {record['version']} put together another {key} than was appended")
