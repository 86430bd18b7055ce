"""A store that is not the deployment's: another bucket, with another account's credentials, or at another endpoint."""

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from crypto_ml.storage.failures import unusable_settings
from crypto_ml.storage.objects import ObjectStore


def connect_elsewhere(
    bucket: str, prefix: str, *, profile: str | None = None, endpoint: str | None = None, region: str | None = None
) -> ObjectStore:
    """A bucket below a prefix. profile, endpoint, region: where they differ from what the AWS SDK's own variables say.

    Raises StoreNotUsable.
    """
    try:
        session = boto3.session.Session(profile_name=profile, region_name=region)
        config = Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=30)
        client = session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as e:
        raise unusable_settings(e) from e
    return ObjectStore(client, bucket, prefix)
