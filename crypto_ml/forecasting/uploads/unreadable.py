"""The failure of a file that is refused as a whole."""

from crypto_ml.errors import Refused


class UnreadableUpload(Refused):
    """A file refused as a whole; the text is the reason given in its report."""
