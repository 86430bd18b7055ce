"""What the Dagster UI is given to show: text from outside stays text, whatever Markdown it spells."""

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from crypto_ml.defs.presentation import (
    SHOWN_AT_ONCE,
    check_result,
    embedded,
    in_markdown,
    links,
    opens,
    picture,
    records,
    table,
)
from crypto_ml.defs.waterfall import sketch
from crypto_ml.forecasting.evaluation import Verdict
from crypto_ml.forecasting.sketches import Series
from crypto_ml.stages.spent import PARTS
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SHOWING_SVG = MarkdownIt("commonmark", {"html": False})
SHOWING_SVG.validateLink = bool  # type: ignore[method-assign, assignment] # as Dagster, which shows pictures as data
SNIPPETS = [
    "![x](http://h/i.png)",
    "\n| forged | row |",
    "|",
    "\\",
    "`",
    "<img src=x>",
    "**",
    "_",
    "~~",
    "[a](b)",
    "&lt;",
]
TEXTS = st.lists(st.one_of(st.sampled_from([*SNIPPETS, "# ", "> ", "- "]), st.text(max_size=5)), max_size=6).map(
    "".join
)
QUIET = {"text", "text_special", "softbreak"}


def parsed(text: str) -> list[Token]:
    return MARKDOWN.parse(text)


@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_a_table_has_one_record_for_each_and_each_cell_is_its_text(texts: list[tuple[str, str]]) -> None:
    shown = records([{"upload": key, "why": why} for key, why in texts])
    assert [record.data for record in shown.records] == [
        {"upload": visible(key), "why": visible(why)} for key, why in texts
    ]
    assert [column.name for column in shown.schema.columns] == ["upload", "why"]


@given(key=TEXTS)
def test_a_list_of_links_has_one_for_each_key_and_shows_the_key(store: ObjectStore, key: str) -> None:
    tokens = parsed(links([f"uploads/{key}.csv"], store).value or "")
    (inline,) = [token for token in tokens if token.type == "inline"]
    parts = inline.children or []
    assert [part.type for part in (parts[0], parts[-1])] == ["link_open", "link_close"]
    assert "".join(part.content for part in parts[1:-1]) == visible(store.uri(f"uploads/{key}.csv"))
    assert {part.type for part in parts[1:-1]} <= QUIET


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_sentence_of_a_check_is_shown_as_it_is_whatever_symbols_it_names(text: str) -> None:
    shown = check_result("check", Verdict(False, {}, 0.0, f"left out: {text} since"), dg.AssetCheckSeverity.WARN)
    (inline,) = [token for token in parsed(shown.description or "") if token.type == "inline"]
    assert {part.type for part in inline.children or []} <= QUIET
    assert "".join(part.content for part in inline.children or []) == visible(f"left out: {text} since")


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_name_of_a_picture_stays_within_it(text: str) -> None:
    (inline,) = [token for token in parsed(picture(b"png", text).value or "") if token.type == "inline"]
    (image,) = inline.children or []
    assert str(image.attrs["src"]).startswith("data:image/png;base64,")


def test_numbers_stay_numbers_and_are_shortened_days_have_no_time_and_nothing_is_shown_for_none() -> None:
    day = pd.Timestamp("2018-03-25")
    shown = records([{"a_b": "x", "n": 1.23456789, "m": None, "day": day, "k": 7, "e": float("nan")}])
    (record,) = shown.records
    assert record.data == {"a_b": "x", "n": 1.23457, "m": "", "day": "2018-03-25", "k": 7, "e": ""}
    assert [column.type for column in shown.schema.columns] == ["string", "float", "string", "string", "int", "float"]
    frame = pd.DataFrame({"symbol": ["1e5", "BTC"], "index": [0, 1]})
    assert [record.data for record in table(frame).records] == [
        {"symbol": "1e5", "index": 0}, {"symbol": "BTC", "index": 1},
    ]  # fmt: skip
    assert not table(frame[:0]).records


@given(symbol=TEXTS, count=st.integers(1, 100), seed=st.integers(0, 100), scale=st.floats(1e-9, 1e12))
def test_opens_are_a_picture_short_enough_to_be_shown_at_once_whatever_the_series(
    symbol: str, count: int, seed: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    days = np.datetime64("2018-01-01") + np.arange(count)
    observed, predicted = scale * np.exp(random.normal(0, 1, (2, count)))
    predicted[random.random(count) < 0.3] = np.nan
    shown = opens([Series(symbol, days, observed, predicted)])["opens"].value or ""
    assert len(shown) < SHOWN_AT_ONCE
    paragraph, caption = [token.children or [] for token in SHOWING_SVG.parse(shown) if token.type == "inline"]
    (image,) = paragraph
    assert str(image.attrs["src"]).startswith("data:image/svg+xml,%3Csvg")
    assert {part.type for part in caption} <= QUIET
    assert f"2018-01-01 to {days[-1]}" in "".join(part.content for part in caption)


def test_further_series_are_behind_a_link_and_without_any_there_is_no_picture() -> None:
    one = Series("A", np.array(["2018-01-01"], "M8[D]"), np.ones(1), np.ones(1))
    assert list(opens([one])) == ["opens"]
    assert (opens([one, one])["more_opens"].value or "").count("data:image/svg+xml") == 2
    assert opens([]) == {}


@pytest.mark.parametrize("count", [1, 3, 500])
def test_a_list_of_links_is_as_long_as_is_shown_at_once_and_counts_the_rest(store: ObjectStore, count: int) -> None:
    shown = links([f"receipts/answers/{number:08d}.json" for number in range(count)], store).value or ""
    named = shown.count("receipts/answers/") // 2
    assert named == 1 or len(shown) < SHOWN_AT_ONCE
    assert shown.endswith(f"and {count - named} more") == (count > named)


def test_plain_words_stay_plain() -> None:
    assert in_markdown("uploads/prices-2018.csv, 3 rows, 1.5 %") == "uploads/prices-2018.csv, 3 rows, 1.5 %"


def test_a_bare_address_is_spelled_so_that_nothing_behind_it_is_swallowed() -> None:
    assert in_markdown("http://h/i.png) www.h/a_b a@b") == r"http\://h/i.png\) www\.h/a\_b a\@b"


@given(seconds=st.lists(st.floats(0, 1e6), min_size=11, max_size=11))
def test_a_waterfall_is_short_enough_to_be_shown_at_once(seconds: list[float]) -> None:
    names = ["waiting", "starting", *PARTS, "records of Dagster"]
    told = "noticed 10,000.0 to 10,001.0 s after it was written, by the store's clock, which tells whole seconds; then:"
    assert len(embedded(sketch(dict(zip(names, seconds, strict=False))), told)) < SHOWN_AT_ONCE
