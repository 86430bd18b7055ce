"""Commands that were used wrongly say so in a line, with exit code 2, before they open anything."""

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("backtest --first yesterday", "must be a date such as 2017-01-31"),
        ("backtest --every 0", "0 is not in the range"),
        ("backtest --learner arima", "no learner is called arima; there are gru, boosting, absolute, last_close"),
        ("backtest --symbols ,", "must name series, with commas between them"),
        ("backtest 2017", "unexpected extra argument"),
        ("tune last_close", "is not one of"),
        ("tune --trials 0", "0 is not in the range"),
        ("tune", "CRYPTO_ML_LEARNERS names no learner that has parameters to search for"),
        ("explain", "Missing argument 'PREDICTION_ID'"),
        ("explain x --symbol BTC --date 99", "does not match the format"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_opened(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ML_LEARNERS", "last_close")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nobody answers there
    result = CliRunner().invoke(main, command.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())
