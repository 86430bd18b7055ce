"""The next open of some records, in plain pandas, for the servers that the service is compared with.

It is written as a team writes it that serves one network: the scaler's numbers and the last rows of every series are
read once at the start, each request gets its features, windows and prices. The results are those of crypto_ml for
series that the scaler knows; the benchmark holds them against each other. Nothing is checked, kept or accounted for.
Only numpy and pandas are needed, so that each server may have an environment of its own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MODEL, HISTORY = "SERVED_MODEL", "SERVED_HISTORY"
"""The variables that lead to the bundle's folder and to the earlier rows."""

LEVELS = ["open", "high", "low", "close", "close_ratio", "spread"]
WINDOW = 5
LOOK_BACK = WINDOW + 1


class Scorer:
    """The bundle in a folder, and the last rows of every series in a CSV file.

    network: windows (n, 5, 13) float32 → outputs (n,), whatever runs it.
    """

    def __init__(self, model: Path, history: Path, network: Callable[[NDArray[np.float32]], NDArray[Any]]) -> None:
        scaler = json.loads((model / "scaler.json").read_text())
        self.mean = pd.DataFrame(scaler["mean"], index=scaler["symbols"], columns=scaler["columns"])
        self.scale = pd.DataFrame(scaler["scale"], index=scaler["symbols"], columns=scaler["columns"])
        self.gap_scale = pd.Series(scaler["gap_scale"], index=scaler["symbols"])
        self.network = network
        rows = pd.read_csv(history).sort_values(["symbol", "date"])
        self.earlier = {symbol: group.tail(LOOK_BACK) for symbol, group in rows.groupby("symbol")}

    def predict(self, records: pd.DataFrame) -> list[dict[str, Any]]:
        """For each record its symbol, date and predicted open."""
        records = records.sort_values(["symbol", "date"]).assign(asked=True)
        earlier = [self.earlier[symbol] for symbol in records["symbol"].unique() if symbol in self.earlier]
        rows = pd.concat([*(group.assign(asked=False) for group in earlier), records])
        rows = rows.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
        rows["spread"] = rows["high"] - rows["low"]
        rows["close_ratio"] = ((rows["close"] - rows["low"]) / rows["spread"]).fillna(0)
        rows["log_shares"] = np.log(np.maximum(np.ceil(rows["market"] / rows["close"]), 1))
        by_symbol = rows.groupby("symbol")
        levels = rows[LEVELS].join(by_symbol[LEVELS].diff().fillna(0).add_prefix("v_"))
        scaled = (levels.to_numpy() - self.mean.loc[rows["symbol"]].to_numpy()) / self.scale.loc[rows["symbol"]]
        inputs = np.column_stack([scaled.to_numpy(), rows["log_shares"]]).astype(np.float32)
        asked = np.flatnonzero(rows["asked"])
        position = by_symbol.cumcount().to_numpy()[asked]
        windows = np.zeros((len(asked), WINDOW, inputs.shape[1]), np.float32)
        for step in range(1, WINDOW + 1):
            there = np.flatnonzero(position >= step)
            windows[there, WINDOW - step] = inputs[asked[there] - step]
        output = np.asarray(self.network(windows), np.float64)
        close = by_symbol["close"].shift().to_numpy()[asked]
        answers = rows.iloc[asked][["symbol", "date"]].copy()
        predicted = close + output * self.gap_scale.loc[answers["symbol"]].to_numpy()
        answers["pred_open"] = np.where(position > 0, predicted, rows["open"].to_numpy()[asked])
        return [{str(name): value for name, value in row.items()} for row in answers.to_dict("records")]


def with_keras(model: Path, history: Path) -> Scorer:
    """The network as Keras keeps it, by `model.predict`."""
    import keras

    @keras.saving.register_keras_serializable(package="crypto_ml")  # type: ignore[untyped-decorator]
    def keras2_hard_sigmoid(x: Any) -> Any:  # by this name: a copy of the layer is made that looks it up again
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    network = keras.models.load_model(model / "network.keras")
    network.predict(np.zeros((1, WINDOW, 13), np.float32), verbose=0)  # traced now, and not by the first request
    return Scorer(model, history, lambda windows: np.asarray(network.predict(windows, verbose=0))[:, 0])


def with_onnx(model: Path, history: Path) -> Scorer:
    """The network as it was exported, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model / "network.onnx")
    name = session.get_inputs()[0].name
    return Scorer(model, history, lambda windows: np.asarray(session.run(None, {name: windows})[0])[:, 0])
