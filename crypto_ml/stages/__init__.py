"""The stages of the road: read from storage, apply the domain, write evidence.

One module for each asset, of the same name (that of `champion_model` is `promotion`), beside it those of its parts, and
`road`, which puts the steps of an upload's road together for any caller.

Belongs here: which object each stage reads and writes, in which order, and the record it leaves. Does not belong here:
Dagster (the assets of the same names are thin), and any rule about rows, features or networks.
"""
