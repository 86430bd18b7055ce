"""Deploys an environment to AWS: the stacks of deploy/aws/, one after the other, each given what those before it made.

    python -m scripts.deploy_aws dev --image REPOSITORY@sha256:… [--serve-image …] [--given FILE] [--set NAME=VALUE …]

What differs between environments stands in deploy/aws/parameters/ENVIRONMENT.json. Run again, it changes what has
changed and nothing else. How AWS is reached is the AWS SDK's own affair: variables, profile or role.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

FOLDER: Final = Path(__file__).resolve().parents[1] / "deploy" / "aws"
STACKS: Final = ("network", "storage", "roles", "platform", "operations")
STORES: Final = {"dev": "dev", "preprod": "live", "prod": "live"}
"""Which environments share a bucket: prod takes only models that preprod serves."""

UNCHANGED: Final = ("didn't contain changes", "No updates are to be performed")
LONGEST_START: Final = 900.0
"""Seconds that the task may take that sees to a first champion."""


class NotDeployed(Exception):  # noqa: N818 - reads as what happened
    """A stack or task that did not come to be; the sentence says what to look at."""


class _Template(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with CloudFormation's functions, which are read over: only parameters are of interest here. Like every
    SafeLoader it makes plain values alone, and refuses tags that name Python."""


_Template.add_multi_constructor("!", lambda _loader, _tag, _node: None)


def parameters_of(template: str) -> set[str]:
    """The parameters that a template declares."""
    return set(_Template(template).get_single_data().get("Parameters", {}))


def stack_name(stack: str, environment: str) -> str:
    """The name of an environment's stack; the storage is shared by those of one store."""
    return f"crypto-ml-{stack}-{STORES[environment] if stack == 'storage' else environment}"


def given_by(environment: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """What is known before anything is deployed: the file of the environment, and what was chosen instead."""
    path = FOLDER / "parameters" / f"{environment}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {**kept, "Environment": environment, "Store": STORES[environment], **chosen}


def stacks_to_deploy(given: Mapping[str, str], only: Sequence[str] = ()) -> list[str]:
    """The stacks in their order; a network is made where none is named."""
    return [one for one in STACKS if (not only or one in only) and not (one == "network" and given.get("VpcId"))]


def refuse_unknown(given: Mapping[str, str]) -> None:
    """Raises NotDeployed for a parameter that no template has: it is misspelt."""
    known = {name for one in STACKS for name in parameters_of(template_of(one))} | {"MakerRole", "Store"}
    if wrong := sorted(set(given) - known):
        raise NotDeployed(f"no template has the parameter {', '.join(wrong)}: correct its name, or leave it out")


def template_of(stack: str) -> str:
    """The text of a stack's template."""
    return (FOLDER / f"{stack}.yaml").read_text(encoding="utf-8")


def deploy(environment: str, chosen: Mapping[str, str], only: Sequence[str] = ()) -> dict[str, str]:
    """Make or change the stacks of an environment; returns what they gave. Raises NotDeployed, ClientError."""
    given = given_by(environment, chosen)
    refuse_unknown(given)
    cloudformation = boto3.client("cloudformation")
    for stack in STACKS:
        if stack in stacks_to_deploy(given, only):
            body = template_of(stack)
            values = {name: given[name] for name in parameters_of(body) if name in given}
            made = _changed(
                cloudformation,
                stack_name(stack, environment),
                body,
                values,
                environment=environment,
                role=given.get("MakerRole"),
            )
        else:
            made = _outputs(cloudformation, stack_name(stack, environment))
        given = {**made, **given} if stack == "network" else {**given, **made}
    return given


def outputs(environment: str) -> dict[str, str]:
    """What the stacks of an environment gave when they were deployed."""
    cloudformation = boto3.client("cloudformation")
    return {
        name: value for one in STACKS for name, value in _outputs(cloudformation, stack_name(one, environment)).items()
    }


def _changed(
    cloudformation: Any, name: str, body: str, values: Mapping[str, str], *, environment: str, role: str | None
) -> dict[str, str]:
    there = _status(cloudformation, name)
    if there == "REVIEW_IN_PROGRESS":
        there = None
    if there == "ROLLBACK_COMPLETE":
        raise NotDeployed(
            f"{name} was never made whole ({there}): look at its events, delete the stack, and deploy again"
        )
    kind = "UPDATE" if there else "CREATE"
    change = f"deploy-{int(time.time())}"
    cloudformation.create_change_set(
        StackName=name,
        ChangeSetName=change,
        ChangeSetType=kind,
        TemplateBody=body,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(values.items())],
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=[{"Key": "crypto-ml", "Value": environment}],
        **({"RoleARN": role} if role else {}),
    )
    try:
        cloudformation.get_waiter("change_set_create_complete").wait(
            StackName=name, ChangeSetName=change, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
        )
    except WaiterError as error:
        reason = str(cloudformation.describe_change_set(StackName=name, ChangeSetName=change).get("StatusReason", ""))
        if any(words in reason for words in UNCHANGED):
            cloudformation.delete_change_set(StackName=name, ChangeSetName=change)
            _say(f"{name}: as it was")
            return _outputs(cloudformation, name)
        raise NotDeployed(f"{name}: the change was refused: {reason}") from error
    cloudformation.execute_change_set(StackName=name, ChangeSetName=change)
    try:
        cloudformation.get_waiter(f"stack_{kind.lower()}_complete").wait(
            StackName=name, WaiterConfig={"Delay": 1 if kind == "UPDATE" else 2, "MaxAttempts": 1800}
        )
    except WaiterError as error:
        raise NotDeployed(f"{name}: {_first_failure(cloudformation, name)}") from error
    _say(f"{name}: {'changed' if kind == 'UPDATE' else 'made'}")
    return _outputs(cloudformation, name)


def _status(cloudformation: Any, name: str) -> str | None:
    try:
        return str(cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def _outputs(cloudformation: Any, name: str) -> dict[str, str]:
    if _status(cloudformation, name) is None:
        return {}
    found = cloudformation.describe_stacks(StackName=name)["Stacks"][0].get("Outputs", [])
    return {one["OutputKey"]: one["OutputValue"] for one in found}


def _first_failure(cloudformation: Any, name: str) -> str:
    """Why a stack was not made: what failed first, which made the rest fail."""
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [one for one in events if one["ResourceStatus"].endswith("_FAILED")]
    last = failed[-1] if failed else None
    return (
        f"{last['LogicalResourceId']}: {last.get('ResourceStatusReason')}" if last else "it failed; look at its events"
    )


def approve(made: Mapping[str, str], command: Sequence[str] = ()) -> str:
    """Run the approver's task and wait for its end; returns it.

    Without a command it makes the first model of a fresh store its champion, and changes nothing where one serves: then
    it is the first that a new image does with the environment's own store. Raises NotDeployed.
    """
    ecs = boto3.client("ecs")
    network = {"subnets": made["TasksSubnets"].split(","), "securityGroups": [made["TasksGroup"]]}
    started = ecs.run_task(
        cluster=made["ClusterName"],
        taskDefinition=made["ApproveTask"],
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {**network, "assignPublicIp": "DISABLED"}},
        **({"overrides": {"containerOverrides": [{"name": "approve", "command": list(command)}]}} if command else {}),
    )
    if not started["tasks"]:
        raise NotDeployed(f"the approver's task was not started: {started['failures']}")
    task = started["tasks"][0]["taskArn"]
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline:
        (found,) = ecs.describe_tasks(cluster=made["ClusterName"], tasks=[task])["tasks"]
        if found["lastStatus"] == "STOPPED":
            code = found["containers"][0].get("exitCode")
            if code == 0:
                return str(task)
            why = f"{found.get('stoppedReason', '')}; its log: {_last_words(made['LogGroup'], task)}"
            raise NotDeployed(f"the approver's task ended with {code}: {why}")
        time.sleep(2)
    raise NotDeployed(f"the approver's task did not end within {LONGEST_START:.0f} s: {task}")


def _last_words(group: str, task: str) -> str:
    """The end of what the approver's task has logged, as far as it can be had."""
    stream = f"approve/approve/{task.rpartition('/')[2]}"
    try:
        events = boto3.client("logs").get_log_events(logGroupName=group, logStreamName=stream, limit=20)["events"]
    except (BotoCoreError, ClientError) as error:
        return f"{group}, {stream} ({error})"
    return "\n" + "\n".join(event["message"] for event in events)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: deployed; 1: not, for a reason that is said."""
    parser = argparse.ArgumentParser(prog="make deploy", description=str(__doc__).partition("\n")[0])
    parser.add_argument("environment", choices=sorted(STORES))
    parser.add_argument("--image", help="the image, by its digest")
    parser.add_argument("--serve-image", help="the one without TensorFlow; the same as --image where none is given")
    parser.add_argument(
        "--given", type=Path, help="a JSON file of parameters that are nobody else's affair: Mail, ServeTokens"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter instead of the file's"
    )
    parser.add_argument(
        "--promote", metavar="VERSION", help="deploy nothing; make this model the champion, as its approver"
    )
    parser.add_argument("--by", default="", help="with --promote: who decides")
    parser.add_argument("--why", default="", help="with --promote: why; it is recorded")
    parser.add_argument("--only", nargs="*", default=[], choices=STACKS, help="these stacks alone")
    asked = parser.parse_args(arguments)
    images = {"Image": asked.image, "ServeImage": asked.serve_image or asked.image} if asked.image else {}
    try:
        if asked.promote:
            command = ["crypto-ml", "promote", asked.promote, "--by", asked.by, "--why", asked.why]
            _say(f"{asked.promote} serves in {asked.environment} ({approve(outputs(asked.environment), command)})")
            return 0
        own = json.loads(asked.given.read_text(encoding="utf-8")) if asked.given else {}
        chosen = {**own, **images, **dict(one.split("=", 1) for one in asked.set)}
        made = deploy(asked.environment, chosen, asked.only)
        if not asked.only or "platform" in asked.only:
            _say(f"a champion serves ({approve(made)})")
            print(made["Address"])
    except (NotDeployed, BotoCoreError, ClientError, OSError, ValueError) as error:
        _say(f"not deployed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
