"""What is watched: how good predictions were, whether the model drifts, whether data is sound, how the service does.

A module for each thing that is looked at. Each reads a bounded part of what is stored, by its days, and returns
numbers, verdicts and what is to be drawn; `alarms` makes alarms of the verdicts. None changes anything but the log of
alarms and the weekly report, and none knows Dagster.
"""
