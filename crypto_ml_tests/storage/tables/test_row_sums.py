"""The sum of rows is theirs, in whatever order and pieces they come; and no other rows have it."""

from datetime import UTC, date, datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.storage.tables.row_sums import RowSum

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("price", pa.float64()),
        ("day", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
        ("line", pa.int64()),
        ("cleaning", pa.int32()),
        ("void", pa.bool_()),
    ]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | st.sampled_from(["", "BTC", "ünï"]),
            "price": st.none() | st.sampled_from([0.0, -0.0, 1.5, 5e-324]),
            "day": st.none() | st.just(date(2018, 3, 26)),
            "at": st.none() | st.just(datetime(2018, 3, 26, 1, 2, 3, 4, tzinfo=UTC)),
            "line": st.none() | st.integers(-1, 1),
            "cleaning": st.none() | st.integers(0, 1),
            "void": st.none() | st.booleans(),
        }
    ),
    max_size=8,
)


def total(rows: list[dict[str, object]], pieces: int = 1) -> str:
    found = RowSum()
    for number in range(pieces):
        for batch in pa.Table.from_pylist(rows[number::pieces], schema=SCHEMA).to_batches():
            found.add(batch)
    assert found.rows == len(rows)
    return found.hexdigest()


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 3))
def test_order_and_pieces_do_not_matter(rows: list[dict[str, object]], random: object, pieces: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert total(shuffled, pieces) == total(rows)


@given(ROWS, ROWS)
def test_other_rows_have_another_sum(one: list[dict[str, object]], other: list[dict[str, object]]) -> None:
    same = sorted(map(repr, one)) == sorted(map(repr, other))
    assert (total(one) == total(other)) == same


def test_a_column_that_rows_lack_is_one_without_a_value() -> None:
    rows = pa.table({"line": [1, 2]}).to_batches()[0]
    found = RowSum()
    found.add(rows)
    assert found.hexdigest() == total([{"line": 1}, {"line": 2}])
