"""What an auditor may ask of an answer: where it came from, whether it comes out again, what a correction touches.

Belongs here: reading the evidence in S3 and running the stages again on it. Does not belong here: Dagster, whose
database may be gone, and writing anything.
"""
