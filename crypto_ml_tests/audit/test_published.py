"""Where answers are published stands what the newest of them published, and beside it what was retracted."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from crypto_ml.audit.verify import verify
from crypto_ml.stages.retraction import Decision, retract
from crypto_ml.storage.objects import ObjectStore, connect
from crypto_ml_tests.audit.verified_site import AT_ONCE, Site
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import Road, upload


def test_an_older_answer_put_back_in_the_place_of_the_newest_is_noticed(store: ObjectStore) -> None:
    site = Site.made(store)  # an upload that is put back is one more to be answered
    site.road.store.replace("uploads/second.csv", upload(market({"BTC": 13})[-1:]))
    site.road.answer_new()
    site.extend()
    assert site.look() == []
    rows = market({"BTC": 12, "NEW": 14})
    older = Road(connect(site.store.bucket, f"tests/{uuid4().hex}"), now=site.road.now)
    older.drop(second=upload(rows[rows["date"] == "2018-01-11"]))
    older.answer_new()
    names = ("predictions/second_preds.csv", "predictions/second_report.json")
    before = {name: site.state.stood[name][0] for name in names}
    assert set(before) == set(names)
    for name in names:
        site.store.replace(name, older.store.read(name))
    assert site.kinds(anew=False) == dict.fromkeys(names, "published")


def test_an_older_forecast_put_back_in_the_place_of_the_newest_is_noticed(site: Site) -> None:
    forecast_now(site.road)
    older = site.store.fetch("forecasts/latest.csv")
    site.road.drop(newest=upload(market({"BTC": 14, "NEW": 14})))
    site.road.answer_new()
    forecast_now(site.road)
    site.extend()
    seen, newest = verify(site.store, tolerance=AT_ONCE), site.store.fetch("forecasts/latest.csv")
    assert seen.findings == ()
    site.store.replace("forecasts/latest.csv", older[1], metadata=older[0].metadata)
    later = datetime.now(UTC) + timedelta(hours=3)
    for state, now in ((seen.state, None), (None, later)):
        (found,) = verify(site.store, state=state, tolerance=AT_ONCE, now=now).findings
        assert (found.key, found.kind) == ("forecasts/latest.csv", "published")
    # one that its run may still be publishing has not taken the place of the older one yet
    assert verify(site.store, tolerance=AT_ONCE).findings == ()
    site.store.replace("forecasts/latest.csv", newest[1], metadata=newest[0].metadata)
    assert verify(site.store, tolerance=AT_ONCE, now=later).findings == ()


def test_a_notice_of_a_retraction_that_is_gone_or_that_nobody_decided_is_noticed(site: Site) -> None:
    notice, later = "predictions/third_retracted.json", datetime.now(UTC) + timedelta(hours=3)
    retract(Decision("uploads/third.csv", "ann", "wrong prices"), site.store, site.road.history, datetime.now(UTC))
    site.extend()
    assert verify(site.store, tolerance=AT_ONCE, now=later).findings == ()
    content = site.store.read(notice)
    site.delete(notice)
    site.store.replace("predictions/first_retracted.json", content)
    found = {one.key: one.what for one in verify(site.store, tolerance=AT_ONCE, now=later).findings}
    assert set(found) == {notice, "predictions/first_retracted.json"}
    assert "receipts/retractions/00000004.0.json" in found[notice]
