"""Everything that knows Dagster: assets, checks, jobs, sensors, schedules, partitions and resources.

Belongs here: wiring. An asset loads, makes one call into a stage, and says what happened. Does not belong here: rules.
"""
