"""The two kinds of failure everything here distinguishes: permanent and worth another try."""


class CryptoMLError(Exception):
    """Base of every named failure; its text is one sentence that says what is wrong and what to do."""


class Refused(CryptoMLError):  # noqa: N818 - reads as what happened
    """Permanent: the same input gives the same answer, so nothing retries it."""


class Unavailable(CryptoMLError):  # noqa: N818 - reads as what happened
    """Passing: a store or a network did not answer, so the same call may succeed later."""
