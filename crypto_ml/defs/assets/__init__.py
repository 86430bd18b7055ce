"""The assets, one module for each stage of the road."""
