"""What was not installed is asked for in one sentence, before any work is done; what can do without goes on without."""

import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.extras import (
    CLUSTER,
    DEMO,
    DRAWING,
    EXPERIMENTS,
    PAGE,
    SERVING,
    TIMESTAMPS,
    TRAINING,
    TUNING,
    NotInstalled,
    can_draw,
)
from crypto_ml.forecasting.pictures import loss_curve
from crypto_ml.storage.embedded import EmbeddedS3


def without(patch: pytest.MonkeyPatch, *modules: str) -> None:
    """As in an installation that lacks these modules, whether they are imported already or not."""
    for name in modules:
        patch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("words", [["make-model", "-o", "new"], ["handover", "model.h5", "scaler.pkl", "-o", "new"]])
def test_a_command_that_trains_says_which_extra_it_needs_and_writes_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *TRAINING)
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1
    assert "needs tensorflow, keras, onnx, h5py, sklearn, which" in told.stderr
    assert "install crypto-ml[training]" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_says_which_extra_it_needs_and_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_draw()
    without(monkeypatch, "matplotlib")
    assert not can_draw()
    with pytest.raises(NotInstalled, match=r"^A picture needs matplotlib, .*crypto-ml\[training\]"):
        loss_curve({"loss": [1.0], "val_loss": [1.0]})


def test_the_embedded_server_says_which_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *DEMO)
    with pytest.raises(NotInstalled, match=r"ministack, .*crypto-ml\[demo\]"):
        EmbeddedS3(tmp_path / "data").start()
    assert not (tmp_path / "data").exists()


def test_the_service_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *SERVING)
    told = CliRunner().invoke(main, ["serve"])
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
    assert "install crypto-ml[serve]" in told.stderr


def test_the_page_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *PAGE)
    told = CliRunner().invoke(main, ["page", "predictions.csv"])
    assert told.exit_code == 1
    assert "The page needs bokeh, which" in told.stderr
    assert "install crypto-ml[page]" in told.stderr


@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("training", (*TRAINING, *TUNING, *DRAWING)),
        ("demo", DEMO),
        ("serve", SERVING),
        ("page", PAGE),
        ("experiments", EXPERIMENTS),
        ("cluster", CLUSTER),
        ("timestamp", TIMESTAMPS),
    ],
)
def test_an_extra_brings_the_modules_that_are_asked_for(extra: str, modules: tuple[str, ...]) -> None:
    by_module = packages_distributions()
    wanted = [line for line in requires("crypto-ml") or [] if f'extra == "{extra}"' in line]
    for module in modules:
        assert any(
            line.lower().startswith(name.lower().replace("_", "-")) for line in wanted for name in by_module[module]
        ), module
