"""README as it must be where it repeats what the code says; run as a module it writes that anew (`make settings`)."""

import re
from pathlib import Path

from crypto_ml.settings import settings_table

README = Path(__file__).resolve().parents[1] / "README.md"
BETWEEN = re.compile(r"(?<=<!-- made by `make settings` -->\n).*?(?=<!-- until here -->)", re.DOTALL)


def expected(readme: str) -> str:
    """README with the table of settings that follows from the code, between its two marks."""
    text, times = BETWEEN.subn(lambda _: settings_table() + "\n", readme)
    if times != 1:
        raise ValueError(f"README.md has {times} places for the table of settings, and needs one")
    return text


if __name__ == "__main__":
    README.write_text(expected(README.read_text(encoding="utf-8")), encoding="utf-8")
