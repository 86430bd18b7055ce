"""What gzip may be at the most: asked by whoever reads a file, and by whoever plans what is read together."""

from typing import Final

MOST_EXPANSION: Final = 200
"""How many times its size a gzip file may expand to. The real market of 2018 expands to 3.5 times, series
whose price never changes, in a table of thirty empty columns, to 50 times (both tried); gzip can do 1,030 times."""

SMALL_EXPANDED: Final = 16 << 20
"""Bytes up to which nobody asks what they expanded from."""
