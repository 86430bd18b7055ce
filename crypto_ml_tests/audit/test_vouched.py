"""Objects are held against the records that vouch for them, and what nothing vouches for is named."""

from datetime import UTC, datetime

from crypto_ml.stages.evidence_chain import extend
from crypto_ml_tests.audit.verified_site import Site
from crypto_ml_tests.dropbox.site import until

WHEREVER = {
    "raw/uploads/": "changed",
    "raw/cleaned/00000003/": "changed",
    "raw/appends/": "changed",
    "market_history/part": "changed",
    "market_history/_delta_log/0": "changed",
    "models/bundles/": "changed",
    "predictions/first_preds": "published",
    "predictions/second_rejected": "published",
    "receipts/deliveries/": "changed",
    "receipts/answered/": "changed",
}


def test_other_bytes_are_noticed_wherever_they_are_and_so_is_what_is_gone(site: Site) -> None:
    keys = {[one.key for one in site.store.list(prefix) if one.size][-1]: kind for prefix, kind in WHEREVER.items()}
    for key in keys:
        content = site.store.read(key)
        site.store.replace(key, content[:-1] + bytes([content[-1] ^ 1]))
    found = site.kinds(anew=False)
    assert {key: found[key] for key in keys} == keys
    site.delete(*keys)
    found = site.kinds(anew=False)
    assert {key: found[key] for key in keys} == {key: kind.replace("changed", "missing") for key, kind in keys.items()}


def test_what_nothing_vouches_for_is_noticed(site: Site) -> None:
    commit = "market_history/_delta_log/00000000000000000009.json"
    checkpoint = "market_history/_delta_log/00000000000000000002.checkpoint.parquet"
    for key in (commit, checkpoint, "predictions/rumour_preds.csv", "forecasts/2031-01-01.csv"):
        site.store.create(key, b"{}")
    site.store.replace("predictions/rumour.json", b"{}")  # of no answer, any number
    written = site.store.head("predictions/rumour.json")
    assert written is not None

    def one_came_later() -> bool:  # S3 has whole seconds
        site.store.replace("receipts/claims/later.json", b"{}")
        later = site.store.head("receipts/claims/later.json")
        return later is not None and later.last_modified > written.last_modified

    until(one_came_later, "no later record")
    assert site.kinds(anew=False) == {}
    extend(site.store, datetime.now(UTC), everything=True)
    assert set(site.kinds(anew=False).values()) == {"extra"}
    extra = {commit, checkpoint, "predictions/rumour_preds.csv", "forecasts/2031-01-01.csv"}
    assert set(site.kinds(anew=False)) == extra
