"""The chain of evidence as assets: what came is taken in every few minutes, and the whole is verified every day."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.assets.models import champion_model
from crypto_ml.defs.assets.monitoring import looked_after
from crypto_ml.defs.assets.requests import served_predictions
from crypto_ml.defs.assets.uploads import predictions
from crypto_ml.defs.failures import explained
from crypto_ml.defs.freshness import DAILY
from crypto_ml.defs.machine import taken
from crypto_ml.defs.presentation import check_result, records
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.code import code_version
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.audit.verified import State, Verified
    from crypto_ml.storage.objects import ObjectStore

GROUP: Final = "evidence"
OWNERS: Final = ["team:data"]
MOST_LISTED: Final = 50
VERIFIED: Final = "cache/verified.json"
"""Where it is kept what was found right before. It only saves time, and it counts only where its sha256 is the one that
the last materialization names: whoever writes to the bucket cannot make it say anything else."""

STATE: Final = "state_sha256"


@dg.asset(
    deps=[
        dg.AssetDep(predictions, partition_mapping=dg.AllPartitionMapping()),
        champion_model,
        "daily_forecast",
        served_predictions,
    ],
    kinds={"s3", "json"},
    code_version=code_version("crypto_ml.stages.evidence_chain"),
    check_specs=[
        dg.AssetCheckSpec(
            "head_is_witnessed",
            asset="evidence_chain",
            description="Every witness that is set knows of the chain, as it was a day ago or later.",
        )
    ],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def evidence_chain(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """What came since the last look, by its hashes, as the next link of the chain; its head goes to the witnesses."""
    from crypto_ml.stages.evidence_chain import extend
    from crypto_ml.stages.progress import logged
    from crypto_ml.stages.witnesses import is_witnessed, tell_witnesses

    now = datetime.now(UTC)
    with explained():
        store = platform.deployment.store
        found = extend(store, now, tell=logged(context.log, "chain of evidence"))
        told = tell_witnesses(found.head, store, platform.settings, now) if found.head else []
    for one in told:
        (context.log.warning if one.problem else context.log.info)("%s", visible(str(one)))
    head: dict[str, Any] = {}
    if found.head:
        head = {"head": found.head.number, "head_sha256": found.head.sha256, "head_at": found.head.at}
    return dg.MaterializeResult(
        metadata={
            **head,
            "links": len(found.links),
            "dagster/row_count": found.records,
            "everything": found.complete,
            "witnesses": records([one.shown() for one in told]) if told else "none is set",
            **taken(),
        },
        check_results=[check_result("head_is_witnessed", is_witnessed(told), dg.AssetCheckSeverity.WARN)],
    )


@dg.asset(
    deps=[evidence_chain],
    kinds={"s3", "json"},
    code_version=code_version("crypto_ml.audit.verify"),
    check_specs=[
        dg.AssetCheckSpec(
            "evidence_is_whole",
            asset="evidence_verified",
            description="Every link, every record and every object that one vouches for is there, and as it was.",
        )
    ],
    group_name=GROUP,
    owners=OWNERS,
    freshness_policy=DAILY,
)
def evidence_verified(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """The whole record held against the chain of evidence and its witnesses: what is wrong, and since when."""
    from crypto_ml.audit.tolerance import Tolerance
    from crypto_ml.audit.verified import conditions, verdict
    from crypto_ml.audit.verify import verify
    from crypto_ml.audit.witnessed import compared
    from crypto_ml.digest import sha256_of
    from crypto_ml.stages.progress import logged

    settings = platform.settings
    with explained():
        store = platform.deployment.store
        found = verify(
            store,
            state=_state(context, store),
            tolerance=Tolerance(longest_run=timedelta(seconds=settings.max_run_seconds)),
            tell=logged(context.log, "evidence"),
        )
        found = compared(found, store, settings)
        kept = found.state.rendered() if found.state else b""
        if kept:
            store.replace(VERIFIED, kept, content_type="application/json")
    for one in found.findings[:MOST_LISTED]:
        context.log.error("%s", visible(str(one)))
    shown = {
        **_shown(found),
        **({STATE: sha256_of(kept)} if kept else {}),
    }
    return looked_after(
        context,
        platform,
        shown,
        {"evidence_is_whole": verdict(found)},
        conditions(found, datetime.now(UTC)),
        severity=dg.AssetCheckSeverity.ERROR,
    )


def _state(context: dg.AssetExecutionContext, store: "ObjectStore") -> "State | None":
    """What was found right before, where the last materialization names it."""
    from crypto_ml.audit.verified import State
    from crypto_ml.digest import sha256_of
    from crypto_ml.storage.failures import ObjectMissing

    event = context.instance.get_latest_materialization_event(dg.AssetKey("evidence_verified"))
    named = event.asset_materialization.metadata.get(STATE) if event and event.asset_materialization else None
    if named is None:
        return None
    try:
        content = store.read(VERIFIED)
    except ObjectMissing:
        return None
    return State.read(content) if sha256_of(content) == named.value else None


def _shown(found: "Verified") -> dict[str, Any]:
    wrong = [
        {"kind": one.kind, "object": one.key, "what": one.what, "link": one.link, "since": one.since or ""}
        for one in found.findings[:MOST_LISTED]
    ]
    return {
        **({"wrong": records(wrong)} if wrong else {}),
        **({"notes": visible("; ".join(found.notes))} if found.notes else {}),
        "findings": len(found.findings),
        "links": found.links,
        "known_records": found.known,
        "dagster/row_count": found.records,
        "objects": found.objects,
        "bytes_read": found.bytes_read,
        "waiting": found.waiting,
        **({"head": found.head.number, "head_sha256": found.head.sha256} if found.head else {}),
    }
