"""Stored formats: one module for each kind of record and version, frozen once a release has written it.

A record that was written is read for ever. What is hashed, sealed and compared is the document as it was stored, never
what today's code would make of it. Within a version, fields may be added that earlier readers can do without: they
ignore what they do not know. Anything else is a new version with a module of its own, and the module of the version
before says what its records are in the new one's terms. The formats of lower rooms stand there: the model bundle in
`forecasting.bundle`, the columns of the tables in `storage.history` and `storage.prediction_log`.
"""
