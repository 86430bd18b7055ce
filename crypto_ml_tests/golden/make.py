"""`make golden`: a real run of this release, and its evidence kept for every later one.

A Dagster with its daemon and sensor, an S3 server, and what a few weeks bring: uploads of every outcome and of several
kinds, requests over REST, a retrain, a promotion against the gates, a rollback, a correction, a retraction, a forecast.
"""

import contextlib
import gzip
import io
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from crypto_ml.commands.companions import Companion
from crypto_ml.commands.local_dagster import LocalDagster, free_port
from crypto_ml.ledger.receipts import receipts_of
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.ledger.requests import seen_with
from crypto_ml.ledger.settlements import settlements
from crypto_ml.sample import sample_upload
from crypto_ml.storage.embedded import EmbeddedS3, ensure_bucket
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.golden.evidence import Golden, archive, keep

REPOSITORY = Path(__file__).resolve().parents[2]
BUCKET = "golden"
WEEK = "2023-11-19"
JSON, TEXT = "application/json", "text/csv"
RETRACTED = "OOPS"
"""The symbol of an upload that is taken back; runs of before 0.3 have none."""


class Run:
    """The deployment of the real run."""

    def __init__(self, store: ObjectStore, dagster: LocalDagster, environment: dict[str, str]) -> None:
        self.store = store
        self._dagster = dagster
        self._environment = environment | {"DAGSTER_HOME": str(dagster.home)}

    def drop(self, key: str, body: bytes) -> None:
        """Drop a file and wait for its outcome."""
        etag = self.store.replace(f"uploads/{key}", body)
        before = read_report(f"uploads/{key}", self.store)

        def answered() -> bool:
            report = read_report(f"uploads/{key}", self.store)
            return report is not None and report != before and report.document["upload"]["etag"] == etag

        until(answered, f"no answer to {key}")

    def drop_together(self, files: Mapping[str, bytes]) -> None:
        """Drop files that were never there, one right after the other, and wait for their outcomes."""
        for key, body in files.items():
            self.store.replace(f"uploads/{key}", body)
        until(lambda: all(read_report(f"uploads/{key}", self.store) for key in files), "not all were answered")

    def ask(self, *bodies: tuple[str, bytes]) -> None:
        """Ask over REST, and wait until everything that was answered is settled. bodies: with their media types."""
        with Companion(["serve"], free_port(), self._dagster.directory, self._environment, "/readyz") as service:
            service.wait_until_up()
            for media, body in bodies:
                request = urllib.request.Request(  # noqa: S310 - our own address
                    f"{service.url}/v1/predictions", body, {"Content-Type": media}
                )
                with contextlib.suppress(urllib.error.HTTPError):  # refused as a whole, which is an answer too
                    urllib.request.urlopen(request).close()  # noqa: S310
        assert sum(len(one.deliveries) for one in settlements(self.store)) == len(bodies)

    def launch(self, job: str, *arguments: str, until_there: Callable[[], Any]) -> None:
        """Launch a job as a person would, and wait for what it brings."""
        command = [sys.executable, "-m", "dagster", "job", "launch", "-m", "crypto_ml.definitions", "-j", job]
        subprocess.run([*command, *arguments], check=True, cwd=self._dagster.home, env=self._environment)
        until(until_there, f"{job} came to no end")


def csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False, lineterminator="\n").encode()


def with_decimal_commas(rows: pd.DataFrame) -> bytes:
    """Rows as a spreadsheet in Germany saves them."""
    days = pd.to_datetime(rows["date"]).dt.strftime("%d.%m.%Y")
    return rows.assign(date=days).to_csv(index=False, sep=";", decimal=",", lineterminator="\n").encode()


def parquet(rows: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    rows.to_parquet(file, index=False)
    return file.getvalue()


def live(run: Run) -> None:
    """What happens in the run."""
    rows = pd.read_csv(io.BytesIO(sample_upload()))
    days = sorted(rows["date"].unique())
    early = rows[rows["date"] < days[-5]]
    with_slugs = early.assign(slug=early["symbol"].str.lower() + "-coin")
    run.drop("history.csv", csv(with_slugs) + b"NEW,2023-12-01,-1,1,1,1,1\nNEW,,1,1,1,1,1\n")
    run.drop("broken.csv", b"symbol,date\nBTC,2018-01-01\n")
    run.drop("notes.txt", b"not a market")
    run.drop("daily/one.csv.gz", gzip.compress(csv(rows[rows["date"] == days[-5]]), mtime=0))
    own = early[early["symbol"] == early["symbol"].iloc[0]].tail(30).assign(symbol="OWN")
    run.drop("own.csv", csv(own))
    run.drop("semicolons.csv", with_decimal_commas(own.assign(symbol="GER")))
    run.drop("table.parquet", parquet(own.assign(symbol="PAR")))
    next_day = rows[(rows["date"] == days[-5]) & (rows["symbol"] == early["symbol"].iloc[0])]
    run.drop_together({f"day/{name}.csv": csv(next_day.assign(symbol=name)) for name in ("OWN", "GER", "PAR")})
    run.drop("wrong.csv", csv(own.assign(symbol=RETRACTED)))
    crypto_ml("retract", "uploads/wrong.csv", "--by", "data team", "--why", "a coin that there is not")
    registry = Registry(run.store)
    run.launch(
        "retrain",
        "--tags",
        f'{{"dagster/partition": "{WEEK}"}}',
        # every learner is a candidate, and on so few days the last close itself is one more
        until_there=lambda: len([found for found in registry.versions() if found.startswith(WEEK)]) == 4,
    )
    candidate = min(found for found in registry.versions() if found.startswith(WEEK))
    crypto_ml("promote", candidate, "--by", "ml engineer", "--why", "weekly retrain", "--override", "known to be worse")
    run.drop("daily/two.csv", csv(rows[rows["date"] == days[-4]]))
    crypto_ml("rollback", "--by", "on call", "--why", "odd numbers")
    run.drop("daily/three.csv", csv(rows[rows["date"] == days[-3]]))
    last = rows[rows["date"] == days[-3]].head(3)
    records = last.assign(slug=None).to_json(orient="records").encode()
    run.ask(
        (JSON, records.replace(b"[", b'[{"symbol":"BAD","date":"2023-12-01","open":-1},', 1)),
        (TEXT, csv(pd.concat([last, own.tail(2)]))),
        (TEXT, b"symbol,date\nBTC,2018-01-01\n"),
    )
    wrong = rows[rows["date"] == days[-4]]
    corrected = wrong["close"].where(wrong["symbol"] != wrong["symbol"].iloc[0], wrong["low"])
    run.drop("daily/two.csv", csv(wrong.assign(close=corrected)))
    run.drop("daily/four.csv", csv(rows[rows["date"] == days[-2]]))
    run.drop("daily/four.csv", csv(rows[rows["date"] == days[-2]]))
    run.launch("daily_forecast", until_there=lambda: run.store.head("forecasts/latest.csv"))


def crypto_ml(*arguments: str) -> None:
    subprocess.run([Path(sys.executable).with_name("crypto-ml"), *arguments], check=True)


def golden_of(store: ObjectStore) -> Golden:
    """What is known of what is in the store."""
    files = [found.key.rpartition("/")[2].removesuffix(".json") for found in store.list("receipts/answered/")]
    requests = [one.delivery for settled in settlements(store) for one in settled.deliveries]
    answers = {
        receipt.answer_id: {"upload": receipt.upload.key, "outcome": receipt.outcome, "reason": receipt.reason}
        for delivery in (*files, *requests)
        for receipt in receipts_of(delivery, seen_with(delivery, store))
    }
    return Golden(version("crypto-ml"), answers, tuple(entry.version for entry in Registry(store).champions()))


def main() -> None:
    with TemporaryDirectory(prefix="crypto_ml-golden-") as name, EmbeddedS3(Path(name) / "s3") as server:
        environment = {**server.environment, "CRYPTO_ML_BUCKET": BUCKET, "CRYPTO_ML_EPOCHS": "3"}
        os.environ.update(environment)
        store = connect(BUCKET)
        ensure_bucket(store.client, BUCKET)
        dagster = LocalDagster(Path(name), environment, REPOSITORY / "dagster.yaml", free_port())
        with dagster:
            dagster.wait_until_watching()
            live(Run(store, dagster, os.environ | environment))
        golden = golden_of(store)
        keep(golden, store)
    print(f"{archive(golden.release)}: {len(golden.answers)} answers")


if __name__ == "__main__":
    main()
