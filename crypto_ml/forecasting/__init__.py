"""The domain: rows in, predictions out.

Belongs here: what a row, a feature, a window, a network and a prediction are. Frames, arrays and local files in,
frames, arrays and local files out. Does not belong here: Dagster, S3, environment variables, the clock.
"""
