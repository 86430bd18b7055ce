"""A store in memory behaves as the bucket does, and leaves it as one object in which no byte changes unseen."""

import io
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_ml.errors import Refused
from crypto_ml.storage.objects import ORDER, ObjectStore
from crypto_ml.storage.packed import PackDamaged, PackedStore, unpacked

OWN = "179500000000000042"
KEYS = st.sampled_from([f"raw/{OWN}/a", f"raw/{OWN}/b", f"raw/{OWN}-c", f"receipts/{OWN}.json", f"ä/{OWN}/\n"])
BODIES = st.sampled_from([b"", b"one", b"another", bytes(range(256)) * 40])
Step = tuple[str, Callable[[ObjectStore, Path], Any]]


def reads(key: str, begin: int) -> list[Step]:
    return [
        ("read", lambda store, _: store.read(key)),
        ("head", lambda store, _: (found := store.head(key)) and (found.key, found.size, found.metadata.get("said"))),
        ("order", lambda store, _: (found := store.head(key)) and found.metadata.get(ORDER)),
        ("fetch", lambda store, _: (store.fetch(key)[0].size, store.fetch(key)[1])),
        ("part", lambda store, _: store.read_part(key, min(begin, store.fetch(key)[0].size - 1), 3)),
        ("pinned", lambda store, _: store.read_pinned(store.fetch(key)[0])),
        ("download", lambda store, path: (store.download_whole(key, path), path.read_bytes())[1]),
        ("list", lambda store, _: [(found.key, found.size) for found in store.list(f"raw/{OWN}")]),
        ("after", lambda store, _: [found.key for found in store.list("raw/", start_after=f"raw/{OWN}-")]),
    ]


def writes(key: str, body: bytes, order: str) -> list[Step]:
    def upload(store: ObjectStore, path: Path, **how: Any) -> None:
        path.write_bytes(body)
        store.upload_file(path, key, **how)

    def document(store: ObjectStore, _: Path) -> Any:
        """A document may be written in another way here, and says the same."""
        store.create_json(key, {"order": order})
        said = store.read_json(key)
        store.replace(key, body)
        return said

    return [
        ("create", lambda store, _: store.create(key, body, content_type="text/csv") and None),
        ("same", lambda store, _: store.create_or_same(key, body)),
        ("replace", lambda store, _: store.replace(key, body, metadata={"said": order}) and None),
        ("match", lambda store, _: store.replace(key, body, if_match=store.fetch(key)[0].etag) and None),
        ("other", lambda store, _: store.replace(key, body, if_match="0" * 32) and None),
        ("json", document),
        ("newest", lambda store, _: store.put_newest(key, body, order, content_type="text/csv")),
        ("file", lambda store, path: upload(store, path, create_only=True)),
        ("over", lambda store, path: upload(store, path, create_only=False)),
    ]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    key, begin = draw(KEYS), draw(st.integers(0, 300))
    some = reads(key, begin) if draw(st.booleans()) else writes(key, draw(BODIES), draw(st.sampled_from("123")))
    return draw(st.sampled_from(some))


def done(step: Step, store: ObjectStore, path: Path) -> Any:
    """What comes of a step: what it returns, or the name and kind of what it raises."""
    try:
        return step[1](store, path)
    except Refused as error:
        return type(error).__name__, str(error).partition("ETag")[0].replace(store.uri(""), "")
    finally:
        path.unlink(missing_ok=True)


@given(some=st.lists(steps(), min_size=1, max_size=25))
@settings(max_examples=20)
def test_whatever_is_written_and_read_comes_out_as_from_the_bucket(
    store: ObjectStore, tmp_path: Path, some: list[Step]
) -> None:
    real = store.below(f"{store.prefix}{uuid.uuid4().hex}")
    packed = PackedStore(real.below(f"{real.prefix}base"), OWN)
    for step in some:
        assert done(step, packed, tmp_path / "packed") == done(step, real, tmp_path / "real"), step[0]
    again = unpacked(packed.rendered(), "here")
    assert again == {found.key: real.read(found.key) for found in real.list()}
    assert list(packed.below(f"{real.prefix}base").list()) == []


def test_a_pack_is_a_zip_whose_entries_are_read_under_their_keys_beside_the_bucket(store: ObjectStore) -> None:
    packed = PackedStore(store, OWN, known={"models/x": b"known"})
    packed.create(f"raw/{OWN}", b"here", metadata={"said": "so"})
    store.create("other", b"there")
    with pytest.raises(ValueError, match="nothing else is written through it"):
        packed.create("other-key", b"")
    assert (packed.read("models/x"), packed.read("other")) == (b"known", b"there")
    assert packed.head(f"raw/{OWN}-x") is None
    store.create("packs/it.zip", packed.rendered())
    opened = PackedStore.opened(store, OWN, "packs/it.zip")
    assert (opened.read(f"raw/{OWN}"), opened.read("other")) == (b"here", b"there")
    assert opened.uri(f"raw/{OWN}") == f"raw/{OWN} in {store.uri('packs/it.zip')}"
    assert opened.uri("other") == store.uri("other")
    with zipfile.ZipFile(io.BytesIO(store.read("packs/it.zip"))) as anybody:
        assert anybody.namelist() == [f"raw/{OWN}"]
    assert opened.rendered() == packed.rendered()


def test_any_changed_lost_or_added_byte_of_a_pack_is_seen(store: ObjectStore) -> None:
    packed = PackedStore(store, OWN)
    packed.create(f"raw/{OWN}", b"some content " * 9)
    content = packed.rendered()
    changed = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    cut = [content[:at] for at in range(0, len(content), 7)]
    for damaged in [*changed, *cut, content + b" ", b"x" + content, b"", b"PK"]:
        with pytest.raises(PackDamaged, match="s3://b/k is not as it was written; restore it"):
            unpacked(damaged, "s3://b/k")
