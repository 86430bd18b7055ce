"""Whether the notices beside predictions say what was retracted, and nothing else: whoever reads only what is published
learns it there.

A retraction is its record, which the chain has; the notice repeats it and is replaced with it, so that nothing has its
hash.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from crypto_ml.errors import Refused
from crypto_ml.ledger.formats.retraction_v1 import Retraction, notice
from crypto_ml.ledger.layout import PREDICTIONS, answer_keys, retraction_key
from crypto_ml.ledger.reports import read_report
from crypto_ml.ledger.retractions import read_retraction, retracted_ids
from crypto_ml.storage.objects import ObjectStore, StoredObject

ENDINGS: Final = ("_retracted.json", ".retracted.json", "~retracted.json")


def wrong_notices(there: Mapping[str, StoredObject], over: datetime, store: ObjectStore) -> Iterator[tuple[str, str]]:
    """Keys of notices that are not as a retraction says, and in what. there: what is published, by its keys. over: of
    what was decided before, the notice has been put. Raises what the store raises."""
    may_stand: dict[str, list[dict[str, Any]]] = {}
    retracted: list[tuple[str, Retraction]] = []
    for upload in retracted_ids(store):
        with suppress(Refused):  # one that is damaged says nothing, and that it is so is said elsewhere
            one = read_retraction(upload, store)
            retracted.append((answer_keys(one.upload.key, store.room).retracted, one))
    for key, one in retracted:
        may_stand.setdefault(key, []).append(_as_stored(notice(one)))
    said = {key: _read(key, store) for key in there if key.startswith(PREDICTIONS) and key.endswith(ENDINGS)}
    for key, found in said.items():
        if found not in may_stand.get(key, ()):
            yield key, "it says what no retraction says"
    for key, one in retracted:
        if datetime.fromisoformat(one.at) < over and said.get(key) != _as_stored(notice(one)):
            report = None
            with suppress(Refused):
                report = read_report(one.upload.key, store)
            if report and report.predictions is not None and report.delivery == one.delivery:
                yield key, f"it does not say what {retraction_key(one.upload_id)} says of the predictions beside it"


def _as_stored(document: dict[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(document))
    return stored


def _read(key: str, store: ObjectStore) -> Any:
    with suppress(Refused):
        return store.read_json(key)
    return None
