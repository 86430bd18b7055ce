"""The templates of deploy/aws/ are of one piece, and are made for real in an account of this machine."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster_shared.serdes import serialize_value

from crypto_ml.ledger import layout
from crypto_ml_tests.deploy.account import Account, environment
from scripts.deploy_aws import (
    FOLDER,
    STACKS,
    NotDeployed,
    deploy,
    given_by,
    parameters_of,
    refuse_unknown,
    stacks_to_deploy,
    template_of,
)
from scripts.release_notes import notes

ROOT = FOLDER.parents[1]
ENVIRONMENTS = ("dev", "preprod", "prod")
IMAGE = f"registry/crypto-ml@sha256:{'0' * 64}"
OURS = {"Mail": "nobody@example.org", "ServeTokens": f"charts read {'0' * 64}", "Image": IMAGE, "ServeImage": IMAGE}
APPLIED = ["network", "storage", "roles", "platform"]
"""What the emulator can make; of operations it lacks scaling and budgets, of a network the NAT gateway."""

MOST_OF_AN_OVERRIDE = 8_192
"""Characters that ECS takes as overrides of a task: the launcher puts the command of a run there, with Dagster's
instance."""


class Read(yaml.SafeLoader):  # type: ignore[misc]
    """A template whose functions are read as pairs of name and argument."""


def _function(loader: Any, tag: str, node: Any) -> Any:
    kinds = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    build = kinds.get(type(node), loader.construct_mapping)
    return {tag: build(node) if build == loader.construct_scalar else build(node, deep=True)}


Read.add_multi_constructor("!", _function)


def read(stack: str) -> Any:
    return Read(template_of(stack)).get_single_data()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with Account(tmp_path_factory.mktemp("account"), strict=False) as account, environment(account.environment):
        yield account


@pytest.mark.account
def test_every_environment_is_made_changed_and_left_as_it_was(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ENVIRONMENTS:
        made = deploy(name, {**OURS, "Emulator": "true", "Egress": "endpoints"}, APPLIED)
        assert made["Address"].startswith("http://")
        assert f"crypto-ml-{'dev' if name == 'dev' else 'live'}-" in made["Bucket"]
    capsys.readouterr()
    deploy("dev", {**OURS, "Emulator": "true", "Egress": "endpoints", "ServeUnrecorded": "false"}, APPLIED)
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == ["as it was", "as it was", "as it was", "changed"]
    services = account.client("ecs").describe_services(cluster="crypto-ml-dev", services=["dagster", "web", "serve"])
    assert [one["desiredCount"] for one in services["services"]] == [1, 1, 1]
    one = account.client("s3").get_bucket_versioning(Bucket=made["Bucket"])
    assert one["Status"] == "Enabled"


def test_what_a_template_asks_for_is_given_by_the_files_or_by_the_stacks_before_it_or_is_known_to_be_ones_own() -> None:
    for name in ENVIRONMENTS:
        refuse_unknown(given_by(name, OURS))
        known = {*given_by(name, OURS)}
        for stack in STACKS:
            template = read(stack)
            without = {key for key, one in template["Parameters"].items() if "Default" not in one}
            assert without <= known, (name, stack)
            known |= set(template["Outputs"])


def test_a_template_that_names_what_python_could_run_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for tag in ("python/object/apply:os.mkdir", "python/object/new:os.mkdir"):
        with pytest.raises(yaml.constructor.ConstructorError):
            parameters_of(f"Parameters: {{Given: !!{tag} [{made}]}}")
    assert parameters_of(f"Parameters: {{Given: !{tag} [{made}]}}") == {"Given"}
    assert not made.exists()


def test_a_misspelt_parameter_is_refused_before_anything_is_deployed() -> None:
    with pytest.raises(NotDeployed, match="no template has the parameter ServeToken"):
        refuse_unknown(given_by("dev", {"ServeToken": "x"}))


def test_who_names_a_network_gets_none() -> None:
    assert stacks_to_deploy({"VpcId": "vpc-1"}) == list(STACKS[1:])
    assert stacks_to_deploy({}) == list(STACKS)


def test_what_dagster_is_told_by_the_environment_stands_in_every_task_that_runs_it() -> None:
    wanted = set(re.findall(r"\{env: (\w+)\}", (FOLDER / "dagster.yaml").read_text(encoding="utf-8")))
    assert len(wanted) > 5
    tasks = {name: one for name, one in read("platform")["Resources"].items() if one["Type"].endswith("TaskDefinition")}
    of_dagster = 0
    for task in tasks.values():
        for container in task["Properties"]["ContainerDefinitions"]:
            names = {one["Name"] for one in container["Environment"]}
            if "DAGSTER_HOME" in names:
                of_dagster += 1
                assert wanted <= names | {one.get("Name") for one in container["Secrets"]}
    assert of_dagster == 4


def test_only_the_approver_is_given_the_pointer_and_only_the_trainer_is_handed_to_a_task() -> None:
    roles = {name: str(one) for name, one in read("roles")["Resources"].items()}
    assert [name for name, text in roles.items() if "models/champion" in text] == ["Approver"]
    assert [name for name, text in roles.items() if "iam:PassRole" in text] == ["Answerer"]
    passes = [one for one in statements("Answerer") if "iam:PassRole" in one["Action"]]
    assert [one["Resource"] for one in passes] == [[{"GetAtt": "Trainer.Arn"}, {"GetAtt": "Starter.Arn"}]]


def test_the_bucket_lets_nobody_remove_a_record_of_any_kind_and_whoever_verifies_see_its_versions() -> None:
    kinds = {said for name, said in vars(layout).items() if name.isupper() and str(said).startswith("receipts/")}
    assert len(kinds) > 15
    protected = {}
    for one in read("storage")["Resources"]["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]:
        statement = one["If"][-1] if "If" in one else one
        protected[statement["Sid"]] = set(re.findall(r"\$\{Prefix\}(receipts/[a-z]+/)", str(statement["Resource"])))
    assert protected["EvidenceIsNotRemoved"] == kinds
    assert protected["EvidenceIsWrittenOnce"] == kinds - {layout.ANSWERED}
    for role in ("Answerer", "Auditor"):
        assert "s3:ListBucketVersions" in [action for one in statements(role) for action in one["Action"]]


def statements(role: str) -> list[Any]:
    (policy,) = read("roles")["Resources"][role]["Properties"]["Policies"]
    found: list[Any] = policy["PolicyDocument"]["Statement"]
    return found


def test_the_command_of_a_heavy_run_fits_into_what_ecs_takes(tmp_path: Any) -> None:
    (tmp_path / "dagster.yaml").write_text((FOLDER / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    instance = serialize_value(InstanceRef.from_dir(str(tmp_path)))
    # beside it there are the run's id and where its code is, some 900 characters; quotes are escaped once more
    assert len(instance.replace('"', '\\"')) + 1_500 < MOST_OF_AN_OVERRIDE


def test_the_workflows_call_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").glob("*.yaml"):
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
        called = {word for found in re.findall(r"\bmake ((?:[a-z]+ ?)+)", text) for word in found.split()}
        assert called <= targets, path.name


def test_a_release_is_told_by_its_own_part_of_the_changelog() -> None:
    changes = "# Changes\n\n## 0.7.0\n\n### New\n- a\n\n## 0.6.0\n- b\n"
    assert notes("v0.7.0", changes) == "### New\n- a"
    assert notes("0.6.0", changes) == "- b"
    assert notes("v0.5.0", changes) is None
    assert notes("v0.6.0", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_the_parameters_of_every_template_are_used() -> None:
    for stack in STACKS:
        text = template_of(stack)
        body = text[text.index("\nResources:") :] + text[text.index("\nConditions:") : text.index("\nResources:")]
        assert not [name for name in parameters_of(text) if not re.search(rf"\b{name}\b", body)], stack
