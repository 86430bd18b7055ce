"""RFC 3161 time stamps: what an authority signs is that somebody had these bytes at that moment.

Belongs here: what is asked for and how an answer is held against the certificates that are trusted. Does not belong
here: who is asked, and where answers are kept (`witnesses`).
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crypto_ml.errors import Refused
from crypto_ml.extras import require_timestamps

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

QUERY: Final = "application/timestamp-query"


class BadTimestamp(Refused):
    """What is no time stamp of the bytes, or not of an authority that is trusted."""


def request_for(content: bytes) -> bytes:
    """The query for a time stamp of some bytes, DER. Raises NotInstalled."""
    require_timestamps("A time stamp")
    from rfc3161_client import TimestampRequestBuilder

    query: bytes = TimestampRequestBuilder().data(content).build().as_bytes()
    return query


def stamped_at(token: bytes, content: bytes, roots: Path) -> datetime:
    """When an authority stamped some bytes. token: its whole answer, DER; roots: certificates that are trusted, PEM.

    Raises BadTimestamp, NotInstalled.
    """
    require_timestamps("A time stamp")
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    builder = VerifierBuilder()
    for certificate in trusted(roots):
        builder = builder.add_root_certificate(certificate)
    try:
        response = decode_timestamp_response(token)
        builder.build().verify_message(response, content)
        at: datetime = response.tst_info.gen_time
    except (VerificationError, ValueError) as error:
        raise BadTimestamp(
            f"a time stamp is not of these bytes, or not of an authority that is trusted ({error})"
        ) from error
    return at


def trusted(roots: Path) -> "list[Certificate]":
    """The certificates in a file. Raises BadTimestamp."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(roots.read_bytes())
    except (OSError, ValueError) as error:
        raise BadTimestamp(f"the file of trusted certificates cannot be read ({error}): give PEM") from error
