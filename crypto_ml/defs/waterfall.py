"""How long an answer took, from the moment its upload was noticed, and with what: seconds, and a small picture."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from crypto_ml.defs.dagster_internals import RUN_KEY_TAG
from crypto_ml.defs.presentation import embedded, records
from crypto_ml.stages.spent import PARTS, Spent

if TYPE_CHECKING:
    from crypto_ml.stages.raw_uploads import Received

WAITING: Final = "waiting"
STARTING: Final = "starting"
DAGSTER: Final = "records of Dagster"
LABEL, BAR, ROW = 104, 160, 10
"""The width of what is said, that of all bars together, and the height of a line, in the units of the picture."""


def waterfall(
    context: dg.AssetExecutionContext, received: "Received", spent: Spent, published: float
) -> dict[str, Any]:
    """Metadata: the seconds of each part, a picture of them, and what no clock tells.

    published: seconds since 1970, when the last object was.
    """
    seconds = {**_before(context, received, spent.began), **{name: spent.seconds.get(name, 0.0) for name in PARTS}}
    seconds[DAGSTER] = max(published - spent.began - sum(spent.seconds.values()), 0.0)
    return {
        "waterfall": dg.MetadataValue.md(embedded(sketch(seconds), _unknown(received))),
        "spent": records([{"part": name, "seconds": round(value, 3)} for name, value in seconds.items()]),
    }


def _before(context: dg.AssetExecutionContext, received: "Received", began: float) -> dict[str, float]:
    """Seconds before the first step, by the clocks of sensor and daemon: until the run was launched, and from then on.

    A run that the sensor did not ask for when it noticed the upload has waited since it was asked for.
    """
    run = context.instance.get_run_record_by_id(context.run.run_id)
    launched = context.instance.get_run_stats(context.run.run_id).launch_time or began
    asked = run.create_timestamp.timestamp() if run else launched
    if context.run.tags.get(RUN_KEY_TAG) == received.delivery:
        asked = min(asked, datetime.fromisoformat(received.noticed_at).timestamp())
    return {WAITING: max(launched - asked, 0.0), STARTING: max(began - launched, 0.0)}


def _unknown(received: "Received") -> str:
    """How long the upload was there before it was noticed, as far as two clocks tell of which one has whole seconds."""
    noticed = datetime.fromisoformat(received.noticed_at)
    written = max(datetime.fromisoformat(file.upload.last_modified) for file in received.files)
    before = (noticed - written).total_seconds()
    told = f"noticed {max(before - 1, 0):,.1f} to {before:,.1f} s" if before > 0 else "noticed within a second"
    return f"{told} after it was written, by the store's clock, which tells whole seconds; then:"


def sketch(seconds: Mapping[str, float]) -> str:
    """The parts below one another, each where it began and as long as it took, as SVG."""
    whole = sum(seconds.values()) or 1.0
    bars, said, at = [], [], 0.0
    for number, (name, value) in enumerate(seconds.items()):
        width = max(BAR * value / whole, 1.0)
        bars.append(f"M{LABEL + BAR * at / whole:.0f} {ROW * number + 6}h{width:.0f}")
        said.append(f"<tspan x='0' dy='{ROW}'>{name} {value:.2f}</tspan>")
        at += value
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {LABEL + BAR + 2} {ROW * len(seconds) + 4}' width='440' "
        f"font-size='8' fill='gray'><path stroke='steelblue' stroke-width='7' d='{''.join(bars)}'/>"
        f"<text>{''.join(said)}</text></svg>"
    )
