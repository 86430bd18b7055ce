"""What stood before the rows asked about: folded or not, from a book or from rows, the same predictions come of it."""

import dataclasses
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crypto_ml.forecasting.answers import BESIDE
from crypto_ml.forecasting.bundle import ModelBundle
from crypto_ml.forecasting.fingerprint import Witness
from crypto_ml.forecasting.folded import FoldedSeries
from crypto_ml.forecasting.running import FOLDED_1, KEPT, ROWS_KEPT, SeriesBook, fold
from crypto_ml.forecasting.scaled_by import is_other_coin
from crypto_ml.forecasting.schema import LOOK_BACK
from crypto_ml.forecasting.scoring import score_rows, score_tables, witness_of
from crypto_ml.forecasting.sorting import ROWS, SPANS, RowSorter, as_frame
from crypto_ml.stages.earlier_rows import FEWEST_AT_ONCE, SPANS_AT_ONCE, EarlierRows, folded_earlier_rows
from crypto_ml.stages.series_by_name import Series
from crypto_ml_tests.forecasting.markets import market, model, relative_model

COLUMNS = ["file", "symbol", "date", "pred_open", "val_open", "status", "scaled_by"]


class InMemory:
    """Series of a history that is a table, in which every row is current."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows.append_column("void", pa.nulls(rows.num_rows, pa.bool_()))
        self.rows_read = 0
        self.kept = KEPT
        self.changed: frozenset[str] = frozenset()

    def at_hand(self, symbols: Collection[str], version: int) -> tuple[SeriesBook, dict[str, date]]:
        left = [self._rows.filter(pc.field("symbol") == name) for name in sorted(self.changed & set(symbols))]
        first_days = {rows["symbol"][0].as_py(): pc.min(rows["date"]).as_py() for rows in left if rows.num_rows}
        return self.book(set(symbols) - self.changed, version), first_days

    def book(self, symbols: Collection[str] | None, version: int) -> SeriesBook:
        del version
        wanted = pa.array([] if symbols is None else list(symbols), pa.string())
        of_them = self._rows.filter(pc.is_in(self._rows["symbol"], wanted))
        return fold(None, of_them.select(ROWS_KEPT.names), kept=self.kept)

    def rows(
        self,
        columns: Collection[str] | None = None,
        *,
        symbols: Collection[str] | None,
        since: date | None = None,
        before: date | None = None,
        version: int,
        outranked: bool = True,
    ) -> pa.RecordBatchReader:
        del version, outranked
        wanted = pc.field("symbol").isin(list(symbols or ())) & (pc.field("date") < (before or date.max))
        found = self._rows.filter(wanted & (pc.field("date") >= (since or date.min))).select(list(columns or ()))
        self.rows_read += found.num_rows
        return found.to_reader()


def history_rows(rows: pd.DataFrame) -> pa.Table:
    rows = rows.assign(known_at=datetime(2026, 1, 1, tzinfo=UTC), upload_id="00000001.0", cleaning=1)
    return pa.Table.from_pandas(rows, ROWS_KEPT, preserve_index=False)


@st.composite
def asked_of_markets(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows of a history, and the rows of some files that are asked about, with holes."""
    lengths = draw(st.dictionaries(st.sampled_from(["BTC", "ETH", "NEW", "é"]), st.integers(1, 120), min_size=1))
    rows = market(lengths, draw(st.integers(0, 1000)))
    slugs = {name: draw(st.sampled_from([None, "own", "bitcoin"])) for name in lengths}
    changes_at = draw(st.integers(0, 120))
    late = rows.groupby("symbol").cumcount() >= changes_at
    rows["slug"] = rows["symbol"].map(slugs).where(late | draw(st.booleans()), None)
    gone = np.random.default_rng(draw(st.integers(0, 9))).random(len(rows)) < draw(st.sampled_from([0.0, 0.3]))
    rows = rows[~gone | (rows.groupby("symbol").cumcount(ascending=False) == 0)]
    files = []
    for file in range(draw(st.integers(1, 2))):
        back = draw(st.integers(0, 130))
        behind = rows.groupby("symbol").cumcount(ascending=False)
        latest = min(draw(st.integers(0, back)), int(behind.max()))
        span = rows[(behind <= back) & (behind >= latest)]
        files.append(span[np.arange(len(span)) % draw(st.integers(1, 3)) == 0].assign(file=file))
    return rows, pd.concat(files, ignore_index=True)


def with_slug(slug: str | None) -> ModelBundle:
    """A model that knows which coin BTC is, or not."""
    bundle = model("gap")
    return dataclasses.replace(bundle, manifest={**bundle.manifest, "slugs": {"BTC": slug} if slug else {}})


def folded_before(series: Series, asked: pd.DataFrame, bundle: ModelBundle) -> list[EarlierRows]:
    """What `delivery_scoring.add_earlier_rows` has read for some rows."""
    days = asked.groupby(["file", "symbol"])["date"]
    spans = days.agg(first="min", last="max", rows="size").reset_index()
    given = asked[["symbol", "slug"]].itertuples(index=False, name=None)
    other = {name for name, slug in given if is_other_coin(bundle.slugs.get(name), slug)}
    coins = None if bundle.pooled else {name: slug for name, slug in bundle.coins.items() if name not in other}
    table = pa.Table.from_pandas(spans, SPANS, preserve_index=False)
    return list(folded_earlier_rows(series, table, coins, 1, look_back=bundle.look_back))


def as_table(asked: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(asked[ROWS.names], ROWS, preserve_index=False)


def scored(asked: pd.DataFrame, earlier: Iterable[EarlierRows], bundle: ModelBundle, witness: Witness) -> pd.DataFrame:
    """Files scored as a delivery is, in chunks of a few rows."""
    with TemporaryDirectory() as name, RowSorter(Path(name)) as sorter:
        folded = FoldedSeries(Path(name) / "folded")
        sorter.add(as_table(asked))
        for one in earlier:
            sorter.add(one.rows)
            folded.add(one.states)
        chunks = score_tables(sorter.chunk_tables(50), bundle, "one_step", witness, folded)
        found = as_frame(pa.concat_tables(chunks))
        return found[[*COLUMNS, *(name for name in BESIDE.names if name in found)]]


def from_all_rows(rows: pd.DataFrame, asked: pd.DataFrame, bundle: ModelBundle) -> pd.DataFrame:
    """What predictions come of all earlier rows, as releases before this one had them."""
    parts = []
    for file, of_file in asked.groupby("file"):
        last = rows["symbol"].map(of_file.groupby("symbol")["date"].max())
        whole = rows[rows["date"] <= last].assign(file=file)
        given = pd.MultiIndex.from_frame(of_file[["symbol", "date"]])
        context = ~pd.MultiIndex.from_frame(whole[["symbol", "date"]]).isin(given)
        parts.append(
            score_rows(
                whole.assign(context=context).astype({"file": "int32"}).reset_index(drop=True), bundle, "one_step"
            )
        )
    found = pd.concat(parts, ignore_index=True)
    return found[[*COLUMNS, *(name for name in BESIDE.names if name in found)]]


@settings(max_examples=max(10, settings().max_examples // 3), phases=[Phase.generate])
@given(
    drawn=asked_of_markets(),
    slug=st.sampled_from([None, "bitcoin", "relative"]),
    changed=st.frozensets(st.sampled_from(["BTC", "ETH", "NEW", "é"])),
    pieces=st.tuples(st.integers(1, 4), st.integers(1, 8)),
)
def test_from_book_or_rows_predictions_are_those_of_all_rows_to_the_last_bit_and_what_is_hashed_is_the_same(
    drawn: tuple[pd.DataFrame, pd.DataFrame], slug: str | None, changed: frozenset[str], pieces: tuple[int, int]
) -> None:
    rows, asked = drawn
    bundle = relative_model() if slug == "relative" else with_slug(slug)
    series = InMemory(history_rows(rows))
    expected, hashes = from_all_rows(rows, asked, bundle), set()
    whole, default = frozenset[str](), (FEWEST_AT_ONCE, SPANS_AT_ONCE)
    for kept, series.changed, cut in ((LOOK_BACK, whole, default), (KEPT, changed, pieces), (10_000, whole, pieces)):
        series.kept = kept
        with patch.multiple("crypto_ml.stages.earlier_rows", FEWEST_AT_ONCE=cut[0], SPANS_AT_ONCE=cut[1]):
            earlier = folded_before(series, asked, bundle)
        assert all(pc.all(pc.greater(one.states["folded"], 0)).as_py() is not False for one in earlier)
        witness = witness_of(bundle)
        pd.testing.assert_frame_equal(scored(asked, earlier, bundle, witness), expected, check_exact=True)
        hashes.add(tuple(witness.earlier_rows(file, FOLDED_1) for file in sorted(set(asked["file"]))))
    assert len(hashes) == 1


def test_a_daily_file_asks_for_the_book_alone_and_an_old_one_for_some_days_of_known_series() -> None:
    rows = market({"BTC": 400, "NEW": 400})
    behind = rows.groupby("symbol").cumcount(ascending=False)
    read = {}
    for back in (0, 25, 26, 60):
        series = InMemory(history_rows(rows))
        folded_before(series, rows[behind == back], model("gap"))
        read[back] = series.rows_read
    assert read == {0: 0, 25: 0, 26: (400 - 27) + 45, 60: (400 - 61) + 45}
    for back in (0, 9, 10):  # of a model for any series, which looks further back
        series = InMemory(history_rows(rows))
        folded_before(series, rows[behind == back], relative_model())
        assert series.rows_read == (2 * 45 if back == 10 else 0)


def test_a_file_that_leaves_no_day_out_asks_for_none_of_the_days_it_replaces_and_one_with_a_hole_for_its_series() -> (
    None
):
    rows = market({"BTC": 400, "NEW": 400})
    hole = (rows["symbol"] == "BTC") & (rows["date"] == rows["date"].iloc[200])
    for asked, read in ((rows, 0), (rows[~hole], 400 - 1)):
        for changed in (frozenset[str](), frozenset({"BTC", "NEW"})):
            series = InMemory(history_rows(rows))
            series.changed = changed
            folded_before(series, asked.assign(file=0), relative_model())
            assert series.rows_read == read


def test_a_file_of_late_days_asks_for_few_days_of_series_whose_past_has_changed() -> None:
    rows = market({"BTC": 400, "NEW": 400})
    series = InMemory(history_rows(rows))
    series.changed = frozenset({"BTC"})
    folded_before(series, rows[rows["date"] >= rows["date"].iloc[390]].assign(file=0), relative_model())
    assert series.rows_read == 45
