"""Pictures are small PNGs, the same for the same numbers, and drawn whatever a symbol is called."""

import struct
import subprocess
import sys
from datetime import date

import numpy as np
import pytest

from crypto_ml.errors import Refused
from crypto_ml.forecasting.evaluation import Evaluation, evaluate
from crypto_ml.forecasting.pictures import holdout_by_symbol, loss_curve, predicted_against_actual
from crypto_ml.forecasting.simulation import simulate_market

HISTORY = {"loss": [0.9, 0.5, 0.4, 0.38, 0.37, 0.365], "val_loss": [0.7, 0.45, 0.41, 0.4, 0.42, 0.43]}


def evaluation(symbols: int = 30, suffix: str = "") -> Evaluation:
    market = simulate_market(symbols, 120, 3, date(2021, 1, 1))
    by_symbol = market.groupby("symbol")
    market = market.assign(last_open=by_symbol["open"].shift(), last_close=by_symbol["close"].shift()).dropna()
    observed, last_open, last_close = (market[name].to_numpy() for name in ("open", "last_open", "last_close"))
    noise = np.random.default_rng(0).normal(0, 0.003, len(market))
    names = (market["symbol"] + suffix).to_numpy(object)
    return evaluate(names, observed, last_close * (1 + noise), last_open, last_close)


def against_actual() -> bytes:
    coin = simulate_market(1, 300, 5, date(2021, 1, 1))
    observed = coin["open"].to_numpy()[1:]
    return predicted_against_actual(
        coin["date"].to_numpy(str)[1:], observed, coin["close"].to_numpy()[:-1], "SIM001: next open on the holdout"
    )


def pictures() -> list[bytes]:
    return [loss_curve(HISTORY), against_actual(), holdout_by_symbol(evaluation())]


def test_pictures_are_png_files_of_at_most_40_kilobytes() -> None:
    for picture in pictures():
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) <= 40_000
        width, height = struct.unpack(">II", picture[16:24])
        assert 400 <= width <= 900
        assert 200 <= height <= 1000


def test_the_same_numbers_give_the_same_bytes_in_another_process() -> None:
    program = (
        "import sys\n"
        "from crypto_ml_tests.forecasting.test_pictures import pictures\n"
        "sys.stdout.buffer.write(b''.join(pictures()))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert other == b"".join(pictures())


def test_other_numbers_give_another_picture() -> None:
    assert loss_curve(HISTORY) != loss_curve({name: values[:-1] for name, values in HISTORY.items()})


@pytest.mark.parametrize("suffix", ["$x^2$", "$", "/" + "a" * 3000, " € \\"])
def test_a_symbol_of_any_name_is_drawn(suffix: str) -> None:
    assert len(holdout_by_symbol(evaluation(3, suffix))) <= 40_000


def test_one_epoch_and_one_row_can_be_drawn() -> None:
    assert loss_curve({"loss": [1.0], "val_loss": [1.0]}).startswith(b"\x89PNG")
    one = predicted_against_actual(["2021-01-01"], np.array([2.0]), np.array([2.1]), "$ONE$")
    assert one.startswith(b"\x89PNG")


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(Refused, match="no epoch"):
        loss_curve({"loss": [], "val_loss": []})
    with pytest.raises(Refused, match="no row"):
        predicted_against_actual([], np.ones(0), np.ones(0), "A")
