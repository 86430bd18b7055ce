"""A series keeps its name, whoever else turns up under the same symbol."""

from hypothesis import given
from hypothesis import strategies as st

from crypto_ml.forecasting.series import series_names

COINS = st.lists(
    st.tuples(st.sampled_from(["BTM", "BTC"]), st.sampled_from([None, "bitmark", "bytom", "bitcoin"])), unique=True
)
KNOWN = st.dictionaries(st.sampled_from(["BTM", "BTC"]), st.sampled_from(["bitmark", "bytom", "bitcoin"]))


def test_the_coin_that_is_known_keeps_the_symbol_even_if_it_comes_second() -> None:
    coins = [("BTM", "bytom"), ("BTM", "bitmark"), ("BTM", None), ("BTC", "bitcoin")]
    assert series_names(coins, {"BTM": "bitmark"}) == {
        ("BTM", "bytom"): "BTM:bytom",
        ("BTM", "bitmark"): "BTM",
        ("BTM", None): "BTM",
        ("BTC", "bitcoin"): "BTC",
    }


def test_where_none_is_known_the_first_to_appear_keeps_the_symbol() -> None:
    assert series_names([("BTM", "bytom"), ("BTM", "bitmark")], {}) == {
        ("BTM", "bytom"): "BTM",
        ("BTM", "bitmark"): "BTM:bitmark",
    }


@given(coins=COINS, known=KNOWN)
def test_two_slugs_never_share_a_name_and_a_name_is_the_symbol_or_carries_the_slug(
    coins: list[tuple[str, str | None]], known: dict[str, str]
) -> None:
    names = series_names(coins, known)
    assert set(names) == set(coins)
    owners: dict[str, set[str]] = {}
    for (symbol, slug), name in names.items():
        assert name in {symbol, f"{symbol}:{slug}"}
        if slug is not None:
            owners.setdefault(name, set()).add(slug)
            assert (name == symbol) or symbol in known or any(s == symbol and c not in (None, slug) for s, c in coins)
            if known.get(symbol) == slug:
                assert name == symbol
        else:
            assert name == symbol
    assert all(len(slugs) == 1 for slugs in owners.values())


@given(coins=COINS, known=KNOWN)
def test_names_stay_once_the_history_knows_them(coins: list[tuple[str, str | None]], known: dict[str, str]) -> None:
    names = series_names(coins, known)
    learnt = known | {name: slug for (_, slug), name in names.items() if slug is not None and ":" not in name}
    assert series_names(reversed(coins), learnt) == names
