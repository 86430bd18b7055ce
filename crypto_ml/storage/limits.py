"""What S3 allows, whoever serves it."""

from typing import Final

LONGEST_KEY: Final = 1_024
"""Bytes of UTF-8 in a key, the store's prefix included."""
