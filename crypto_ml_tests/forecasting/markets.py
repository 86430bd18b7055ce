"""Random markets and models for tests that need some rows and some model, and not good ones."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import cache
from typing import Final

import numpy as np
import pandas as pd

from crypto_ml.forecasting.bundle import ModelBundle, make_bundle
from crypto_ml.forecasting.daily_range import FROZEN
from crypto_ml.forecasting.onnx_graph import onnx_bytes
from crypto_ml.forecasting.pooled_scaler import PooledScaler
from crypto_ml.forecasting.scaling import SeriesStatistics
from crypto_ml.forecasting.schema import OBSERVATION, SCALED, STATIONARY, Target
from crypto_ml.forecasting.serving_rule import ServingRule
from crypto_ml.forecasting.shrinkage import shrunk_network
from crypto_ml_tests.forecasting.networks import linear_network, random_weights

FIRST_DAY = date(2018, 1, 1)
KNOWN = ("BTC", "ETH", "LTC")


def market(lengths: Mapping[str, int], seed: int = 0, *, file: int = 0) -> pd.DataFrame:
    """Random walks of these lengths, sorted as a sorter gives them, with flat days and days without a market."""
    random = np.random.default_rng(seed)
    parts = [_series(symbol, length, random) for symbol, length in sorted(lengths.items()) if length]
    rows = pd.concat(parts, ignore_index=True) if parts else _series("none", 0, random)
    return rows.astype(dict(OBSERVATION)).assign(file=file, line=np.arange(2, len(rows) + 2), context=False)


def _series(symbol: str, length: int, random: np.random.Generator) -> pd.DataFrame:
    close = 10 ** random.uniform(-3, 4) * np.exp(np.cumsum(random.normal(0, 0.03, length)))
    open_ = close * np.exp(random.normal(0, 0.02, length))
    flat = random.random(length) < 0.1
    high = np.maximum(open_, close) * (1 + random.uniform(0, 0.02, length))
    low = np.minimum(open_, close) * (1 - random.uniform(0, 0.02, length))
    prices = {"open": open_, "high": high, "low": low, "close": close}
    return pd.DataFrame(
        {
            "symbol": symbol,
            "date": pd.date_range(FIRST_DAY, periods=length),
            **{name: np.where(flat, close, values) for name, values in prices.items()},
            "market": np.where(random.random(length) < 0.2, 0.0, close * 10 ** random.uniform(5, 9)),
            "volume": np.nan,
            "slug": None,
        }
    )


def statistics(symbols: tuple[str, ...] = KNOWN, seed: int = 7) -> SeriesStatistics:
    """Statistics of these series that fit no market."""
    random = np.random.default_rng(seed)
    shape = (len(symbols), len(SCALED))
    return SeriesStatistics(
        tuple(sorted(symbols)),
        random.normal(0, 10, shape),
        np.exp(random.normal(0, 2, shape)),
        np.exp(random.normal(0, 1, len(symbols))),
    )


def records(rows: pd.DataFrame) -> list[dict[str, float]]:
    """The numbers of each row by column, as the reference takes them."""
    names = ("open", "high", "low", "close", "market")
    return [dict(zip(names, values, strict=True)) for values in rows[list(names)].to_numpy(np.float64).tolist()]


@cache
def model(target: Target = "gap", *, label: str = "test", seed: int = 0) -> ModelBundle:
    """A model that knows the series KNOWN."""
    return make_bundle(
        label=label,
        target=target,
        scaler=statistics(),
        slugs={},
        network_onnx=_network(seed),
        weights_sha256=f"random {seed}",
        about={"origin": "random numbers"},
        documents={},
    )


RELATIVE_QUANTILES: Final = {0.80: 1.5, 0.90: 2.75, 0.95: 4.5}


@cache
def relative_model(shrink: float = 0.5, cap: float = 0.05, *, label: str = "relative", seed: int = 0) -> ModelBundle:
    """A model of the target `relative_gap` with a linear network of random weights, trained on the series KNOWN."""
    random = np.random.default_rng(seed)
    weights = random.normal(0, 0.05, 25).astype(np.float32)
    scaler = PooledScaler(
        STATIONARY, random.normal(0, 0.1, 5), np.exp(random.normal(0, 0.2, 5)), tuple(sorted(KNOWN)), 1000
    )
    return make_bundle(
        label=label,
        target="relative_gap",
        scaler=scaler,
        slugs={},
        network_onnx=shrunk_network(linear_network(weights), shrink, cap),
        weights_sha256=f"random {seed}",
        about={"origin": "random numbers"},
        documents={},
        rule=ServingRule(shrink, cap, RELATIVE_QUANTILES, replace(FROZEN, upper={0.80: 0.4, 0.90: 0.7})),
    )


@cache
def _network(seed: int) -> bytes:
    return onnx_bytes(random_weights(seed))
