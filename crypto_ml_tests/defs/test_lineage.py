"""What Dagster says about an answer's origin and freshness is what the receipts say, at each step of a model's life."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from crypto_ml.ledger.receipts import read_receipt
from crypto_ml.ledger.registry import Registry
from crypto_ml.ledger.reports import read_report
from crypto_ml.sample import sample_upload
from crypto_ml_tests.in_process_dagster import InProcessDagster

PREDICTIONS = dg.AssetKey("predictions")
WEEK = "2023-11-19"


@dataclass
class Life:
    """A deployment whose uploads are answered one by one, and the model that each was answered with."""

    dagster: InProcessDagster
    answered: list[str] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return Registry(self.dagster.store)

    @property
    def serving(self) -> str:
        champion = self.registry.champion()
        assert champion is not None
        return champion.sha256

    def answer(self, name: str = "prices", days: int = 40) -> None:
        """Drop a file and have it answered; lineage must credit the bundle that the receipt names."""
        body = b"\n".join(sample_upload().split(b"\n")[: days + 1]) + b"\n"
        self.dagster.store.replace(f"uploads/{name}.csv", body)
        (result,) = self.dagster.answer_new(str(len(self.answered)) if self.answered else None)
        (event,) = result.asset_materializations_for_node("predictions")
        tags: Any = event.tags
        report = read_report(f"uploads/{name}.csv", self.dagster.store)
        assert report is not None
        receipt = read_receipt(str(report.document["answer_id"]), self.dagster.store)
        assert tags["dagster/input_data_version/champion_model"] == receipt.model.sha256 == self.serving
        self.answered.append(receipt.model.sha256)

    def retrain(self) -> None:
        self.dagster.run("retrain", WEEK)

    def decide(self, **decision: Any) -> None:
        config = {"ops": {"champion_model": {"config": {"by": "a test", "why": "to see", **decision}}}}
        self.dagster.run("promote_model", config=config)

    def promote(self) -> None:
        (candidate,) = [version for version in self.registry.versions() if version.startswith(WEEK)]
        self.decide(version=candidate, override="it is a test")

    def roll_back(self) -> None:
        self.decide(rollback=True)

    def fresh(self) -> list[bool]:
        """For each delivery in order, whether Dagster calls its predictions fresh."""
        instance = self.dagster.instance
        graph = self.dagster.definitions.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return [
            resolver.get_status(PREDICTIONS, f"{number:08d}").value == "FRESH"
            for number in range(1, len(self.answered) + 1)
        ]


def test_predictions_go_stale_exactly_when_another_model_serves_and_are_fresh_again_when_theirs_does(
    dagster: InProcessDagster,
) -> None:
    life = Life(dagster)

    def history() -> None:
        life.answer("history", days=5 * 400)

    steps: list[tuple[str, Callable[[], None], list[bool]]] = [
        ("the first answer", life.answer, [True]),
        ("a second file", history, [True, True]),
        ("a candidate nobody approved", life.retrain, [True, True]),
        ("an answer beside the candidate", lambda: life.answer("beside", 41), [True, True, True]),
        ("its promotion", life.promote, [False, False, False]),
        ("an answer after the promotion", lambda: life.answer("after", 42), [False, False, False, True]),
        ("other bytes under an old key", lambda: life.answer("prices", 43), [False, False, False, True, True]),
        ("a rollback", life.roll_back, [True, True, True, False, False]),
        ("an answer after the rollback", lambda: life.answer("last", 44), [True, True, True, False, False, True]),
    ]
    for name, act, fresh in steps:
        act()
        assert life.fresh() == fresh, name
    assert len(set(life.answered)) == 2
