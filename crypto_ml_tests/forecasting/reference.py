"""The handed-over network's definitions once more: plain Python, a number at a time, no code of the product.

Slow on purpose. What is compared with this is compared with the definitions and not with itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

FEATURE_ORDER = (
    *("open", "high", "low", "close", "close_ratio", "spread"),
    *("v_open", "v_high", "v_low", "v_close", "v_close_ratio", "v_spread"),
    "log_shares",
)
SCALED_COLUMNS = FEATURE_ORDER[:12]

Row = Mapping[str, float]
Features = dict[str, float]


class Scaler(NamedTuple):
    """Mean and deviation of each scaled column, and the deviation of the gap."""

    mean: Mapping[str, float]
    scale: Mapping[str, float]
    gap_scale: float


class Model(NamedTuple):
    """A network of one window, what it predicts, and how prices are recovered from that."""

    network: Callable[[list[list[float]]], float]
    target: str
    recovery: str


class Answer(NamedTuple):
    """What a row must be answered with."""

    price: float
    status: str


def features(rows: Sequence[Row]) -> list[Features]:
    """The thirteen features of each row of one series, in order of dates."""
    found: list[Features] = []
    for number, row in enumerate(rows):
        spread = row["high"] - row["low"]
        ratio = 0.0 if row["high"] == row["low"] else (row["close"] - row["low"]) / (row["high"] - row["low"])
        shares = math.ceil(row["market"] / row["close"])
        level = {name: row[name] for name in ("open", "high", "low", "close")} | {
            "close_ratio": ratio,
            "spread": spread,
        }
        before = found[number - 1] if number else level
        moved = {f"v_{name}": value - before[name] for name, value in level.items()}
        found.append(level | moved | {"log_shares": math.log(shares) if shares > 0 else 0.0})
    return found


def deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population deviation, 1 where the values do not vary."""
    if not values:
        return 0.0, 1.0
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return mean, spread if len(set(values)) > 1 else 1.0


def gap(rows: Sequence[Row], at: int) -> float:
    """open[t] − close[t−1]."""
    return rows[at]["open"] - rows[at - 1]["close"]


def own_scaler(rows: Sequence[Row], at: int) -> Scaler:
    """The statistics of the rows before row `at`."""
    known = features(rows)[:at]
    learnt = {name: deviation([row[name] for row in known]) for name in SCALED_COLUMNS}
    gaps = [gap(rows, number) for number in range(1, at)]
    return Scaler(
        {name: mean for name, (mean, _) in learnt.items()},
        {name: scale for name, (_, scale) in learnt.items()},
        deviation(gaps)[1],
    )


def window(known: Sequence[Features], at: int, scaler: Scaler) -> list[list[float]]:
    """Rows t−5 … t−1 as the network takes them; rows of zeros in front where there are fewer."""
    rows = []
    for number in range(at - 5, at):
        if number < 0:
            rows.append([0.0] * 13)
            continue
        row = known[number]
        scaled = [(row[name] - scaler.mean[name]) / scaler.scale[name] for name in SCALED_COLUMNS]
        rows.append([value if math.isfinite(value) else 0.0 for value in [*scaled, row["log_shares"]]])
    return rows


def change(rows: Sequence[Row], at: int, scaler: Scaler, model: Model) -> float:
    """The predicted change of the open of row `at` since the row before."""
    output = model.network(window(features(rows), at, scaler))
    if model.target == "change":
        return output * scaler.scale["v_open"] + scaler.mean["v_open"]
    return rows[at - 1]["close"] + output * scaler.gap_scale - rows[at - 1]["open"]


def answers(rows: Sequence[Row], asked: Sequence[bool], scaler: Scaler | None, model: Model) -> list[Answer]:
    """The answers to the asked rows of one series of a file; `scaler` is None where the model has never seen it."""
    found: list[Answer] = []
    running = last_open = math.nan
    for at, row in enumerate(rows):
        if not asked[at]:
            continue
        made = at >= (1 if scaler else 10)
        moved = change(rows, at, scaler or own_scaler(rows, at), model) if made else row["open"] - last_open
        running = running + moved if found else row["open"]
        recovered = rows[at - 1]["open"] + moved if model.recovery == "one_step" else running
        found.append(Answer(recovered, "predicted") if made else Answer(row["open"], "seed"))
        last_open = row["open"]
    return found
