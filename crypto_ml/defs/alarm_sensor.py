"""alarm_sensor: asks for a retrain where an alarm about the model stands and was confirmed, once for each alarm.

It is off unless a setting says otherwise (`CRYPTO_ML_RETRAIN_ON_ALARM`), and it never promotes: what comes of it is a
candidate like any other, with its verdict. A week that was trained on is not trained on again, for that gives the same
model: the alarm asks for the next one when that is over. A tick reads one object.
"""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from crypto_ml.defs.jobs import retrain
from crypto_ml.defs.partitions import last_week, week_end
from crypto_ml.defs.resources import Platform
from crypto_ml.errors import CryptoMLError
from crypto_ml.visible import visible

SECONDS_BETWEEN_LOOKS: Final = 600
ALARM_TAG: Final = "crypto_ml/alarm"
TRAINED: Final = dg.AssetKey("trained_model")


@dg.sensor(
    name="alarm_sensor",
    job=retrain,
    minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Where CRYPTO_ML_RETRAIN_ON_ALARM is true, asks for a retrain once for each confirmed alarm about the "
    "model. It never promotes.",
)
def alarm_sensor(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    if not platform.settings.retrain_on_alarm:
        return dg.SkipReason("CRYPTO_ML_RETRAIN_ON_ALARM is not true: alarms ask for nothing")
    from crypto_ml.stages.monitoring.alarms import retrain_for, standing
    from crypto_ml.stages.scaler import why_not_yet

    try:
        asking = retrain_for(standing(platform.deployment.store))
        week, history = last_week(datetime.now(UTC).date()), platform.deployment.history
        why_not = why_not_yet(week, week_end(week), history, platform.settings.target) if asking else None
    except CryptoMLError as error:  # a failed look is never "no alarm": say so, and look again
        return dg.SkipReason(visible(f"could not look at the alarms: {error}"))
    if asking and why_not is None and week in context.instance.get_materialized_partitions(TRAINED):
        why_not = f"the week {week} was trained on, and the next one is not over"
    new = [alarm.id for alarm in asking if alarm.id not in (context.cursor or "").split()]
    if not new:
        return dg.SkipReason("no confirmed alarm about the model that has not asked yet")
    if why_not:
        return dg.SkipReason(visible(f"{new[0]} asks for a retrain: {why_not}"))
    # several alarms are met by one candidate; the key is the first, so that no other daemon asks for it again
    request = dg.RunRequest(run_key=new[0], partition_key=week, tags={ALARM_TAG: new[0]})
    return dg.SensorResult(run_requests=[request], cursor=" ".join(alarm.id for alarm in asking))
