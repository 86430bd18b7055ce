"""What happened and why: deliveries, receipts, reports and the champion pointer, as plain data and functions.

Belongs here: records that are written once and read by assets, commands and tests alike. Does not belong here: Dagster.
"""
