"""Large work over many machines: a named function over shards, whose results are written once and stand.

What belongs here: where shards are computed (on a Dask cluster, or in this process), under which names their results
stand in the store, and what a death or a loss means. Does not belong here: what a shard is and what is computed of it,
which the stages say. Nothing here decides a bit of a result: whoever puts results together does so in the order of the
shards, and gets the same from any number of machines.
"""
