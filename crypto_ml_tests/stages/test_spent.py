"""Time is counted once, for the innermost part, and only where somebody asked for it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.stages.spent import Spent, part

Tree = tuple[str, list["Tree"]]
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.tuples(st.sampled_from("abc"), st.just([])),
    lambda inner: st.tuples(st.sampled_from("abc"), st.lists(inner, max_size=3)),
    max_leaves=12,
)


@given(tree=TREES)
def test_every_second_counts_for_exactly_one_part(tree: Tree) -> None:
    ticks: list[float] = []

    def clock() -> float:
        ticks.append(ticks[-1] + len(ticks) if ticks else 0.0)
        return ticks[-1]

    def walk(tree: Tree) -> None:
        with part(tree[0]):
            for inner in tree[1]:
                walk(inner)

    spent = Spent(clock)
    with spent.counted("whole"):
        walk(tree)
    assert sum(spent.seconds.values()) == sum(later - earlier for earlier, later in pairwise(ticks))
    assert set(spent.seconds) == {"whole", *names(tree)}


def names(tree: Tree) -> set[str]:
    return {tree[0]}.union(*map(names, tree[1]))


def test_where_nobody_asked_nothing_is_counted() -> None:
    spent = Spent()
    with spent.counted("asked"):
        pass
    before = dict(spent.seconds)
    with part("not asked"):
        pass
    assert spent.seconds == before
