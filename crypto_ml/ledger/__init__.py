"""What happened and why: deliveries, receipts, reports and the champion pointer, as plain data and functions.

Belongs here: records and logs that only grow, read by assets, commands and tests alike, and what the few objects that
are replaced (reports, the outcomes of what was given up) may be replaced by. Does not belong here: Dagster.
"""
