"""The record is held against its chain: whole after any work, and each way of changing it is named."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from crypto_ml.audit import held
from crypto_ml.audit.tolerance import Tolerance
from crypto_ml.audit.verified import Finding, State, Verified
from crypto_ml.audit.verify import verify
from crypto_ml.cli import main
from crypto_ml.digest import sha256_of
from crypto_ml.ledger.chain import EvidenceChain, record_of
from crypto_ml.ledger.formats.chain_v1 import Link, Record
from crypto_ml.ledger.receipts import SEAL, sealed
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.stages.retraction import Decision, retract
from crypto_ml.storage.objects import ObjectStore, StoredObject, connect, rendered
from crypto_ml_tests.dropbox.site import until
from crypto_ml_tests.forecasting.markets import market, model
from crypto_ml_tests.stages.forecasts import forecast_now
from crypto_ml_tests.stages.road import Road, upload

AT_ONCE = Tolerance(late=timedelta(0))


@dataclass
class Site:
    """A deployment with four deliveries, a promotion and five links, and what was verified of it."""

    road: Road
    before: Verified
    objects: dict[str, tuple[StoredObject, bytes]]

    @property
    def store(self) -> ObjectStore:
        return self.road.store

    @property
    def state(self) -> State:
        assert self.before.state is not None
        return self.before.state

    def extend(self) -> None:
        extend(self.store, datetime.now(UTC))

    def look(self, *, anew: bool = True) -> list[Finding]:
        """What is wrong: read anew, or with what was verified before."""
        return list(verify(self.store, state=None if anew else self.state, tolerance=AT_ONCE).findings)

    def kinds(self, *, anew: bool = True) -> dict[str, str]:
        return {found.key: found.kind for found in self.look(anew=anew)}

    def edit(self, key: str, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
        """Change a record, and seal it again where it has a seal."""
        document = self.store.read_json(key)
        change(document)
        self.store.replace(key, rendered(sealed(document) if SEAL in document else document))

    def receipt(self, name: str) -> str:
        """The key of the receipt of an answer that stands."""
        return str(self.road.report(name)["receipt"])

    def links(self) -> list[Link]:
        chain = EvidenceChain(self.store)
        return [chain.parsed(found, content).link for found, content in chain.contents(chain.listed())]

    def forge(self, links: list[Link]) -> None:
        """Put links in the place of those there are, each naming the one before it."""
        chain, previous = EvidenceChain(self.store), None
        for found in chain.listed():
            self.delete(found.key)
        for number, link in enumerate(links, 1):
            forged = replace(link, number=number, previous=previous)
            chain.append(forged)
            previous = chain.sha256_of(forged)

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.store.client.delete_object(Bucket=self.store.bucket, Key=self.store.physical(key))

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Whatever is done within is undone: the bytes and the metadata of every object."""
        before = {found.key: found for found in self.store.list()}
        try:
            yield
        finally:
            after = {found.key: found for found in self.store.list()}
            self.delete(*(after.keys() - before.keys()))
            for key in [key for key, found in before.items() if after.get(key) != found]:
                stored, content = self.objects[key]
                self.store.replace(key, content, metadata=stored.metadata)


@pytest.fixture(scope="module")
def whole_site(bucket: str) -> Site:
    store = connect(bucket, f"tests/{uuid4().hex}")
    road = Road(store, now=datetime.now(UTC))
    rows = market({"BTC": 12, "NEW": 14})
    road.drop(first=upload(rows[rows["date"] < "2018-01-10"]), bad=b"not,a,market\n")
    road.answer_new()
    extend(store, road.now)
    for day in ("2018-01-10", "2018-01-11"):
        road.drop(second=upload(rows[rows["date"] == day]) + b"BTC,2018-02-01,-1,1,1,1,1\n")
        road.answer_new()
        extend(store, datetime.now(UTC))
    other = model("change", label="other")
    road.registry.add(other)
    road.registry.promote(other.version, by="ann", why="better", at=datetime.now(UTC))
    road.drop(third=upload(rows[rows["date"] == "2018-01-12"]))
    road.answer_new()
    extend(store, datetime.now(UTC))
    extend(store, datetime.now(UTC), everything=True)
    return Site(road, verify(store, tolerance=AT_ONCE), {found.key: store.fetch(found.key) for found in store.list()})


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    with whole_site.put_back():
        yield whole_site


def test_work_of_every_kind_is_whole_and_what_was_verified_is_not_read_again(site: Site) -> None:
    assert site.before.findings == ()
    assert (site.before.links, site.before.waiting) == (5, 0)
    (note,) = site.before.notes
    assert (site.before.versions_compared, "the bucket keeps none" in note) == (False, True)
    everything = {found.key for found in site.store.list() if not found.key.startswith(("uploads/", "cache/"))}
    seen = {*site.state.records, *site.state.objects, *site.state.stood}
    assert {key.partition("/")[0] for key in everything - seen} <= {"receipts", "prediction_log"}
    assert all(key.startswith(("receipts/chain/", "prediction_log/")) for key in everything - seen)
    again = verify(site.store, state=State.read(site.state.rendered()), tolerance=AT_ONCE)
    assert (again.findings, again.records, again.objects) == ((), 0, 0)
    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    assert verify(site.store, state=site.state, tolerance=AT_ONCE).waiting > 0
    site.extend()
    later = verify(site.store, state=site.state, tolerance=AT_ONCE)
    assert later.findings == ()
    assert 0 < later.records < 10 < later.known


def test_a_backdated_answer_is_noticed_although_receipt_seal_and_report_agree(site: Site) -> None:
    receipt = site.receipt("third")

    def backdate(document: dict) -> None:  # type: ignore[type-arg]
        document["timings"]["answered_at"] = document["timings"]["received_at"] = "2025-01-01T00:00:00+00:00"

    site.edit(receipt, backdate)
    site.edit("predictions/third_report.json", backdate)
    assert site.kinds()[receipt] == site.kinds(anew=False)[receipt] == "changed"
    (found,) = [one for one in site.look() if one.key == receipt]
    assert (found.link, found.since) == (4, site.links()[3].at)


def test_another_image_and_run_in_a_receipt_and_its_report_is_noticed(site: Site) -> None:
    receipt = site.receipt("third")

    def change(document: dict) -> None:  # type: ignore[type-arg]
        document["run_id"] = "another"
        if "software" in document:
            document["software"]["image"] = "another"

    site.edit(receipt, change)
    site.edit("predictions/third_report.json", change)
    assert site.kinds(anew=False) == {receipt: "changed", "predictions/third_report.json": "published"}


def test_another_approver_in_the_pointer_and_every_receipt_is_noticed(site: Site) -> None:
    pointer, receipt = "models/champion/dev/00000002.json", site.receipt("third")
    site.edit(pointer, lambda document: document.update(by="eve"))
    site.edit(receipt, lambda document: document["champion"].update(by="eve"))
    found = site.kinds(anew=False)
    assert (found[pointer], found[receipt]) == ("changed", "changed")


def test_a_last_pointer_entry_that_was_deleted_and_decided_again_is_noticed(site: Site) -> None:
    pointer = "models/champion/dev/00000002.json"
    version = site.store.read_json(pointer)["version"]
    site.delete(pointer)
    assert site.kinds(anew=False)[pointer] == "missing"
    site.road.registry.promote(version, by="eve", why="mine", at=datetime.now(UTC))
    assert site.kinds(anew=False)[pointer] == "changed"
    site.extend()
    (found,) = [one for one in site.look() if one.key == pointer]
    assert (found.key, found.kind, found.link) == (pointer, "changed", 4)
    assert "between link 4 and link 6" in found.what


def test_deleted_receipts_are_noticed_before_they_are_in_a_link_too(site: Site) -> None:
    receipt = site.receipt("third")
    site.delete(receipt)
    assert site.kinds(anew=False) == {receipt: "missing"}
    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    site.delete(site.receipt("fourth"))
    site.extend()
    found = {one.key: one.what for one in site.look(anew=False)}
    assert {receipt, "receipts/answered/00000005.json"} <= set(found)
    assert "there is no receipt" in found["receipts/answered/00000005.json"]


def test_a_record_that_claims_another_time_than_s3_says_is_noticed_when_it_comes(site: Site) -> None:
    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    receipt = site.receipt("fourth")
    site.edit(receipt, lambda document: document["timings"].update(answered_at="2026-01-01T00:00:00+00:00"))
    site.extend()
    found = {one.key: one for one in site.look(anew=False)}
    assert (found[receipt].kind, found[receipt].link) == ("backdated", 6)


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


def test_an_older_answer_put_back_in_the_place_of_the_newest_is_noticed(site: Site) -> None:
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


def test_the_command_says_what_is_wrong_and_since_when_and_remembers_what_was_right(site: Site, tmp_path: Path) -> None:
    environment = {"CRYPTO_ML_BUCKET": site.store.bucket, "CRYPTO_ML_PREFIX": site.store.prefix, "HOME": str(tmp_path)}

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["verify", *arguments], env=environment)

    assert (command().stdout, command("--since", "2026-01-01").exit_code) == ("WHOLE\n", 0)
    everything = json.loads(command("--json", "--full").stdout)["records"]
    assert json.loads(command("--json").stdout)["records"] < everything == site.before.known
    key = "receipts/deliveries/00000001.json"
    site.store.replace(key, b"{}")
    wrong = command()
    assert wrong.exit_code == 1
    since = f"link 1 of {site.links()[0].at}"
    assert wrong.stdout.startswith(f"changed: {key}: ")
    assert since in wrong.stdout
    assert since in wrong.stderr.splitlines()[-1]
    (found,) = json.loads(command("--json").stdout)["findings"]
    assert (found["kind"], found["key"], found["link"]) == ("changed", key, 1)
    assert command("--since", "2").exit_code == 0
    assert "no witness is set" in command("--witness").stderr
    assert command("--restored").exit_code == 1


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


def test_the_document_names_a_test_for_each_row_of_who_could_change_what() -> None:
    document = (Path(__file__).resolve().parents[2] / "docs" / "evidence.md").read_text("utf-8")
    table = document.partition("## Who could change what")[2].partition("## Witnesses")[0]
    named = set(re.findall(r"`(test_\w+)`", table))
    assert len(named) > 12
    written = "".join(path.read_text("utf-8") for path in Path(__file__).resolve().parents[1].rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in written} == set()


def test_links_that_are_swapped_deleted_truncated_or_changed_are_noticed(site: Site) -> None:
    chain = EvidenceChain(site.store)
    keys = [found.key for found in chain.listed()]
    contents = [site.store.read(key) for key in keys]

    def chained(*order: int) -> set[str]:
        for key in keys:
            site.delete(key)
        for key, number in zip(keys, order, strict=False):
            site.store.replace(key, contents[number])
        return {found.kind for found in site.look()}

    assert chained(0, 2, 1, 3, 4) == {"chain"}
    site.delete(*keys)
    for number in (0, 1, 3, 4):
        site.store.replace(keys[number], contents[number])
    assert "chain" in {found.kind for found in site.look()}
    chained(0, 1, 2, 3, 4)
    site.store.replace(keys[1], contents[1].replace(b'"deliveries": 2', b'"deliveries": 3'))
    assert {(found.kind, found.key) for found in site.look()} == {("chain", keys[1]), ("chain", keys[2])}
    # of a chain whose end is gone, the rest is right: whoever verified it before, or a witness, knows of the end
    assert chained(0, 1, 2) == set()
    assert [one.what for one in site.look(anew=False)] == ["link 5 was verified before, and is gone"]


def test_a_record_that_was_left_out_of_a_chain_made_anew_is_extra(site: Site) -> None:
    left_out = "receipts/answered/00000001.json"
    links = site.links()
    links[0] = replace(links[0], records=[one for one in links[0].records if one.key != left_out])
    site.forge(links)
    assert site.kinds() == {left_out: "extra"}
    assert {found.kind for found in site.look(anew=False)} >= {"chain", "extra"}


def test_a_chain_made_anew_that_says_it_is_old_is_known_by_when_s3_says_it_was_written(site: Site) -> None:
    site.forge([replace(link, at="2026-01-01T00:00:00+00:00") for link in site.links()])
    assert {found.kind for found in site.look()} == {"chain"}
    assert all("was written only" in found.what for found in site.look())


def test_a_forged_link_excuses_no_change_and_no_backdating(site: Site) -> None:
    receipt, pointer = site.receipt("third"), "models/champion/dev/00000002.json"
    chain = EvidenceChain(site.store)

    def link(*records: Record, taken_in: bool = False) -> None:
        head = chain.head()
        assert head
        now = datetime.now(UTC).isoformat()
        forged = Link(head.number + 1, head.sha256, now, records, taken_in=taken_in, deliveries=4)
        assert chain.append(forged)

    def record(key: str, **said: bool) -> Record:
        found, content = site.store.fetch(key)
        return replace(record_of(found, content), **said)  # type: ignore[arg-type]

    link(record(receipt, open=True), record("receipts/answered/00000004.json", open=True))
    site.edit(receipt, lambda document: document["timings"].update(answered_at=datetime.now(UTC).isoformat()))
    site.edit(pointer, lambda document: document.update(by="eve"))
    site.store.create_json("receipts/retractions/9.0.json", sealed({"at": "2024-01-01T00:00:00+00:00"}))
    link(record(receipt, open=True), record(pointer), record("receipts/retractions/9.0.json"), taken_in=True)
    kinds = {(found.kind, found.key) for found in site.look()}
    assert kinds >= {
        ("chain", receipt), ("changed", receipt), ("changed", pointer), ("chain", "receipts/answered/00000004.json"),
        ("chain", chain.key(7)), ("backdated", "receipts/retractions/9.0.json"),
    }  # fmt: skip


def test_a_receipt_of_a_delivery_that_never_was_is_noticed_and_one_that_no_outcome_names_is_told(site: Site) -> None:
    forged = site.store.read_json(site.receipt("third"))
    keys = []
    for delivery in ("00000099", "00000004"):
        forged["inputs"] |= {"delivery": delivery, "recovery": "cumulative"}
        inputs = sha256_of(json.dumps(forged["inputs"], sort_keys=True).encode())
        forged["answer_id"] = f"{delivery}-{inputs[:16]}"
        keys.append(f"receipts/answers/{forged['answer_id']}.json")
        site.store.create_json(keys[-1], sealed(forged))
    site.extend()
    found = verify(site.store, tolerance=AT_ONCE)
    assert ("extra", keys[0]) in {(one.kind, one.key) for one in found.findings}
    assert any("1 receipt that no outcome names" in note and keys[1] in note for note in found.notes)


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


def test_what_was_given_up_may_be_answered_and_nothing_else_may_change(site: Site) -> None:
    key = "receipts/answered/00000005.json"
    site.road.drop(fourth=upload(market({"BTC": 3})))
    (delivery,) = site.road.assign()
    site.store.create_json(
        key, {"uploads/fourth.csv": {"outcome": "REJECTED", "answer_id": None, "reason": "", "retry": 0}}
    )
    site.extend()
    assert site.look() == []
    site.road.answer(delivery.number)
    assert site.look() == []  # not in a link yet
    site.extend()
    assert site.look() == []
    site.edit(key, lambda document: document["uploads/fourth.csv"].update(outcome="SKIPPED"))
    assert site.kinds()[key] == "changed"


def test_bytes_written_again_are_told_and_no_fault(site: Site) -> None:
    key = "receipts/deliveries/00000001.json"
    site.store.replace(key, site.store.read(key))
    found = verify(site.store, tolerance=AT_ONCE)
    assert found.whole
    assert "written again" in found.notes[0]
    # and taken in again, long after it says that it was written
    stored, content = site.store.fetch(key)
    head, now = EvidenceChain(site.store).head(), datetime.now(UTC)
    assert head
    again = replace(record_of(stored, content), written=(now + timedelta(days=1)).isoformat(timespec="seconds"))
    EvidenceChain(site.store).append(Link(head.number + 1, head.sha256, now.isoformat(), [again], deliveries=4))
    taken_in = verify(site.store, tolerance=AT_ONCE)
    assert taken_in.findings == ()
    assert verify(site.store, state=taken_in.state, tolerance=AT_ONCE).findings == ()


def test_two_who_extend_at_once_take_each_record_in_once(site: Site) -> None:
    from concurrent.futures import ThreadPoolExecutor

    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: extend(site.store, datetime.now(UTC), everything=True), range(4)))
    named = [record.key for link in site.links()[5:] for record in link.records]
    assert len(named) == len(set(named)) >= 6
    assert site.look() == []


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


def traced(site: Site, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["trace", *arguments])


@pytest.fixture
def named(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What names a row of the third upload for the command, which is led to the site."""
    monkeypatch.setenv("CRYPTO_ML_BUCKET", site.store.bucket)
    monkeypatch.setenv("CRYPTO_ML_PREFIX", site.store.prefix)
    return [str(site.road.predictions("third")["prediction_id"].iloc[0])]


def marked(done: Result) -> dict[str, set[str]]:
    """By what the lines of a trace are held, by the first word of each."""
    marks: dict[str, set[str]] = {}
    for line in done.stdout.partition("\n\n")[0].splitlines():
        marks.setdefault(line[9:].split()[0], set()).add(line[:9].strip())
    return marks


def test_every_line_of_a_trace_says_what_holds_it(site: Site, named: list[str]) -> None:
    done = traced(site, *named)
    assert done.exit_code == 0, done.output
    assert {mark for marks in marked(done).values() for mark in marks} == {"chain"}
    assert "the hash of the rows it was made from" in done.stdout
    site.road.drop(fresh=upload(market({"BTC": 3})))
    site.road.answer_new()
    fresh = traced(site, "predictions/fresh_preds.csv")
    assert fresh.exit_code == 0, fresh.output
    assert {key: marked(fresh)[key] for key in ("answer", "model", "approval")} == {
        "answer": {"nothing"}, "model": {"receipt"}, "approval": {"chain"},
    }  # fmt: skip


def test_a_trace_shows_no_backdated_answer_other_image_or_run_as_true(site: Site, named: list[str]) -> None:
    def change(document: dict) -> None:  # type: ignore[type-arg]
        document["timings"]["answered_at"] = "2025-01-01T00:00:00+00:00"
        if "software" in document:
            document["run_id"], document["software"]["image"] = "another", "another"

    site.edit(site.receipt("third"), change)
    site.edit("predictions/third_report.json", change)
    done = traced(site, *named)
    assert done.exit_code == 1
    marks = marked(done)
    assert [marks[word] for word in ("answer", "delivery", "image", "run")] == [{"ALTERED"}] * 4
    assert marks["kept"] == {"nothing"}
    assert "link 4 of " in done.stderr


def test_a_trace_shows_no_other_approver_as_true(site: Site, named: list[str]) -> None:
    pointer, receipt = "models/champion/dev/00000002.json", site.receipt("third")
    site.edit(pointer, lambda document: document.update(by="eve"))
    site.edit(receipt, lambda document: document["champion"].update(by="eve"))
    done = traced(site, *named)
    assert done.exit_code == 1
    assert marked(done)["approval"] == {"ALTERED"}
    site.edit(site.receipt("third"), lambda document: document["champion"].update(by="ann"))
    assert "approval" in json.loads(traced(site, *named, "--json").stdout.partition("\nError")[0])["verified"]


def test_a_trace_takes_no_later_link_for_the_first_that_named_a_record(
    site: Site, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LATE", timedelta(0))  # as if an hour had passed
    site.edit(site.receipt("third"), lambda said: said["timings"].update(answered_at=datetime.now(UTC).isoformat()))
    site.extend()
    done = traced(site, *named)
    assert done.exit_code == 1
    assert marked(done)["answer"] == {"ALTERED"}
    assert "link 4 of " in done.stderr


@pytest.mark.parametrize("what", ["accepted", "history", "upload", "predictions"])
def test_a_trace_shows_no_altered_rows_bytes_or_numbers_as_true(site: Site, named: list[str], what: str) -> None:
    receipt = site.store.read_json(site.receipt("third"))
    if what == "accepted":
        # the rows of another delivery, well-formed and other numbers
        other = site.store.read_json(site.receipt("second"))["evidence"]["accepted"]["key"]
        key, content = receipt["evidence"]["accepted"]["key"], site.store.read(other)
    elif what == "history":
        record = next(found.key for found in site.store.list("raw/appends/00000001-"))
        key = next(iter(site.store.read_json(record)["objects"]))
        content = site.store.read(key) + b" "
    elif what == "upload":
        key = f"raw/uploads/{receipt['inputs']['upload_sha256']}"
        content = site.store.read(key).replace(b"1", b"2")
    else:
        key = "predictions/third_preds.csv"
        content = site.store.read(key).replace(b"predicted", b"Predicted")
    site.store.replace(key, content)
    done = traced(site, *named)
    assert done.exit_code == 1
    assert ("ALTERED" in done.output and key in done.output) or "it may have been refused" in done.output
