"""Where things are kept: objects in S3, and in Delta Lake the market history and the log of predictions.

Belongs here: plain classes that read and write one kind of thing and name their failures. Does not belong here:
Dagster, and any rule about what an upload, a model or an answer means.
"""
