"""A model bundle: everything one served model is, as files that are data and never code.

    bundle.json             what the network predicts and sees, and the sha256 of every other file
    network.onnx            what serves            network.keras   the same network, for training on
    scaler.json             what inputs are standardised by, exact to the last bit
    serving.json            format 2: shrinkage, interval quantiles and the model of the range (`serving_rule`)
    training_manifest.json  metrics.json  MODEL_CARD.md  pictures/*.png     how it came about and how good it is

Format 1 has the targets `change` and `gap`, whose inputs are standardised by the series' own statistics (`scaling`).
Format 2 has the target `relative_gap` (`stationary`), one scaler for all series (`pooled_scaler`) and a serving rule.

A bundle's `sha256` is over its contract (target, features, window), network, scaler, serving rule, slugs and training
manifest; its version is a label and the first twelve digits of that hash. Dates and pictures are not part of it.
`manifest_sha256` is over everything else that bundle.json says, so that no byte of a bundle changes unnoticed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Blocked, Refused
from crypto_ml.forecasting.features import is_feature
from crypto_ml.forecasting.pooled_scaler import BadScaler, PooledScaler, read_scaler, write_scaler
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import FEATURES, LOOK_BACK, STATIONARY, WINDOW, Target
from crypto_ml.forecasting.serving_rule import BadRule, ServingRule, read_rule, write_rule
from crypto_ml.forecasting.stationary import LOOK_BACK as STATIONARY_LOOK_BACK

if TYPE_CHECKING:
    from crypto_ml.forecasting.inference import Network

FORMATS: Final[Mapping[Target, int]] = {"change": 1, "gap": 1, "relative_gap": 2}
"""The format in which a bundle of each target is written and read."""

MANIFEST: Final = "bundle.json"
NETWORK: Final = "network.onnx"
SCALER: Final = "scaler.json"
RULE: Final = "serving.json"
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

    @property
    def pooled(self) -> bool:
        """Whether one scaler is for all series, each measured in what itself did lately (target `relative_gap`)."""
        return self.target == "relative_gap"

    @property
    def look_back(self) -> int:
        """How many of the rows before it a row's prediction may be made from, where not from all of its series."""
        return STATIONARY_LOOK_BACK if self.pooled else LOOK_BACK

    @property
    def symbols(self) -> tuple[str, ...]:
        """The series that it was trained on, sorted."""
        return self.scaler.symbols if self.pooled else self.statistics.symbols

    @cached_property
    def coins(self) -> Mapping[str, str | None]:
        """The symbols that it was trained on, each with its slug or None."""
        return {symbol: self.slugs.get(symbol) for symbol in self.symbols}

    @property
    def scaled_coins(self) -> Mapping[str, str | None] | None:
        """The coins that its scaler is for, as `coins`; None where it is for any series."""
        return None if self.pooled else self.coins

    @cached_property
    def statistics(self) -> SeriesStatistics:
        """Format 1: the statistics of each series. Raises BundleDamaged."""
        return read_statistics(self.files[SCALER])

    @cached_property
    def scaler(self) -> PooledScaler:
        """Format 2: the scaler of all series. Raises BundleDamaged."""
        try:
            return read_scaler(self.files[SCALER])
        except BadScaler as error:
            raise BundleDamaged(f"the model bundle's {SCALER} cannot be read: {error}") from error

    @cached_property
    def rule(self) -> ServingRule | None:
        """Format 2: what it serves with beside its network; None for format 1. Raises BundleDamaged."""
        if not self.pooled:
            return None
        try:
            return read_rule(self.files.get(RULE, b""))
        except BadRule as error:
            raise BundleDamaged(f"the model bundle's {RULE} cannot be read: {error}") from error

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
        columns = bundle.scaler.columns if bundle.pooled else bundle.statistics.columns
        whole = bundle.features == columns if bundle.pooled else bundle.features[: len(columns)] == columns
        if not whole:
            raise BundleDamaged(f"the scaler of the model bundle {bundle.version} has other columns than its network")
        _ = bundle.rule  # what cannot be read is found out now
        return bundle


def make_bundle(
    *,
    label: str,
    target: Target,
    scaler: SeriesStatistics | PooledScaler,
    slugs: Mapping[str, str],
    network_onnx: bytes,
    weights_sha256: str,
    about: Mapping[str, Any],
    documents: Mapping[str, bytes],
    rule: ServingRule | None = None,
) -> ModelBundle:
    """Put a bundle together.

    scaler, rule: a pooled one and a rule for the target `relative_gap`, whose network is the shrunk one (`shrinkage`);
    the statistics of each series, and no rule, for the others. label: what the version starts with (the last training
    day, say). about: origin, seed, libraries, dates; shown, not hashed. documents: further files by relative name
    (metrics.json, network.keras, pictures/…).
    """
    written = write_scaler(scaler) if isinstance(scaler, PooledScaler) else write_statistics(scaler)
    files = {NETWORK: network_onnx, SCALER: written, **documents}
    if rule is not None:
        files[RULE] = write_rule(rule)
    manifest: dict[str, Any] = {
        "format": FORMATS[target],
        "target": target,
        "features": list(STATIONARY if isinstance(scaler, PooledScaler) else FEATURES),
        "window": WINDOW,
        "slugs": dict(sorted(slugs.items())),
        "weights_sha256": weights_sha256,
        "files": {name: sha256_of(content) for name, content in sorted(files.items())},
        "about": dict(about),
    }
    manifest["sha256"] = _identity(manifest)
    manifest["version"] = f"{label}-{manifest['sha256'][:12]}"
    return ModelBundle.from_files({MANIFEST: _rendered(_sealed(manifest)), **files})


def with_rule(
    bundle: ModelBundle, rule: ServingRule, *, label: str, about: Mapping[str, Any], documents: Mapping[str, bytes]
) -> ModelBundle:
    """The same network with another serving rule, as a bundle of its own.

    documents: replace those of the bundle that have these names (the training manifest, so that it says where the rule
    came from; metrics.json; the card). Raises Refused where the bundle's network takes no rule.
    """
    if not bundle.pooled:
        raise Refused(f"the model {bundle.version} predicts a {bundle.target}, which no serving rule applies to")
    from crypto_ml.forecasting.shrinkage import shrunk_network

    kept = {name: content for name, content in bundle.files.items() if name not in (MANIFEST, NETWORK, SCALER, RULE)}
    return make_bundle(
        label=label,
        target=bundle.target,
        scaler=bundle.scaler,
        slugs=bundle.slugs,
        network_onnx=shrunk_network(bundle.files[NETWORK], rule.shrink, rule.cap),
        weights_sha256=str(bundle.manifest["weights_sha256"]),
        about=about,
        documents={**kept, **documents},
        rule=rule,
    )


def _unknown(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a manifest asks for that this release does not have."""
    if manifest["format"] not in FORMATS.values():
        yield f"format {manifest['format']}"
    if manifest["target"] not in get_args(Target):
        yield f"target {manifest['target']}"
    elif manifest["format"] != FORMATS[manifest["target"]]:
        yield f"target {manifest['target']} in format {manifest['format']}"
    if manifest["window"] != WINDOW:
        yield f"windows of {manifest['window']} rows"
    if unknown := [name for name in manifest["features"] if not is_feature(name)]:
        yield from (f"feature {name}" for name in unknown)
    elif manifest["target"] == "relative_gap" and tuple(manifest["features"]) != STATIONARY:
        yield f"relative gaps from {', '.join(manifest['features']) or 'nothing'} in this order"


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
        **({RULE: files[RULE]} if RULE in files else {}),  # bundles of before keep their identity
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
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BundleDamaged(f"the model bundle's {SCALER} cannot be read ({error!r})") from error
    return SeriesStatistics(symbols, mean, scale, gap_scale, columns)
