"""The assets, one module for each road: that of an upload, of a model, of a forecast."""
