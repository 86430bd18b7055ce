"""What can go wrong with stored objects, in the product's own words.

What belongs here: the named failures of the storage room, and the one place that reads an SDK error. Sentences name the
operation, the `s3://` address and the store's error code; never the store's own text, which may quote credentials.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from crypto_ml.errors import CryptoMLError, Refused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class ObjectMissing(Refused):
    """There is no object under this key."""


class AlreadyExists(Refused):
    """Somebody has written this key before; what is there stays."""


class ObjectChanged(Refused):
    """The object was replaced or deleted since it was listed."""


class Conflict(Refused):
    """The object is not the one this replacement was meant for."""


class StoreRefused(Refused):
    """The store answered, and the answer is no: missing bucket, no permission, wrong credentials or region."""


class StoreNotTrusted(Refused):
    """The store does not do what its answers say, so nothing may rely on it."""


class StoreUnavailable(Unavailable):
    """The store did not answer, answered 5xx, or asked for patience."""


PASSING_CODES: Final = frozenset(
    {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "RequestTimeoutException", "Throttling"}
    | {"ThrottlingException", "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded"}
    | {"BandwidthLimitExceeded", "OperationAborted", "NoSuchUpload"}
)
CREDENTIAL_CODES: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
REGION_CODES: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
PASSING: Final = (
    ConnectionError,  # refused, no such host, TLS
    HTTPClientError,  # reset, closed early, timed out
    IncompleteReadError,
    ResponseStreamingError,
    CredentialRetrievalError,
    MetadataRetrievalError,
)


def status_of(error: ClientError) -> int:
    """HTTP status of the store's answer; 0 where there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: BaseException) -> str:
    """The store's error code, or the name of the SDK's error: safe to show."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "")) or f"status {status_of(error)}"
    return type(error).__name__


def endpoint_of(client: "S3Client") -> str:
    """Scheme, host and port the client talks to, without anything else an endpoint URL may carry."""
    parts = urlsplit(client.meta.endpoint_url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


@contextmanager
def explained(
    client: "S3Client", doing: str, uri: str, meanings: Mapping[int, CryptoMLError] | None = None
) -> Iterator[None]:
    """Turn an SDK error into a named failure; `meanings` says what a status means to this very call.

    Raises: StoreUnavailable, StoreRefused, or what `meanings` holds.
    """
    try:
        yield
    except ClientError as error:
        status, code = status_of(error), code_of(error)
        if meanings and status in meanings and code != "NoSuchBucket":
            raise meanings[status] from error
        raise _named(client, doing, uri, status, code) from error
    except PASSING as error:
        raise StoreUnavailable(
            f"The store at {endpoint_of(client)} did not answer while trying to {doing} {uri} ({code_of(error)}): "
            "check that it is running and reachable, then try again."
        ) from error
    except (NoCredentialsError, PartialCredentialsError, TokenRetrievalError) as error:
        raise StoreRefused(
            f"There are no usable AWS credentials to {doing} {uri} ({code_of(error)}): set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run under a role."
        ) from error
    except ResponseParserError as error:
        raise StoreUnavailable(
            f"The answer of {endpoint_of(client)} to {doing} {uri} cannot be read as S3: check AWS_ENDPOINT_URL_S3."
        ) from error
    except BotoCoreError as error:
        raise StoreRefused(
            f"The AWS SDK would not {doing} {uri} ({code_of(error)}): check the AWS settings."
        ) from error


def no_bucket(bucket: str) -> StoreRefused:
    """The refusal for a bucket that is not there."""
    return StoreRefused(f"There is no bucket {bucket}: create it, or name another in CRYPTO_ML_BUCKET.")


def _named(client: "S3Client", doing: str, uri: str, status: int, code: str) -> CryptoMLError:
    if (status >= 500 and status != 501) or status in (409, 429) or code in PASSING_CODES:
        return StoreUnavailable(f"The store could not {doing} {uri} for now ({code}): try again in a moment.")
    if status == 404 and code != "NoSuchBucket":
        return ObjectMissing(f"There is no object {uri}.")
    if code == "NoSuchBucket":
        return no_bucket(urlsplit(uri).netloc)
    if code in CREDENTIAL_CODES:
        sentence = (
            f"{endpoint_of(client)} does not accept the AWS credentials ({code}): renew them, or choose others with "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID."
        )
    elif code in REGION_CODES or status == 301:
        sentence = (
            f"The bucket of {uri} lies in another region than {client.meta.region_name} ({code}): set "
            "AWS_DEFAULT_REGION to its region."
        )
    elif status == 403:
        sentence = (
            f"The store does not allow these credentials to {doing} {uri} ({code}): grant s3:ListBucket on the bucket "
            "and s3:GetObject and s3:PutObject on its objects."
        )
    else:
        sentence = f"The store refused to {doing} {uri} ({code}): check the key and the AWS settings."
    return StoreRefused(sentence)
