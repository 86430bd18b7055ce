"""Measurements: each prints what it compared with in the same run. `make bench` runs them all."""
