"""Objects that are written together, as one: a store in memory over a bucket, which leaves it as a single object.

Whoever writes through it sees an ordinary store. What it wrote is in the bucket once the pack is, all of it or nothing;
whoever opens the pack reads each object under the key that it was written to.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.storage.objects import ObjectStore, StoredObject

FIRST: Final = (1980, 1, 1, 0, 0, 0)
"""The time that every entry has, so that equal contents are equal bytes; there is none earlier in a zip."""

QUICKLY: Final = 1
"""The level of compression: most of what there is to gain, in a tenth of the time."""

WHENEVER: Final = datetime(1980, 1, 1, tzinfo=UTC)
MOST_BYTES: Final = 2 << 30
SEALED: Final = b"crypto_ml pack, format 1, sha256 "
"""What stands at the end, as the comment of the zip, and behind it the sha256 of every byte before: the checksums of a
zip are of its entries alone, and would not tell of a changed byte between them."""


class PackDamaged(Refused):
    """A pack that is not as it was written."""


class PackedStore(ObjectStore):
    """A bucket, and in front of it the objects of one pack, which are all whose keys have the word `own` in them.

    Of such keys the bucket is asked nothing, and everything that is written stays in memory until `rendered` is stored
    by whoever made this. known: objects of the bucket that are written once, with their bytes, which are not asked for
    again. key: of the pack in the bucket, where it stands there. Not for two threads that write one key.
    """

    waits = False

    def __init__(
        self,
        base: ObjectStore,
        own: str,
        entries: Mapping[str, bytes] | None = None,
        *,
        known: Mapping[str, bytes] | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(base.client, base.bucket, base.prefix, base.quick)
        self._own = own
        self._key = key
        self._known = known or {}
        self._entries = dict(entries or {})
        self._described: dict[str, Mapping[str, str]] = {}

    @classmethod
    def opened(cls, base: ObjectStore, own: str, key: str) -> "PackedStore":
        """The pack under a key of the bucket. Raises ObjectMissing, PackDamaged."""
        return cls(base, own, unpacked(base.read(key), base.uri(key)), key=key)

    def uri(self, key: str) -> str:
        """Where it is, for people: no object of the bucket has the name of what is in the pack."""
        return f"{key} in {super().uri(self._key)}" if self._key and self._is_own(key) else super().uri(key)

    def rendered(self) -> bytes:
        """The pack as it is stored: a zip, so that anybody can look into it, and sealed (see SEALED)."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as pack:
            for key, content in sorted(self._entries.items()):
                entry = zipfile.ZipInfo(key, FIRST)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                pack.writestr(entry, content, compresslevel=QUICKLY)
            pack.comment = SEALED + sha256_of(b"").encode()
        sealed = out.getvalue()[: -len(sha256_of(b""))]
        return sealed + sha256_of(sealed).encode()

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[StoredObject]:
        """As ever; where the prefix or the beginning names the pack, of the pack alone."""
        if not self._is_own(start_after or prefix):
            yield from super().list(prefix, start_after)
            return
        for key in sorted(self._entries, key=str.encode):
            if key.startswith(prefix) and (start_after is None or key.encode() > start_after.encode()):
                yield self._stored(key)

    def fetch(self, key: str) -> tuple[StoredObject, bytes]:
        """As ever."""
        if key in self._known:
            return _as_stored(key, self._known[key]), self._known[key]
        if not self._is_own(key):
            return super().fetch(key)
        return self._stored(key), self._entries[key]

    def head(self, key: str) -> StoredObject | None:
        """As ever."""
        if not self._is_own(key):
            return super().head(key)
        return self._stored(key) if key in self._entries else None

    def read_part(self, key: str, begin: int, size: int) -> bytes:
        """As ever."""
        return self.read(key)[begin : begin + size] if self._is_own(key) else super().read_part(key, begin, size)

    def chunks(self, obj: StoredObject, size: int = 1024 * 1024) -> Iterator[bytes]:
        """As ever."""
        if not self._is_own(obj.key):
            yield from super().chunks(obj, size)
            return
        content = self.read(obj.key)
        yield from (content[begin : begin + size] for begin in range(0, len(content), size))

    def download_whole(self, key: str, path: Path) -> None:
        """As ever."""
        if self._is_own(key):
            path.write_bytes(self.read(key))
        else:
            super().download_whole(key, path)

    def create_json(self, key: str, document: Any) -> str:
        """As ever, but on one line: laid out for people, a document takes ten times as long."""
        said = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return self.create(key, said.encode() + b"\n", content_type="application/json")

    def _send(
        self,
        key: str,
        source: Path | bytes,
        *,
        create_only: bool,
        if_match: str | None,
        described: Mapping[str, Any],
        sent: Callable[[int], None] = lambda _: None,
    ) -> str:
        body = source.read_bytes() if isinstance(source, Path) else source
        condition = {"IfNoneMatch": "*"} if create_only else {"IfMatch": f'"{if_match}"'} if if_match else {}
        lost = self._exists(key) if create_only else self._changed(key, if_match)
        etag = self._put(key, body, condition, lost, described)
        sent(len(body))
        return etag

    def _put(
        self, key: str, body: bytes, condition: dict[str, Any], lost: Refused, described: Mapping[str, Any]
    ) -> str:
        if not self._is_own(key):
            raise ValueError(f"{key} is not of the pack {self._own}, and nothing else is written through it")
        there = self._entries.get(key)
        if "IfNoneMatch" in condition and there is not None:
            raise lost
        if "IfMatch" in condition and (there is None or condition["IfMatch"] != f'"{sha256_of(there)}"'):
            raise lost
        self._entries[key] = body
        self._described[key] = described.get("Metadata", {})
        return sha256_of(body)

    def _is_own(self, key: str) -> bool:
        return self._own in key

    def _stored(self, key: str) -> StoredObject:
        if key not in self._entries:
            raise self._missing(key)
        return _as_stored(key, self._entries[key], self._described.get(key, {}))


def unpacked(content: bytes, where: str) -> dict[str, bytes]:
    """The objects of a pack by their keys. Raises PackDamaged, which says so too where a later release wrote it."""
    sealed, seal = content[: -len(sha256_of(b""))], content[-len(sha256_of(b"")) :]
    if not sealed.endswith(SEALED) or sha256_of(sealed).encode() != seal:
        raise PackDamaged(f"{where} is not as it was written; restore it, or read it with the release that wrote it")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as pack:
            if sum(entry.file_size for entry in pack.infolist()) > MOST_BYTES:
                raise PackDamaged(f"{where} expands to more than was ever packed; restore it")
            return {entry.filename: pack.read(entry) for entry in pack.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise PackDamaged(f"{where} is not as it was written; restore it") from error


def _as_stored(key: str, content: bytes, metadata: Mapping[str, str] | None = None) -> StoredObject:
    return StoredObject(key, len(content), sha256_of(content), WHENEVER, metadata=metadata or {})
