"""retract_upload: take a wrong file back, from the UI. What it did is an observation of the market history."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

from crypto_ml.defs.assets.models import first_run
from crypto_ml.defs.failures import explained
from crypto_ml.defs.jobs import ONLY_DEAD_PROCESSES, QUEUE
from crypto_ml.defs.presentation import link, records
from crypto_ml.defs.resources import Platform
from crypto_ml.ledger.layout import retraction_key
from crypto_ml.visible import visible

if TYPE_CHECKING:
    from crypto_ml.audit.retractions import RetractedUse
    from crypto_ml.audit.used_by import UsedBy
    from crypto_ml.storage.objects import ObjectStore

MOST_LISTED: Final = 20


class Retraction(dg.Config):
    """Which upload is taken back, who decided so, and why."""

    upload: str = Field(description="its key (uploads/prices.csv), or its id in the history (00000012.0)")
    by: str = Field(description="who decides")
    why: str = Field(description="why; it is recorded and shown")
    everything: bool = Field(default=False, description="every version that was received under the key")


@dg.op(name="retract", tags={"kind": "s3"})
def retract_op(context: dg.OpExecutionContext, platform: Platform, config: Retraction) -> None:
    """Make the rows of an upload void, and list the answers, forecasts and models that had used them."""
    from crypto_ml.audit.retractions import used
    from crypto_ml.stages.chained_decisions import chained_decision
    from crypto_ml.stages.retraction import Decision, retract

    with explained():
        deployment = platform.deployment
        decision = Decision(config.upload, config.by, config.why, config.everything).of_run(first_run(context.run))
        done = retract(decision, deployment.store, deployment.history, datetime.now(UTC))
        for said in chained_decision("the retraction", deployment, datetime.now(UTC)):
            context.log.warning(visible(said))
        for one in done:
            found = used(one, deployment.store)
            context.log.info(visible(f"{found.retraction.upload.key}: {found.rows} rows count as void from now on"))
            context.log_event(
                dg.AssetObservation(
                    "market_history",
                    partition=found.retraction.delivery,
                    description=f"{visible(found.retraction.upload.key)} was retracted",
                    metadata=_shown(found, deployment.store),
                )
            )


def _shown(found: "RetractedUse", store: "ObjectStore") -> dict[str, Any]:
    retraction = found.retraction
    return {
        "retracted": visible(retraction.upload.key),
        "upload_id": retraction.upload_id,
        "by": visible(retraction.by),
        "why": visible(retraction.why),
        "at": retraction.at,
        "void_rows": found.rows,
        "table_version": max(found.versions),
        "record": link(retraction_key(retraction.upload_id), store),
        **({"notice": link(found.notice, store)} if found.notice else {}),
        "used_by": records(list(_users(found))),
        "answers": len(found.answers),
        "forecasts": len(found.forecasts),
        "models": len(found.models),
    }


def _users(found: "RetractedUse") -> Iterator[dict[str, Any]]:
    """What had used the rows, the first few of each kind."""
    kinds: dict[str, tuple[UsedBy, ...]] = {
        "answer": found.answers,
        "forecast": found.forecasts,
        "model": found.models,
    }
    for kind, users in kinds.items():
        for one in users[:MOST_LISTED]:
            first = ", ".join(one.used[:3])
            yield {"kind": kind, "name": one.name, "to": one.upload or "", "used": len(one.used), "first": first}


@dg.job(
    name="retract_upload",
    description="Take an upload back: its rows stay as evidence and count as void from now on. Upload, by and why in "
    "the run's config. To undo it, drop the file again.",
    tags={QUEUE: "promotion", **ONLY_DEAD_PROCESSES},
)
def retract_upload() -> None:
    retract_op()
