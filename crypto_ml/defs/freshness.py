"""How old assets may become before Dagster marks them as late: what should happen every day.

Dagster looks at it by itself (`freshness` in `dagster.yaml`), also where a schedule is off and nothing else would say
so. What the rows themselves say about it is in `data_faults`.
"""

from datetime import timedelta
from typing import Final

import dagster as dg

DAILY: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=49), warn_window=timedelta(hours=26))
"""What is made once a day: late after a day and two hours, failed where the next one did not come either."""
