"""A handed-over network and its scalers, turned into a model bundle like any other.

The bundle is served by the same `scoring` as a bundle trained here; only its statistics and weights come from outside.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from crypto_ml.digest import sha256_of
from crypto_ml.errors import Refused
from crypto_ml.extras import require_training
from crypto_ml.forecasting.bundle import TRAINING_MANIFEST, ModelBundle, make_bundle
from crypto_ml.forecasting.evaluation import onnx_verdict
from crypto_ml.forecasting.legacy_network import read_handed_over, read_network
from crypto_ml.forecasting.legacy_scaler import read_scaler
from crypto_ml.forecasting.network import (
    ONNX_TOLERANCE,
    agreement,
    export_onnx,
    save_keras,
    weights_sha256,
    with_weights,
)
from crypto_ml.forecasting.schema import FEATURES, WINDOW

PROBES: Final = 4096
"""Random windows on which the network and its export must agree."""


class ExportDiffers(Refused):
    """An exported network that does not compute what the handed-over one does."""


def bundle_from_handover(network: Path, scaler: Path, slugs: Path | None = None) -> ModelBundle:
    """The bundle of a Keras 2 `.h5` and a pickled dict of scalers; `slugs` is CSV with the columns symbol and slug.

    Everything is read as data (see `legacy_network` and `legacy_scaler`). Raises Refused, NotInstalled.
    """
    require_training("Taking in a handed-over network")
    network_bytes, scaler_bytes = read_handed_over(network), read_handed_over(scaler)
    read, learnt = read_network(network_bytes), read_scaler(scaler_bytes)
    coins = read_slugs(read_handed_over(slugs), learnt.statistics.symbols) if slugs else {}
    model = with_weights(read.weights)
    with TemporaryDirectory(prefix="crypto_ml-handover-") as name:
        onnx, keras = Path(name) / "network.onnx", Path(name) / "network.keras"
        export_onnx(model, onnx)
        save_keras(model, keras)
        probes = np.random.default_rng(0).normal(size=(PROBES, WINDOW, len(FEATURES))).astype(np.float32)
        verdict = onnx_verdict(agreement(model, onnx, probes), ONNX_TOLERANCE)
        if not verdict.passed:
            raise ExportDiffers(f"the handed-over network cannot be served: {verdict.explanation}")
        exported, trainable = onnx.read_bytes(), keras.read_bytes()
    manifest = {
        "source": "handed over",
        "network": {"sha256": sha256_of(network_bytes), "keras": read.keras_version, "backend": read.backend},
        "scaler": {"sha256": sha256_of(scaler_bytes), "scikit-learn": list(learnt.versions)},
        "symbols": len(learnt.statistics.symbols),
    }
    return make_bundle(
        label="handover",
        target="change",
        scaler=learnt.statistics,
        slugs=coins,
        network_onnx=exported,
        weights_sha256=weights_sha256(model),
        about={"origin": "handover"},
        documents={
            TRAINING_MANIFEST: json.dumps(manifest, indent=2).encode() + b"\n",
            "metrics.json": json.dumps({"checks": {"onnx_equals_keras": asdict(verdict)}}, indent=2).encode() + b"\n",
            "network.keras": trainable,
            "MODEL_CARD.md": _card(manifest).encode(),
        },
    )


def read_slugs(content: bytes, symbols: tuple[str, ...]) -> dict[str, str]:
    """symbol → slug from CSV. Raises Refused where a symbol is unknown to the scaler, or named twice."""
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        pairs = [(row["symbol"].strip(), row["slug"].strip()) for row in rows]
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"the slugs file must be CSV in UTF-8 with the columns symbol and slug ({error!r})") from error
    found = dict(pairs)
    unknown = sorted(set(found) - set(symbols))
    if unknown or len(found) != len(pairs) or not all(found.values()):
        complaint = (
            f"symbols the scaler does not have: {', '.join(unknown)}" if unknown else "a symbol twice, or no slug"
        )
        raise Refused(f"the slugs file has {complaint}; correct it")
    return found


def _card(manifest: Mapping[str, object]) -> str:
    return (
        "# A handed-over model\n\n"
        f"Served as it was handed over; {manifest['symbols']} series. It predicts the change of the open since the\n"
        "row before. What it was trained and evaluated on is not known here: compare it with the last close before\n"
        "promoting it.\n"
    )
