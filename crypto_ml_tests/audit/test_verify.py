"""The whole record is held against its chain: whole after any work; the command says what is wrong, and since when."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner, Result

from crypto_ml.audit.verified import State
from crypto_ml.audit.verify import verify
from crypto_ml.cli import main
from crypto_ml.stages.evidence_chain import extend
from crypto_ml.storage.objects import ObjectStore
from crypto_ml_tests.audit.verified_site import AT_ONCE, Site
from crypto_ml_tests.forecasting.markets import market
from crypto_ml_tests.stages.road import upload


def test_work_of_every_kind_is_whole_and_what_was_verified_is_not_read_again(store: ObjectStore) -> None:
    site = Site.made(store)  # on which nothing was ever put back, and so written again
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


def test_two_who_extend_at_once_take_each_record_in_once(site: Site) -> None:
    site.road.drop(fourth=upload(market({"BTC": 3})))
    site.road.answer_new()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: extend(site.store, datetime.now(UTC), everything=True), range(4)))
    named = [record.key for link in site.links()[5:] for record in link.records]
    assert len(named) == len(set(named)) >= 6
    assert site.look() == []


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


def test_the_document_names_a_test_for_each_row_of_who_could_change_what() -> None:
    document = (Path(__file__).resolve().parents[2] / "docs" / "evidence.md").read_text("utf-8")
    table = document.partition("## Who could change what")[2].partition("## Witnesses")[0]
    named = set(re.findall(r"`(test_\w+)`", table))
    assert len(named) > 12
    written = "".join(path.read_text("utf-8") for path in Path(__file__).resolve().parents[1].rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in written} == set()
