"""A model bundle: everything one served model is, as files that are data and never code.

    bundle.json             what the network predicts and sees, and the sha256 of every other file
    network.onnx            what serves            network.keras   the same network, for training on
    scaler.json             the series' statistics, exact to the last bit
    training_manifest.json  metrics.json  MODEL_CARD.md  pictures/*.png     how it came about and how good it is

A bundle's `sha256` is over its contract (target, features, window), network, scaler, slugs and training manifest; its
version is a label and the first twelve digits of that hash. Dates and pictures are not part of it. `manifest_sha256` is
over everything else that bundle.json says, so that no byte of a bundle changes unnoticed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Blocked
from crypto_ml.forecasting.features import is_feature
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import FEATURES, WINDOW, Target

if TYPE_CHECKING:
    from crypto_ml.forecasting.inference import Network

FORMAT: Final = 1
MANIFEST: Final = "bundle.json"
NETWORK: Final = "network.onnx"
SCALER: Final = "scaler.json"
TRAINING_MANIFEST: Final = "training_manifest.json"


_MANIFEST_TYPES: Final[Mapping[str, type]] = {
    **dict.fromkeys(("version", "sha256", "manifest_sha256", "target", "weights_sha256"), str),
    **dict.fromkeys(("format", "window"), int),
    **dict.fromkeys(("files", "slugs", "about"), dict),
    "features": list,
}


class BundleDamaged(Blocked):
    """A bundle whose files are missing, do not match its manifest, or mean something this program does not know."""


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """One model, complete: `files` maps relative names to bytes, `manifest` is bundle.json as data."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def sha256(self) -> str:
        return str(self.manifest["sha256"])

    @property
    def target(self) -> Target:
        target: Target = self.manifest["target"]
        return target

    @property
    def features(self) -> tuple[str, ...]:
        """What the network sees of a row, in order; those that are standardised stand first."""
        return tuple(self.manifest["features"])

    @property
    def slugs(self) -> Mapping[str, str]:
        """The coin behind each symbol the scaler knows, where that was recorded."""
        slugs: Mapping[str, str] = self.manifest["slugs"]
        return slugs

    @cached_property
    def coins(self) -> Mapping[str, str | None]:
        """The symbols that the scaler knows, each with its slug or None."""
        return {symbol: self.slugs.get(symbol) for symbol in self.statistics.symbols}

    @cached_property
    def statistics(self) -> SeriesStatistics:
        return read_statistics(self.files[SCALER])

    @cached_property
    def network(self) -> "Network":
        from crypto_ml.forecasting.inference import Network

        return Network.from_bytes(self.files[NETWORK], features=len(self.features))

    def document(self, name: str) -> dict[str, Any]:
        """One of the bundle's JSON documents; an empty one where the bundle has none."""
        content: dict[str, Any] = json.loads(self.files.get(name, b"{}"))
        return content

    def write(self, directory: Path) -> None:
        """Write the bundle's files below `directory`, which is made where needed."""
        for name, content in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    @classmethod
    def load(cls, directory: Path) -> "ModelBundle":
        """Read a bundle from a directory. Raises BundleDamaged where it is not whole and unchanged."""
        if not (directory / MANIFEST).is_file():
            raise BundleDamaged(f"{directory} is not a model bundle: it has no {MANIFEST}")
        names = (path for path in sorted(directory.rglob("*")) if path.is_file())
        return cls.from_files({path.relative_to(directory).as_posix(): path.read_bytes() for path in names})

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "ModelBundle":
        """A bundle from its files' bytes, each checked against the manifest. Raises BundleDamaged."""
        manifest = _read_manifest(files.get(MANIFEST, b""))
        recorded: Mapping[str, str] = manifest["files"]
        if unknown := list(_unknown(manifest)):
            raise BundleDamaged(
                f"the model bundle {manifest['version']} is made for what this crypto_ml does not know: "
                f"{', '.join(unknown)}; serve it with the release that made it, or a later one"
            )
        changed = [name for name, sha in recorded.items() if name not in files or sha256_of(files[name]) != sha]
        if changed or files[MANIFEST] != _rendered(_sealed(manifest)):
            raise BundleDamaged(
                f"the model bundle {manifest['version']} is not as it was written: {', '.join(changed) or MANIFEST} "
                "differs; restore the bundle or roll back to another"
            )
        bundle = cls(manifest, {MANIFEST: files[MANIFEST], **{name: files[name] for name in recorded}})
        if bundle.features[: len(bundle.statistics.columns)] != bundle.statistics.columns:
            raise BundleDamaged(f"the scaler of the model bundle {bundle.version} has other columns than its network")
        return bundle


def make_bundle(
    *,
    label: str,
    target: Target,
    statistics: SeriesStatistics,
    slugs: Mapping[str, str],
    network_onnx: bytes,
    weights_sha256: str,
    about: Mapping[str, Any],
    documents: Mapping[str, bytes],
) -> ModelBundle:
    """Put a bundle together.

    label: what the version starts with (the last training day, say). about: origin, seed, libraries, dates; shown, not
    hashed. documents: further files by relative name (metrics.json, network.keras, pictures/…).
    """
    files = {NETWORK: network_onnx, SCALER: write_statistics(statistics), **documents}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "target": target,
        "features": list(FEATURES),
        "window": WINDOW,
        "slugs": dict(sorted(slugs.items())),
        "weights_sha256": weights_sha256,
        "files": {name: sha256_of(content) for name, content in sorted(files.items())},
        "about": dict(about),
    }
    manifest["sha256"] = _identity(manifest)
    manifest["version"] = f"{label}-{manifest['sha256'][:12]}"
    return ModelBundle.from_files({MANIFEST: _rendered(_sealed(manifest)), **files})


def _unknown(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a manifest asks for that this release does not have."""
    if manifest["format"] != FORMAT:
        yield f"format {manifest['format']}"
    if manifest["target"] not in get_args(Target):
        yield f"target {manifest['target']}"
    if manifest["window"] != WINDOW:
        yield f"windows of {manifest['window']} rows"
    yield from (f"feature {name}" for name in manifest["features"] if not is_feature(name))


def _read_manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleDamaged(f"the model bundle's {MANIFEST} is missing or unreadable ({error})") from error
    if not isinstance(manifest, dict):
        raise BundleDamaged(f"the model bundle's {MANIFEST} is not what this program writes")
    lacking = [name for name, kind in _MANIFEST_TYPES.items() if not isinstance(manifest.get(name), kind)]
    if lacking:
        raise BundleDamaged(f"the model bundle's {MANIFEST} says nothing usable about {', '.join(lacking)}")
    return manifest


def _sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hashes that follow from what it says."""
    said = {name: value for name, value in manifest.items() if name != "manifest_sha256"} | {
        "sha256": _identity(manifest)
    }
    return {**said, "manifest_sha256": sha256_of(json.dumps(said, sort_keys=True).encode())}


def _rendered(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=2).encode() + b"\n"


def _identity(manifest: Mapping[str, Any]) -> str:
    files = manifest["files"]
    parts = {
        **{name: manifest[name] for name in ("format", "target", "features", "window", "slugs", "weights_sha256")},
        **{name: files.get(name) for name in (NETWORK, SCALER, TRAINING_MANIFEST)},
    }
    return sha256_of(json.dumps(parts, sort_keys=True).encode())


def write_statistics(statistics: SeriesStatistics) -> bytes:
    """Scaler statistics as JSON; Python writes the shortest decimal that reads back as the same float64."""
    return json.dumps(
        {
            "columns": list(statistics.columns),
            "symbols": list(statistics.symbols),
            "mean": statistics.mean.tolist(),
            "scale": statistics.scale.tolist(),
            "gap_scale": statistics.gap_scale.tolist(),
        },
        allow_nan=False,
    ).encode()


def read_statistics(content: bytes) -> SeriesStatistics:
    """The inverse of `write_statistics`. Raises BundleDamaged."""
    try:
        data = json.loads(content)
        columns, symbols = tuple(data["columns"]), tuple(data["symbols"])
        shape = (len(symbols), len(columns))
        mean, scale = (np.asarray(data[name], np.float64).reshape(shape) for name in ("mean", "scale"))
        gap_scale = np.asarray(data["gap_scale"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleDamaged(f"the model bundle's {SCALER} cannot be read ({error!r})") from error
    return SeriesStatistics(symbols, mean, scale, gap_scale, columns)
