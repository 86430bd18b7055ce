"""The pictures of docs/architecture.md, made of their sources in docs/pictures/ by Graphviz's `dot`: `make docs`.

Each SVG says which source it was made of, so that one that is current is not made again, and needs no Graphviz.
"""

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

PICTURES: Final = Path(__file__).resolve().parent / "pictures"


def mark(source: Path) -> str:
    """What the picture made of this source ends with."""
    return f"<!-- made of {source.name}, sha256 {sha256(source.read_bytes()).hexdigest()} -->\n"


def is_current(source: Path) -> bool:
    """Whether the picture beside a source was made of it as it is now."""
    picture = source.with_suffix(".svg")
    return picture.exists() and picture.read_text(encoding="utf-8").endswith(mark(source))


def main() -> None:
    """Make what is not current. Ends with a sentence where there is no `dot`."""
    late = [source for source in sorted(PICTURES.glob("*.dot")) if not is_current(source)]
    if late and shutil.which("dot") is None:
        names = ", ".join(source.name for source in late)
        sys.exit(f"{names} changed, and there is no `dot` to make pictures: install Graphviz (apt, brew: graphviz).")
    for source in late:
        made = subprocess.run(["dot", "-Tsvg", str(source)], check=True, capture_output=True, text=True).stdout
        source.with_suffix(".svg").write_text(made.rstrip() + "\n" + mark(source), encoding="utf-8")


if __name__ == "__main__":
    main()
