"""What the Dagster UI is given to show: text from outside stays text, whatever Markdown it spells."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from crypto_ml.defs.presentation import in_markdown, links, picture, records, table
from crypto_ml.storage.objects import ObjectStore
from crypto_ml.visible import visible

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
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


def shown(token: Token) -> str:
    """The text of an inline token, which must be made of nothing else."""
    parts = token.children or []
    assert {part.type for part in parts} <= {"text", "text_special"}, [part.type for part in parts]
    return "".join(part.content for part in parts)


@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
@example([("uploads/![x](http://host/i.png).csv", "\n| forged | row |")])
def test_a_table_has_one_row_for_each_record_and_each_cell_shows_its_text(texts: list[tuple[str, str]]) -> None:
    tokens = parsed(records([{"upload": key, "why": why} for key, why in texts]).value or "")
    assert [token.type for token in tokens].count("table_open") == 1
    cells = [shown(token) for token in tokens if token.type == "inline"]
    # a cell is trimmed of blanks of every kind, and a key that begins or ends in some is not worth more
    assert cells == ["upload", "why", *(visible(text).strip() for pair in texts for text in pair)]


@given(key=TEXTS)
def test_a_list_of_links_has_one_for_each_key_and_shows_the_key(store: ObjectStore, key: str) -> None:
    tokens = parsed(links([f"uploads/{key}.csv"], store).value or "")
    (inline,) = [token for token in tokens if token.type == "inline"]
    parts = inline.children or []
    assert [part.type for part in (parts[0], parts[-1])] == ["link_open", "link_close"]
    assert "".join(part.content for part in parts[1:-1]) == visible(store.uri(f"uploads/{key}.csv"))
    assert {part.type for part in parts[1:-1]} <= QUIET


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_name_of_a_picture_stays_within_it(text: str) -> None:
    (inline,) = [token for token in parsed(picture(b"png", text).value or "") if token.type == "inline"]
    (image,) = inline.children or []
    assert str(image.attrs["src"]).startswith("data:image/png;base64,")


def test_numbers_are_aligned_and_shortened_and_nothing_is_shown_for_none() -> None:
    rows: list[dict[str, Any]] = [{"a_b": "x", "n": 1.23456789, "m": None}]
    assert records(rows).value == "| a\\_b | n | m |\n| :-- | --: | :-- |\n| x | 1.23457 |  |"
    frame = pd.DataFrame({"symbol": ["1e5", "BTC"], "index": [0, 1]})
    assert table(frame).value == "| symbol | index |\n| :-- | --: |\n| 1e5 | 0 |\n| BTC | 1 |"
    assert table(frame[:0]).value == records([]).value == "no rows"


def test_plain_words_stay_plain() -> None:
    assert in_markdown("uploads/prices-2018.csv, 3 rows, 1.5 %") == "uploads/prices-2018.csv, 3 rows, 1.5 %"


def test_a_bare_address_is_spelled_so_that_nothing_behind_it_is_swallowed() -> None:
    assert in_markdown("http://h/i.png) www.h/a_b a@b") == r"http\://h/i.png\) www\.h/a\_b a\@b"
