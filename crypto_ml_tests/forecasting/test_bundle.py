"""A bundle is the same wherever it is read, or it is refused."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crypto_ml.forecasting.bundle import (
    MANIFEST,
    SCALER,
    TRAINING_MANIFEST,
    BundleDamaged,
    ModelBundle,
    make_bundle,
    read_statistics,
    write_statistics,
)
from crypto_ml.forecasting.scaled_by import is_other_coin
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import FEATURES, WINDOW
from crypto_ml_tests.forecasting.markets import model, statistics
from crypto_ml_tests.forecasting.networks import random_windows

DOCUMENTS = {TRAINING_MANIFEST: b'{"rows": 3}\n', "MODEL_CARD.md": b"# Card\n", "pictures/loss.png": b"\x89PNG\0\xff"}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def made(**changed: Any) -> ModelBundle:
    """A small bundle; its network is no network, which loading does not look at."""
    parts: dict[str, Any] = {
        "label": "2018-03-25",
        "target": "gap",
        "scaler": statistics(),
        "slugs": {"LTC": "litecoin", "BTC": "bitcoin"},
        "network_onnx": bytes(range(256)),
        "weights_sha256": "ab" * 32,
        "about": {"created_at": "2018-03-26T00:00:00+00:00", "rate": 0.1},
        "documents": DOCUMENTS,
    }
    return make_bundle(**parts | changed)


@cache
def one() -> ModelBundle:
    return made()


def test_a_bundle_comes_back_from_a_directory_as_it_was(tmp_path: Path) -> None:
    one().write(tmp_path)
    (tmp_path / "README.md").write_text("beside it")
    back = ModelBundle.load(tmp_path)
    assert dict(back.files) == dict(one().files)
    assert (back.version, back.sha256, back.target) == (one().version, one().sha256, "gap")
    assert back.slugs == {"BTC": "bitcoin", "LTC": "litecoin"}
    assert np.array_equal(back.statistics.mean, statistics().mean)
    assert back.document(TRAINING_MANIFEST) == {"rows": 3}
    assert back.document("metrics.json") == {}


def test_the_network_of_a_loaded_bundle_computes_the_same_bits(tmp_path: Path) -> None:
    model("gap").write(tmp_path)
    windows = random_windows(20)
    expected = model("gap").network.predict(windows)
    assert np.array_equal(ModelBundle.load(tmp_path).network.predict(windows), expected)


@given(name=st.sampled_from(sorted(made().files)), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed(name: str, where: float, bit: int) -> None:
    content = bytearray(one().files[name])
    content[int(where * len(content))] ^= 1 << bit
    with pytest.raises(BundleDamaged):
        ModelBundle.from_files({**one().files, name: bytes(content)})


@given(name=st.sampled_from(sorted(made().files)), cut=st.floats(0, 1, exclude_max=True), added=st.binary(max_size=3))
def test_a_file_cut_short_or_grown_is_noticed(name: str, cut: float, added: bytes) -> None:
    content = one().files[name]
    changed = content[: int(cut * len(content))] + added
    assume(changed != content)
    with pytest.raises(BundleDamaged):
        ModelBundle.from_files({**one().files, name: changed})


@pytest.mark.parametrize("name", sorted(made().files))
def test_a_missing_file_is_noticed(name: str) -> None:
    with pytest.raises(BundleDamaged, match=name):
        ModelBundle.from_files({key: content for key, content in one().files.items() if key != name})


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b"\xff", b'{"files": []}', b"[" * 2000])
def test_what_is_no_manifest_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(BundleDamaged, match=MANIFEST):
        ModelBundle.from_files({**one().files, MANIFEST: content})


def test_a_directory_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleDamaged, match="is not a model bundle"):
        ModelBundle.load(tmp_path)


@pytest.mark.parametrize(
    "changed", [{"format": 2}, {"target": "volume"}, {"window": WINDOW + 1}, {"features": [*FEATURES, "volume"]}]
)
def test_a_bundle_for_another_program_says_so(changed: Mapping[str, Any]) -> None:
    manifest = json.loads(one().files[MANIFEST]) | changed
    with pytest.raises(BundleDamaged, match="serve it with the release that made it"):
        ModelBundle.from_files({**one().files, MANIFEST: json.dumps(manifest).encode()})


def test_the_version_is_a_label_and_the_beginning_of_the_hash() -> None:
    assert one().version == f"2018-03-25-{one().sha256[:12]}"
    assert made().files == one().files


def test_dates_and_pictures_are_no_part_of_the_version() -> None:
    other = made(about={"created_at": "later"}, documents={**DOCUMENTS, "pictures/loss.png": b"other"})
    assert other.version == one().version
    assert other.files[MANIFEST] != one().files[MANIFEST]


@pytest.mark.parametrize(
    "changed",
    [
        {"target": "change"},
        {"scaler": statistics(seed=8)},
        {"slugs": {}},
        {"network_onnx": b"other"},
        {"weights_sha256": "cd" * 32},
        {"documents": {**DOCUMENTS, TRAINING_MANIFEST: b'{"rows": 4}\n'}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_decides_a_number_is_part_of_the_version(changed: Mapping[str, Any]) -> None:
    assert made(**changed).sha256 != one().sha256


@given(data=st.data(), symbols=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=4))
def test_statistics_come_back_to_the_last_bit(data: st.DataObject, symbols: list[str]) -> None:
    k = len(symbols)

    def drawn(values: st.SearchStrategy[float], *shape: int) -> Any:
        size = int(np.prod(shape))
        return np.array(data.draw(st.lists(values, min_size=size, max_size=size)), np.float64).reshape(shape)

    before = SeriesStatistics(tuple(sorted(symbols)), drawn(FINITE, k, 12), drawn(POSITIVE, k, 12), drawn(POSITIVE, k))
    after = read_statistics(write_statistics(before))
    assert after.symbols == before.symbols
    for name in ("mean", "scale", "gap_scale"):
        assert getattr(after, name).tobytes() == getattr(before, name).tobytes()


@pytest.mark.parametrize("changed", [{"columns": []}, {"mean": [[1.0]]}, {"symbols": None}, {"gap_scale": ["x"] * 3}])
def test_statistics_of_another_shape_are_refused(changed: Mapping[str, Any]) -> None:
    content = json.dumps(json.loads(write_statistics(statistics())) | changed).encode()
    with pytest.raises(BundleDamaged, match=SCALER):
        read_statistics(content)


def test_a_slug_tells_another_coin_of_the_same_symbol() -> None:
    bundle = one()
    said = {slug: is_other_coin(bundle.slugs.get("BTC"), slug) for slug in ("batcoin", "bitcoin", None)}
    assert said == {"batcoin": True, "bitcoin": False, None: False}
    assert not is_other_coin(bundle.slugs.get("NEW"), "anything")
