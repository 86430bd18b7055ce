"""Text from outside, as people may safely look at it.

Keys, symbols, slugs, reasons, names and notes are whatever somebody typed or dropped. Shown as they are, a line feed
forges a line, an escape sequence recolours or erases one, and a bidirectional override turns one round.
"""

import unicodedata
from typing import Final

UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what steers the display and is not seen itself: controls, formats, halves of a character,
line and paragraph separators."""


def visible(text: str) -> str:
    """The text on one line, with every character that is not seen itself spelled out: `\\n`, `\\x1b`, `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNSEEN else character
        for character in text
    )
