"""The stored objects of a real run as one file of the repository, and back into a store.

An archive holds every object of the bucket with its metadata, and `golden.json`: which answers there were, and under
which key each was published.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from crypto_ml.storage.objects import ObjectStore

FOLDER: Final = Path(__file__).parent
CONTENTS: Final = "golden.json"
METADATA: Final = "crypto_ml.metadata."
"""What the names of an object's metadata begin with among the headers of its entry."""


@dataclass(frozen=True)
class Golden:
    """A release's evidence: its answers (id → what became of it), and its champions in order of serving."""

    release: str
    answers: Mapping[str, Mapping[str, Any]]
    champions: tuple[str, ...]


def releases() -> list[str]:
    """The releases whose evidence is kept."""
    return sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))


def archive(release: str) -> Path:
    """The file that holds the evidence of a release."""
    return FOLDER / f"{release}.tar.xz"


def keep(golden: Golden, store: ObjectStore) -> None:
    """Write everything that is in a store into the archive of a release. Raises FileExistsError: it is kept once."""
    if archive(golden.release).exists():
        raise FileExistsError(f"{archive(golden.release)} is there, and the evidence of a release never changes")
    with tarfile.open(archive(golden.release), "w:xz", format=tarfile.PAX_FORMAT) as out:
        said = {"release": golden.release, "answers": golden.answers, "champions": golden.champions}
        _add(out, CONTENTS, json.dumps(said, indent=1).encode(), {})
        for found in store.list():
            stored, content = store.fetch(found.key)
            _add(out, f"objects/{found.key}", content, stored.metadata)


def restore(release: str, store: ObjectStore) -> Golden:
    """Put the objects of a release into an empty store, under their keys and with their metadata.

    What users dropped is left out: written again it would be new versions, and answered anew.
    """
    for name, content, metadata in _entries(release):
        if name != CONTENTS and not name.startswith("objects/uploads/"):
            store.replace(name.removeprefix("objects/"), content, metadata=metadata)
    return contents(release)


def contents(release: str) -> Golden:
    """What is known of a release's evidence."""
    found = next(content for name, content, _ in _entries(release) if name == CONTENTS)
    said = json.loads(found)
    return Golden(said["release"], said["answers"], tuple(said["champions"]))


def _add(out: tarfile.TarFile, name: str, content: bytes, metadata: Mapping[str, str]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.pax_headers = {METADATA + key: value for key, value in metadata.items()}
    out.addfile(entry, io.BytesIO(content))


def _entries(release: str) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    with tarfile.open(archive(release), "r:xz") as kept:
        for entry in kept:
            content = kept.extractfile(entry)
            assert content is not None
            said = {key.removeprefix(METADATA): value for key, value in entry.pax_headers.items() if METADATA in key}
            yield entry.name, content.read(), said
