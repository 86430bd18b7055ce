"""Hints that something was put into the bucket: messages that S3 itself sends to an SQS queue.

What belongs here: waiting for a message. What does not: what is in it. A hint says when to look, never what is there:
it may come twice, late or not at all, so that only a listing says what was uploaded. Messages are taken unread.
"""

from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from crypto_ml.errors import Unavailable
from crypto_ml.storage.failures import code_of

LONGEST_POLL: Final = 20
"""Seconds: what SQS allows."""

MOST_TOGETHER: Final = 10
"""Messages in an answer: what SQS allows."""

MOST_BATCHES: Final = 10
"""Answers that are taken from the queue before the look that they ask for; ten thousand uploads are one look, not a
thousand, and the first of them does not wait until all are taken."""


class NoHints(Unavailable):
    """The queue cannot be asked. Uploads are found without it, by looking."""


class Hints:
    """The messages of one queue; safe to share between threads."""

    def __init__(self, client: Any, queue: str) -> None:
        self._client = client
        self.queue = queue

    def wait(self, seconds: float) -> bool:
        """Whether a message came within so many seconds (whole ones, LONGEST_POLL at most). Raises NoHints."""
        try:
            came = self._take(min(int(seconds), LONGEST_POLL))
            left = MOST_BATCHES - 1
            last = came
            while last == MOST_TOGETHER and left:
                last = self._take(0)
                left -= 1
        except (BotoCoreError, ClientError) as error:
            raise NoHints(
                f"the queue {self.queue} gives no hints ({code_of(error)}), so uploads are found by looking alone: "
                "check that CRYPTO_ML_UPLOADS_QUEUE names a queue of this region, and that it may be received from"
            ) from error
        return came > 0

    def _take(self, wait: int) -> int:
        answer = self._client.receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=MOST_TOGETHER, WaitTimeSeconds=wait
        )
        messages = answer.get("Messages", [])
        if messages:
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
            self._client.delete_message_batch(QueueUrl=self.queue, Entries=entries)
        return len(messages)


def listen(queue: str) -> Hints:
    """The hints of a queue, by its URL, reached as the AWS SDK's own variables, profile or role say. Raises NoHints."""
    try:
        # the answer to a long poll comes after LONGEST_POLL at the latest
        config = Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=LONGEST_POLL + 10)
        return Hints(boto3.session.Session().client("sqs", config=config), queue)
    except (BotoCoreError, ValueError) as error:
        raise NoHints(f"the queue {queue} cannot be asked for hints ({code_of(error)}): {error}") from error
