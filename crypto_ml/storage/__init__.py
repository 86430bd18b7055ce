"""Where things are kept: objects in S3, the market history (Delta Lake), model bundles.

Belongs here: plain classes that read and write one kind of thing and name their failures. Does not belong here:
Dagster, and any rule about what an upload, a model or an answer means.
"""
