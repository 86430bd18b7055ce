"""The stages of the road, one module for each asset: read from storage, apply the domain, write evidence.

Belongs here: which object each stage reads and writes, in which order, and the record it leaves. Does not belong here:
Dagster (the assets of the same names are thin), and any rule about rows, features or networks.
"""
