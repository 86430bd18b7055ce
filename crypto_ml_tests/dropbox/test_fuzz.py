"""Any bytes get an outcome: never an exception that nobody meant, and counts that add up."""

import gzip
import os
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from crypto_ml.forecasting.intake import IntakeRules, Repeats, settled_chunks, take_in_all
from crypto_ml.forecasting.sorting import RowSorter
from crypto_ml.ledger.reports import read_report
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.forecasting.uploads.files import TODAY, take
from crypto_ml_tests.stages.road import Road, upload

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
MUTANTS = 10_000 if NIGHTLY else 2_000
WHOLE_ROAD = 1_000 if NIGHTLY else 150
BATCH = 50
RULES = IntakeRules(TODAY)

ODD = (
    *("", " ", "nan", "NaN", "inf", "-inf", "1e999", "-0", "-1", "0", "1e-320", "0x10", "1_000", "1,000", "١٢", "½"),
    *(
        "1/1/2018",
        "13/13/2018",
        "2018-02-30",
        "2018-01-01T25:00",
        "99999-01-01",
        "0000-00-00",
        "31/12/2999",
        "1514764800",
    ),
    *('"', '""', '"a', "a\tb", "\ufeff", "\u202e", "=1+1", "x" * 5_000, "\r", "BTC:bitcoin", "\x0b"),
)
SEED = upload(market({"BTC": 6, "NEW": 4}))

Mutation = Callable[[bytes, random.Random], bytes]


def flip(body: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << choose.randrange(8))]) + body[at + 1 :]


def cut(body: bytes, choose: random.Random) -> bytes:
    return body[: choose.randrange(len(body))]


def insert(body: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(body))
    what = choose.choice(
        [b"\0", b'"', b",", b"\n", b"\r", b"\r\n", b"\xff", b"\xef\xbb\xbf", b"\xc3\x28", b",,,,", b"'"]
    )
    return body[:at] + what * choose.choice([1, 1, 1, 50]) + body[at:]


def value(body: bytes, choose: random.Random) -> bytes:
    """Another value in one place of the table, the header among them."""
    lines = [line.split(",") for line in body.decode(errors="replace").split("\n")]
    line = choose.choice(lines)
    line[choose.randrange(len(line))] = choose.choice(ODD)
    return "\n".join(",".join(line) for line in lines).encode()


def column(body: bytes, choose: random.Random) -> bytes:
    """A column gone, doubled or moved, everywhere."""
    lines = [line.split(",") for line in body.decode(errors="replace").split("\n")]
    at, to, act = choose.randrange(7), choose.randrange(7), choose.randrange(3)
    for line in lines:
        if at < len(line):
            taken = line.pop(at) if act else line[at]
            if act != 1:
                line.insert(min(to, len(line)), taken)
    return "\n".join(",".join(line) for line in lines).encode()


def repeat(body: bytes, choose: random.Random) -> bytes:
    lines = body.split(b"\n")
    return b"\n".join([*lines, *choose.choices(lines, k=choose.randrange(1, 6))])


def compress(body: bytes, choose: random.Random) -> bytes:
    packed = gzip.compress(body)
    kinds: tuple[Mutation, ...] = (flip, cut, lambda b, _: b, lambda b, _: b + b, lambda b, _: b + b"tail")
    return choose.choice(kinds)(packed, choose)


def encode(body: bytes, choose: random.Random) -> bytes:
    text = body.decode(errors="replace").replace("BTC", choose.choice(["BTC", "Ö", "日本", "😀"]))
    return text.encode(choose.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-32"]), errors="replace")


MUTATIONS: tuple[Mutation, ...] = (flip, cut, insert, value, value, value, column, repeat, compress, encode)


def mutant(seed: int) -> bytes:
    choose = random.Random(seed)  # noqa: S311
    body = SEED
    for _ in range(choose.choice([1, 1, 2, 3])):
        body = choose.choice(MUTATIONS)(body, choose) if body else body
    return body


def test_any_bytes_are_taken_in_or_refused_and_every_row_is_accounted_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = Counter[str]()
    for begin in range(0, MUTANTS, BATCH):
        with RowSorter(tmp_path / f"{begin}") as sorter:
            intakes = take_in_all(written(range(begin, begin + BATCH), tmp_path), RULES, sorter)
            repeats = Repeats()
            settled = Counter[int]()
            for chunk in settled_chunks(sorter, repeats):
                settled.update(chunk["file"].tolist())
            for seed, intake in intakes.items():
                contradicting, repeated = repeats.contradicting[seed], repeats.repeated[seed]
                refused = sum(batch.num_rows for batch in sorter.refusals.listed(seed))
                assert refused == intake.refused_rows + contradicting, seed
                assert intake.received_rows == settled[seed] + refused + repeated, seed
                assert intake.refusal is None or intake.refusal.strip(), seed
                ends["refused" if intake.refusal else "rows refused" if refused else "taken"] += 1
        shutil.rmtree(tmp_path / f"{begin}", ignore_errors=True)  # few rows are sorted without a folder
    with capsys.disabled():
        print(f"\n{MUTANTS:,} mutated files: {dict(ends)}")
    assert sum(ends.values()) == MUTANTS
    assert len(ends) == 3


def written(seeds: Iterable[int], directory: Path) -> Iterator[tuple[int, Path]]:
    for seed in seeds:
        path = directory / "mutant"
        path.write_bytes(mutant(seed))
        yield seed, path


def test_small_files_that_are_cleaned_together_come_out_as_each_by_itself(tmp_path: Path) -> None:
    seeds = range(150)
    with RowSorter(tmp_path / "together") as sorter:
        intakes = take_in_all(written(seeds, tmp_path), RULES, sorter)
        repeats = Repeats()
        chunks = list(settled_chunks(sorter, repeats))
        rows = pd.concat(chunks, ignore_index=True)
        refused = {seed: [row for batch in sorter.refusals.listed(seed) for row in batch.to_pylist()] for seed in seeds}
    for seed in seeds:
        alone = take(mutant(seed))
        assert intakes[seed] == alone.intake, seed
        assert [{**row, "file": 0} for row in refused[seed]] == alone.refused_rows.to_pylist(), seed
        assert (repeats.repeated[seed], repeats.contradicting[seed]) == (
            alone.repeats.repeated[0],
            alone.repeats.contradicting[0],
        )
        together = rows[rows["file"] == seed].drop(columns="file").reset_index(drop=True)
        names = [name for name in together.columns if name in alone.rows.columns]
        pd.testing.assert_frame_equal(together[names], alone.rows[names].reset_index(drop=True), check_dtype=False)


def test_any_bytes_dropped_get_a_report_and_harm_no_other_file(store: ObjectStore) -> None:
    road = Road(store.below(f"{store.prefix}{uuid.uuid4().hex}"))
    for begin in range(0, WHOLE_ROAD, BATCH):
        names = {seed: f"{seed}.csv" for seed in range(begin, min(begin + BATCH, WHOLE_ROAD))}
        road.put({name: mutant(seed + MUTANTS) for seed, name in names.items()} | {f"good{begin}.csv": SEED})
        road.answer_new()
        for seed, name in names.items():
            report = read_report(f"uploads/{name}", road.store)
            assert report is not None, seed
            rows = report.document["rows"]
            assert report.outcome in {"PREDICTED", "REJECTED"}, seed
            assert (report.document["reason"] is None) == (report.outcome == "PREDICTED"), seed
            assert rows["received"] == rows["accepted"] + rows["refused"] + rows["repeated"], seed
            assert rows["accepted"] == rows["predicted"] + rows["seed"], seed
        good = read_report(f"uploads/good{begin}.csv", road.store)
        assert good is not None
        assert (good.outcome, good.document["rows"]["predicted"]) == ("PREDICTED", 5)
