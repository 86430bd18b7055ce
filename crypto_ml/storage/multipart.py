"""One large local file sent to S3 in parts: it appears whole under its key, or not at all."""

from collections.abc import Mapping
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


def send_in_parts(
    client: "S3Client", path: Path, where: Mapping[str, Any], described: Mapping[str, Any], condition: Mapping[str, Any]
) -> str:
    """Send `path` to `where` (Bucket, Key) and complete it under `condition`; returns the ETag in quotes.

    condition: IfNoneMatch or IfMatch, if any. `described` holds ContentType and Metadata. On any failure the unfinished
    upload is removed and the SDK's own error goes on.
    """
    size = path.stat().st_size
    step = max(PART_BYTES, -(-size // MOST_PARTS))
    upload = client.create_multipart_upload(**where, **described)["UploadId"]

    def send(number: int) -> dict[str, Any]:
        with path.open("rb") as source:
            source.seek((number - 1) * step)
            body = source.read(step)
        answer: Mapping[str, Any] = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]} | {
            name: value for name, value in answer.items() if name in CHECKSUMS
        }

    try:
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload") as pool:
            sending = [pool.submit(send, number) for number in range(1, -(-size // step) + 1)]
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
