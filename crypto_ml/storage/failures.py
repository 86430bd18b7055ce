"""What can go wrong with stored objects, in the product's own words.

What belongs here: the named failures of the storage room, and the one place that reads an SDK error. Sentences name the
operation, the `s3://` address and the store's error code; never the store's own text, which may quote credentials.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import (
    AwsChunkedWrapperError,
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    MetadataRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    RefreshWithMFAUnsupportedError,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from crypto_ml.errors import Blocked, CryptoMLError, Refused, Unavailable

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
    """The store answered, and the answer is no."""


class StoreNotUsable(StoreRefused, Blocked):
    """The store would say the same of any object: credentials, permissions, bucket, region, clock, settings.

    Nothing is wrong with the file that was asked for; it can be answered once the deployment is put right.
    """


class VersionsNotListed(StoreRefused):
    """The store does not say which versions there are of its objects, or not to these credentials."""


class StoreNotTrusted(Blocked):
    """The store does not do what its answers say, so nothing may rely on it."""


class StoreUnavailable(Unavailable):
    """The store did not answer, answered 5xx, or asked for patience."""


@dataclass(frozen=True)
class _Meaning:
    """What some error codes of S3 and its relatives, or errors of the SDK, mean; the sentence has named places."""

    failure: type[CryptoMLError]
    sentence: str


_PASSING: Final = _Meaning(
    StoreUnavailable, "The store could not {doing} {uri} for now ({code}): try again in a moment."
)
_DAMAGED: Final = _Meaning(
    StoreUnavailable, "The transfer was damaged on its way while trying to {doing} {uri} ({code}): try again."
)
_BROKEN_OFF: Final = _Meaning(
    StoreUnavailable, "The connection broke off while trying to {doing} {uri} ({code}): try again."
)
_UNREACHABLE: Final = _Meaning(
    StoreUnavailable,
    "The store at {endpoint} did not answer while trying to {doing} {uri} ({code}): check that it is running and "
    "reachable, then try again.",
)
_FULL: Final = _Meaning(
    StoreUnavailable,
    "{endpoint} has no room left to {doing} {uri} ({code}): free some, or raise the quota; then try again.",
)
_CREDENTIALS: Final = _Meaning(
    StoreNotUsable,
    "{endpoint} does not accept the AWS credentials ({code}): renew them, or choose others with AWS_PROFILE or "
    "AWS_ACCESS_KEY_ID.",
)
_NO_CREDENTIALS: Final = _Meaning(
    StoreNotUsable,
    "There are no usable AWS credentials to {doing} {uri} ({code}): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or run under a role.",
)
_LOGGED_OUT: Final = _Meaning(
    StoreNotUsable,
    "The log-in behind the AWS credentials to {doing} {uri} has ended ({code}): log in again, or choose others with "
    "AWS_PROFILE.",
)
_CREDENTIALS_AWAY: Final = _Meaning(
    StoreUnavailable,
    "What gives the AWS credentials to {doing} {uri} did not answer ({code}): check the role, the metadata service or "
    "the credential process, then try again.",
)
_ACCOUNT: Final = _Meaning(
    StoreNotUsable,
    "{endpoint} serves nothing to the account of these credentials ({code}): ask who owns the account or the bucket.",
)
_REGION: Final = _Meaning(
    StoreNotUsable,
    "The bucket of {uri} lies in another region than {region} ({code}): set AWS_DEFAULT_REGION to its region.",
)
_ENCRYPTION: Final = _Meaning(
    StoreNotUsable,
    "The key that encrypts {uri} cannot be used ({code}): enable it, and allow these credentials kms:Decrypt and "
    "kms:GenerateDataKey.",
)
_UNKNOWN_OPERATION: Final = _Meaning(
    StoreNotUsable,
    "{endpoint} does not know how to {doing} {uri} ({code}): check that AWS_ENDPOINT_URL_S3 leads to an S3 server that "
    "does.",
)
_BUCKET_NAME: Final = _Meaning(
    StoreNotUsable, "{bucket} cannot be the name of a bucket ({code}): name another in CRYPTO_ML_BUCKET."
)
_CLOCK: Final = _Meaning(
    StoreNotUsable,
    "{endpoint} would not {doing} {uri} because this machine's clock is {skew} ({code}): set the clock.",
)
_PERMISSION: Final = _Meaning(
    StoreNotUsable,
    "The store does not allow these credentials to {doing} {uri} ({code}): grant s3:ListBucket on the bucket and "
    "s3:GetObject and s3:PutObject on its objects.",
)
_KEY: Final = _Meaning(
    StoreRefused, "The store takes no key such as that of {uri} ({code}): use a shorter and simpler name."
)
_SIZE: Final = _Meaning(
    StoreRefused, "The store takes no object of the size of {uri} ({code}): split it, or raise the store's limit."
)
_ARCHIVED: Final = _Meaning(
    StoreRefused, "{uri} is archived ({code}): restore it from the archive, or write it again, then try again."
)
_REFUSED: Final = _Meaning(
    StoreRefused, "The store refused to {doing} {uri} ({code}): check the key and the AWS settings."
)

CODES: Final[Mapping[str, _Meaning]] = {
    code: meaning
    for meaning, codes in {
        _PASSING: "InternalError ServiceUnavailable SlowDown RequestTimeout RequestTimeoutException Throttling "
        "ThrottlingException TooManyRequests TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded "
        "OperationAborted NoSuchUpload InvalidPart TemporaryRedirect KMS.ThrottlingException KMS.KMSInternalException "
        "KMS.DependencyTimeoutException",
        _DAMAGED: "BadDigest InvalidDigest IncompleteBody XAmzContentSHA256Mismatch XAmzContentChecksumMismatch "
        "ContentSHA256Mismatch",
        _FULL: "QuotaExceeded InsufficientStorage XMinioStorageFull XMinioAdminBucketQuotaExceeded",
        _CREDENTIALS: "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken ExpiredTokenException InvalidToken "
        "TokenRefreshRequired InvalidClientTokenId UnrecognizedClientException AuthFailure InvalidSecurity "
        "MissingSecurityHeader",
        _ACCOUNT: "AccountProblem AllAccessDisabled InvalidPayer NotSignedUp UserSuspended",
        _REGION: "PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException",
        _UNKNOWN_OPERATION: "MethodNotAllowed NotImplemented",
        _BUCKET_NAME: "InvalidBucketName",
        _CLOCK: "RequestTimeTooSkewed RequestExpired RequestInTheFuture",
        _KEY: "KeyTooLongError KeyTooLong InvalidObjectName InvalidURI XMinioInvalidObjectName",
        _SIZE: "EntityTooLarge EntityTooSmall MaxMessageLengthExceeded",
        _ARCHIVED: "InvalidObjectState",
    }.items()
    for code in codes.split()
}
STATUSES: Final[Mapping[int, _Meaning]] = {
    301: _REGION,
    307: _PASSING,
    403: _PERMISSION,
    405: _UNKNOWN_OPERATION,
    408: _PASSING,
    409: _PASSING,
    413: _SIZE,
    414: _KEY,
    429: _PASSING,
    501: _UNKNOWN_OPERATION,
    507: _FULL,
}
"""What a status means where the code is not among CODES; HEAD is answered without one."""

ERRORS: Final[Mapping[type[Exception], _Meaning]] = {
    FlexibleChecksumError: _DAMAGED,
    ChecksumError: _DAMAGED,
    AwsChunkedWrapperError: _DAMAGED,
    IncompleteReadError: _BROKEN_OFF,
    ResponseStreamingError: _BROKEN_OFF,
    SSLError: _Meaning(
        StoreUnavailable,
        "The connection to {endpoint} cannot be made secure ({code}): check its certificate, AWS_CA_BUNDLE, and "
        "whether the address begins with http:// or https://.",
    ),
    ProxyConnectionError: _Meaning(
        StoreUnavailable,
        "The proxy on the way to {endpoint} did not answer ({code}): check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    ),
    ConnectTimeoutError: _Meaning(
        StoreUnavailable,
        "The store at {endpoint} did not answer while trying to {doing} {uri} ({code}): check its address, and that no "
        "firewall keeps it apart, then try again.",
    ),
    ReadTimeoutError: _Meaning(
        StoreUnavailable,
        "The store at {endpoint} took the request to {doing} {uri} and did not answer in time ({code}): it may be "
        "overloaded; try again.",
    ),
    ConnectionError: _UNREACHABLE,
    HTTPClientError: _UNREACHABLE,
    CredentialRetrievalError: _CREDENTIALS_AWAY,
    MetadataRetrievalError: _CREDENTIALS_AWAY,
    NoCredentialsError: _NO_CREDENTIALS,
    PartialCredentialsError: _NO_CREDENTIALS,
    TokenRetrievalError: _LOGGED_OUT,
    SSOError: _LOGGED_OUT,
    LoginError: _LOGGED_OUT,
    NoAuthTokenError: _LOGGED_OUT,
    RefreshWithMFAUnsupportedError: _LOGGED_OUT,
    ParamValidationError: _BUCKET_NAME,
    ResponseParserError: _Meaning(
        StoreUnavailable,
        "The answer of {endpoint} to {doing} {uri} cannot be read as S3: check AWS_ENDPOINT_URL_S3.",
    ),
    BotoCoreError: _Meaning(StoreNotUsable, "The AWS SDK would not {doing} {uri} ({code}): check the AWS settings."),
}
"""What an error of the SDK means, the more special before the more general."""

MOST_SKEW: Final = 15 * 60
"""Seconds a clock may be apart from the store's before S3 refuses what it signs."""


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
def named_failures(
    client: "S3Client", doing: str, uri: str, meanings: Mapping[int, CryptoMLError] | None = None
) -> Iterator[None]:
    """Turn an SDK error into a named failure; `meanings` says what a status means to this very call.

    Raises: StoreUnavailable, StoreRefused, or what `meanings` holds.
    """
    try:
        yield
    except ClientError as error:
        if meanings and status_of(error) in meanings and code_of(error) != "NoSuchBucket":
            raise meanings[status_of(error)] from error
        raise _of_answer(client, doing, uri, error) from error
    except (BotoCoreError, ResponseParserError) as error:
        meaning = next(meaning for kind, meaning in ERRORS.items() if isinstance(error, kind))
        raise _failure(meaning, client, doing, uri, code=code_of(error)) from error


def unusable_settings(error: Exception) -> StoreNotUsable:
    """The refusal where the SDK makes no client of its settings; an address may have a password: it is not shown."""
    if isinstance(error, ValueError):
        return StoreNotUsable(
            "The address of the store is none: write AWS_ENDPOINT_URL_S3 as http:// or https://, a host, and a port."
        )
    return StoreNotUsable(
        f"The AWS settings cannot be used ({code_of(error)}): {error}; check AWS_PROFILE, and the files of the AWS SDK."
    )


def not_of_s3(doing: str, uri: str) -> StoreNotUsable:
    """The refusal where something else than S3 answered, as a proxy's log-in page does."""
    return StoreNotUsable(f"The answer to {doing} {uri} is not S3's: check where AWS_ENDPOINT_URL_S3 leads.")


def no_bucket(bucket: str) -> StoreNotUsable:
    """The refusal for a bucket that is not there."""
    return StoreNotUsable(f"There is no bucket {bucket}: create it, or name another in CRYPTO_ML_BUCKET.")


def _of_answer(client: "S3Client", doing: str, uri: str, error: ClientError) -> CryptoMLError:
    """What the store's answer means: by its code, else by its status."""
    status, code = status_of(error), code_of(error)
    if code == "NoSuchBucket":
        return no_bucket(urlsplit(uri).netloc)
    if status == 404 and code not in CODES:
        return ObjectMissing(f"There is no object {uri}.")
    meaning = CODES.get(code) or STATUSES.get(status) or (_PASSING if status >= 500 else _REFUSED)
    if code.startswith("KMS") and code not in CODES:
        meaning = _ENCRYPTION
    skew = _skew(error)
    if meaning is _PERMISSION and skew is not None and abs(skew) > MOST_SKEW:  # HEAD is refused without saying why
        meaning = _CLOCK
    return _failure(meaning, client, doing, uri, code=code, skew=skew)


def _failure(
    meaning: _Meaning, client: "S3Client", doing: str, uri: str, *, code: str, skew: float | None = None
) -> CryptoMLError:
    way = "wrong" if skew is None else f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    return meaning.failure(
        meaning.sentence.format(
            endpoint=endpoint_of(client),
            region=client.meta.region_name,
            bucket=urlsplit(uri).netloc,
            doing=doing,
            uri=uri,
            code=code,
            skew=way,
        )
    )


def _skew(error: ClientError) -> float | None:
    """Seconds by which this machine's clock is ahead of the store's, as far as the answer says."""
    answer: Mapping[str, Any] = error.response
    said = answer.get("Error", {})
    try:
        asked, was = datetime.fromisoformat(said["RequestTime"]), datetime.fromisoformat(said["ServerTime"])
        return (asked - was).total_seconds()
    except (KeyError, ValueError, TypeError):
        pass
    try:
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
