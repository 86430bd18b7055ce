"""Bytes sent to S3 in parts: they appear whole under their key, or not at all.

A store tells objects apart by ETags, which follow from the bytes and from how they were sent: as one, the MD5 of them
all; in parts, that of the MD5s of the parts, and their number. So the same bytes can be told from those that stood.
"""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crypto_ml.storage.failures import code_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES: Final = 16 * 1024 * 1024
"""Smallest part sent here, and the size from which a file is sent in parts."""

MOST_PARTS: Final = 9_000
"""S3 allows 10,000 parts to an object."""

PARTS_AT_ONCE: Final = 4
"""Parts in memory and on their way at the same time."""


ANOTHER_STEP: Final = 1024 * 1024
"""By how much larger the parts are by which the same large file gets another ETag."""


def size_of(source: Path | bytes) -> int:
    """How many bytes there are."""
    return source.stat().st_size if isinstance(source, Path) else len(source)


def step_of(source: Path | bytes, unlike: str | None) -> int | None:
    """The size of the parts to send so that the ETag is not `unlike`; None to send all at once."""
    size = size_of(source)
    if size < PART_BYTES:
        at_once = unlike is not None and hashlib.md5(_piece(source, 0, size)).hexdigest() == unlike  # noqa: S324
        return PART_BYTES if at_once else None
    step = max(PART_BYTES, -(-size // MOST_PARTS))
    return step + ANOTHER_STEP if unlike is not None and _etag(source, step) == unlike else step


def may_be(source: Path | bytes, etag: str) -> bool:
    """Whether an object with this ETag has these very bytes, as far as they were sent from here."""
    size = size_of(source)
    if "-" not in etag:
        return hashlib.md5(_piece(source, 0, size)).hexdigest() == etag  # noqa: S324
    step = max(PART_BYTES, -(-size // MOST_PARTS))
    return any(_etag(source, tried) == etag for tried in (step, step + ANOTHER_STEP))


def _etag(source: Path | bytes, step: int) -> str:
    size = size_of(source)
    parts = [hashlib.md5(_piece(source, at, step)).digest() for at in range(0, size, step)]  # noqa: S324 - S3's own
    return f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"  # noqa: S324


def _piece(source: Path | bytes, at: int, size: int) -> bytes:
    if isinstance(source, bytes):
        return source[at : at + size]
    with source.open("rb") as file:
        file.seek(at)
        return file.read(size)


def send_in_parts(
    client: "S3Client",
    source: Path | bytes,
    where: Mapping[str, Any],
    described: Mapping[str, Any],
    condition: Mapping[str, Any],
    *,
    step: int,
    sent: Callable[[int], None] = lambda _: None,
) -> str:
    """Send a file or bytes to `where` (Bucket, Key) and complete it under `condition`; returns the ETag in quotes.

    condition: IfNoneMatch or IfMatch, if any. `described` holds ContentType and Metadata. step: the size of a part (see
    `step_of`). sent: called with the bytes of each part that has arrived, from several threads. On any failure the
    unfinished upload is removed and the SDK's own error goes on.
    """
    count = max(-(-size_of(source) // step), 1)
    upload = client.create_multipart_upload(**where, **described)["UploadId"]

    def send(number: int) -> dict[str, Any]:
        body = _piece(source, (number - 1) * step, step)
        answer: Mapping[str, Any] = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
        sent(len(body))
        return {"PartNumber": number, "ETag": answer["ETag"]} | {
            name: value for name, value in answer.items() if name in CHECKSUMS
        }

    try:
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload") as pool:
            sending = [pool.submit(send, number) for number in range(1, count + 1)]
            try:
                parts: list[Any] = [part.result() for part in sending]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        completion: dict[str, Any] = {"MultipartUpload": {"Parts": parts}, **condition}
        return client.complete_multipart_upload(**where, UploadId=upload, **completion)["ETag"]
    except BaseException as failure:
        try:
            client.abort_multipart_upload(**where, UploadId=upload)
        except Exception as left:  # noqa: BLE001 - the upload's own failure is the one to report
            failure.add_note(f"Upload {upload} could not be removed: {code_of(left)}")
        raise


CHECKSUMS: Final = frozenset({"ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"})
"""What the SDK may have sent with a part; S3 wants it named again on completion."""
