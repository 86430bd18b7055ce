"""The plan's figures are what its script makes of what was measured, and its pictures are of their sources."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_WORDS = 1_100
"""About two pages."""


def module(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def cost() -> ModuleType:
    return module("cost")


def test_the_tables_of_the_plan_are_what_its_script_makes(cost: ModuleType) -> None:
    document = cost.FIGURES.read_text(encoding="utf-8")
    assert cost.written(document) == document
    for name, made in cost.TABLES.items():
        assert f"<!-- made by docs/cost.py: {name} -->\n{made()}<!-- until here -->" in document


def test_every_rate_stands_in_the_document_that_it_cites(cost: ModuleType) -> None:
    missing = [
        name
        for name, one in cost.MEASURED.items()
        if " ".join(one.said.split()) not in " ".join((ROOT / one.document).read_text(encoding="utf-8").split())
    ]
    assert missing == []


def test_a_bill_is_the_sum_of_its_lines_and_grows_with_the_load(cost: ModuleType) -> None:
    small, asked, large = cost.SIZES
    assert cost.total(small) < cost.total(asked) < cost.total(large)
    assert all(dollars >= 0 for size in cost.SIZES for *_, dollars in cost.every_line(size))
    assert cost.total(asked) == pytest.approx(sum(dollars for *_, dollars in cost.every_line(asked)))


def test_the_plan_names_the_bill_as_it_is_computed(cost: ModuleType) -> None:
    plan = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert cost.sentence() in " ".join(plan.split())


def test_the_plan_is_two_pages() -> None:
    assert len((ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_every_picture_is_of_its_source() -> None:
    pictures = module("pictures")
    sources = sorted(pictures.PICTURES.glob("*.dot"))
    assert [source.stem for source in sources] == ["aws", "laptop"]
    assert [source.name for source in sources if not pictures.is_current(source)] == []
