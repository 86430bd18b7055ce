"""Runs that start at once: a Dagster run launcher with processes that are ready before a run is asked for.

`launcher` and `coordinator` are what `dagster.yaml` names, on Dagster's own plug-in points; `nursery` is the process
that makes workers, `worker` what each of them does. Whatever they cannot serve goes Dagster's usual way.
"""
