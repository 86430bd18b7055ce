"""The road of a delivery, from its uploads to their answers: four steps, and the composition that any caller shares.

Each step leaves a record in the store, so that the next may run in another process: in Dagster each is one asset. Who
needs no lineage calls `answer_delivery`.
"""

import logging
from datetime import datetime
from typing import Final

from crypto_ml.deployment import Deployment
from crypto_ml.engine.mapping import Engine
from crypto_ml.ledger.deliveries import DeliveryLog
from crypto_ml.ledger.registry import Champion
from crypto_ml.stages.cleaned_features import Cleaned, KnownCoins, clean
from crypto_ml.stages.delivery_scoring import Sources
from crypto_ml.stages.market_history import Remembered, remember
from crypto_ml.stages.predictions import Answers, answer
from crypto_ml.stages.raw_uploads import Received, receive
from crypto_ml.stages.spent import with_counted_network

MOST_ROWS: Final = 1_000_000
"""Rows that are read or rewritten after an answer, at most, for those to come; more is left to the upkeep."""

log: Final = logging.getLogger(__name__)


def receive_uploads(delivery: str, deployment: Deployment, now: datetime) -> Received:
    """Read the bytes of a delivery's uploads and keep them. Raises ObjectMissing where there is no such delivery."""
    store = deployment.store
    return receive(DeliveryLog(store).get(int(delivery)), store, now)


def clean_rows(received: Received, deployment: Deployment, champion: Champion) -> Cleaned:
    """Clean what was received; series are named as the history and the champion know them."""
    history = deployment.history
    coins = KnownCoins(history, history.version(), deployment.bundle(champion.version))
    return clean(received, coins, deployment.store, deployment.settings)


def remember_rows(received: Received, cleaned: Cleaned, deployment: Deployment) -> Remembered:
    """Append the accepted rows to the market history, once."""
    return remember(received, cleaned, deployment.history, deployment.store)


def answer_uploads(
    received: Received, cleaned: Cleaned, deployment: Deployment, champion: Champion, run_id: str
) -> Answers:
    """Predict with the champion, from the history as it is now, and publish. run_id: what receipts name the run by."""
    history = deployment.history
    version = history.version()
    bundle = with_counted_network(deployment.bundle(champion.version))
    sources = Sources(
        deployment.store,
        history,
        version,
        bundle,
        champion,
        deployment.settings,
        run_id,
        series=deployment.series,
        engine=Engine.for_rows(deployment, cleaned.accepted_rows),
    )
    answers = answer(received, cleaned, sources)
    bring_forward(deployment, version)
    return answers


def bring_forward(deployment: Deployment, version: int | None) -> None:
    """Bring what finds series fast up to a version of the history, where enough has come since; answers are out by now.

    These are caches: whatever goes wrong with them is logged, and costs the next answers time and nothing else.
    """
    try:
        if version is not None and deployment.series.due(version):
            log.info("Brought the cache of series forward: %s", deployment.series.refresh(version, most_rows=MOST_ROWS))
            deployment.history.known.keep(behind=1, most_rows=MOST_ROWS)
    except Exception:
        log.warning("What is kept of series could not be brought to version %s of the history", version, exc_info=True)


def answer_delivery(delivery: str, deployment: Deployment, *, run_id: str, now: datetime) -> Answers:
    """The whole road, with the champion of this moment. A delivery answered before is answered again.

    Raises what the steps raise: Refused where the same would happen again, Unavailable where it is worth another try.
    """
    champion = deployment.champion()
    received = receive_uploads(delivery, deployment, now)
    cleaned = clean_rows(received, deployment, champion)
    remember_rows(received, cleaned, deployment)
    return answer_uploads(received, cleaned, deployment, champion, run_id)
