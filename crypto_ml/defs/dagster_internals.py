"""What Dagster keeps to itself and this package cannot do without: the one place that imports it, but for what a
launcher is made of (`warm.dagster_launching`), which takes longer to import and is not needed in every process.

Each is tried by a test with a real instance, so that a Dagster that has moved it fails there and not at night.
"""

from dagster._core.definitions.data_version import (
    # the tag by which an asset event reported outside a run names its data version, and the way back
    DATA_VERSION_TAG,
    extract_data_version_from_entry,
)
from dagster._core.scheduler.instigation import (
    # whether a sensor is switched on: public only through GraphQL, which needs a webserver where the doctor has none
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
)
from dagster._core.storage.tags import (
    BACKFILL_ID_TAG,  # documented as `dagster/backfill`
    PARTITION_NAME_TAG,  # runs are found by their delivery: documented as `dagster/partition`, not exported as a name
    PRIORITY_TAG,  # documented as `dagster/priority`
    RETRY_ON_ASSET_OR_OP_FAILURE_TAG,  # documented as `dagster/retry_on_asset_or_op_failure`
    RUN_FAILURE_REASON_TAG,  # whether a step failed or the run ended from outside: in no public attribute
    RUN_KEY_TAG,  # which run the sensor asked for with which key: there is no public question for it
    WILL_RETRY_TAG,  # whether Dagster launches a failed run again is told by this tag alone
)

# the type of the error in a run's events: the events are public, what is in them is not
from dagster_shared.error import SerializableErrorInfo

__all__ = (
    "BACKFILL_ID_TAG",
    "DATA_VERSION_TAG",
    "PARTITION_NAME_TAG",
    "PRIORITY_TAG",
    "RETRY_ON_ASSET_OR_OP_FAILURE_TAG",
    "RUN_FAILURE_REASON_TAG",
    "RUN_KEY_TAG",
    "WILL_RETRY_TAG",
    "InstigatorState",
    "InstigatorStatus",
    "InstigatorType",
    "SerializableErrorInfo",
    "extract_data_version_from_entry",
)
