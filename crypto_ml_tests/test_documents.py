"""What README, CONTRIBUTING, CHANGELOG and docs name is there: links, files, modules, make targets, commands."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from crypto_ml.cli import main
from crypto_ml_tests.examples.make import DOCUMENT, PART, TEMPLATE

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

WITHIN = click.Context(main)
COMMANDS = {name: command for name in main.list_commands(WITHIN) if (command := main.get_command(WITHIN, name))}

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
TARGET = re.compile(r"\bmake ((?:[a-z]+ )*[a-z]+)")
COMMAND = re.compile(r"(?<![\w/.-])(?:\.venv/bin/)?crypto-ml ([a-z][a-z-]*)")
MODULE = re.compile(r"\b((?:crypto_ml|crypto_ml_tests|benchmarks)(?:\.\w+)+)\b")
PATH = re.compile(
    r"(?<![\w/.<>{…])"
    r"((?:[\w.-]+/)*[\w.-]+\.(?:py|md|toml|yaml|json|lock|png)|(?:[\w.-]+/)+)"
    r"(?![\w/<*…])"
)
ROOMS = ("", "crypto_ml/", "crypto_ml_tests/", "crypto_ml_tests/**/")
"""Below what a document may leave out of a path; tests are named by their file alone."""

STORED = (
    *("uploads/", "predictions/", "forecasts/", "market_history/", "prediction_log/"),
    *("raw/", "receipts/", "models/", "cache/"),
    "requests/",  # what bodies are called where files have keys
)
"""What a document names of the bucket, and of no repository."""

MADE = (".venv/", ".crypto_ml/", "dist/", "deploy/secrets/", "evidence/check.py")
"""What is made where the project is used."""

ANY = {"NAME", "NAME.py", "VERSION.tar.xz"}
"""Names that stand for any other."""


def documents() -> list[Path]:
    """The documents, and any other that comes to lie beside them."""
    return sorted({*(ROOT / name for name in DOCUMENTS), *(ROOT / "docs").glob("*.md")})


@pytest.fixture(params=documents(), ids=lambda path: str(path.name))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_in(path: Path) -> Iterator[str]:
    """What a document has in code blocks and between back quotes, a line each; of what was typed at a prompt, the
    commands and not what they printed."""
    for found in CODE.findall(text_of(path)):
        lines = found.strip("`").splitlines()
        yield from (line for line in lines if found[:10] != "```console" or line.startswith("$ "))


def anchors(path: Path) -> set[str]:
    """The fragments by which GitHub links to the headings of a document."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text_of(path))}


def targets_in(path: Path) -> set[str]:
    """The targets that a document says to make; behind a `#` stands what they do."""
    lines = (line.partition("#")[0] for line in code_in(path))
    return {target for line in lines for found in TARGET.findall(line) for target in found.split()}


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))


def is_module(name: str) -> bool:
    """Whether there is a module or package of this name, or a module that may have it as its last part."""
    path = ROOT / name.replace(".", "/")
    modules = (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py"))
    return path.name in ANY or any(module.is_file() for module in modules)


def is_there(path: str) -> bool:
    """Whether a document may name this path: of the repository, of the bucket, or made by whoever uses it."""
    if path.startswith((*STORED, *MADE)) or Path(path).name in ANY:
        return True
    return any(any(ROOT.glob(f"{room}{path}".rstrip("/"))) for room in ROOMS)


def unknown(names: Iterator[str], known: Callable[[str], bool]) -> list[str]:
    return sorted({name for name in names if not known(name)})


def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    def leads(link: str) -> bool:
        if link.startswith(("https://", "mailto:")):
            return True
        path, _, fragment = link.partition("#")
        target = (document.parent / unquote(path)).resolve() if path else document
        return target.exists() and (not fragment or fragment in anchors(target))

    assert not unknown(iter(LINK.findall(text_of(document))), leads)


def test_every_make_target_that_is_named_is_in_the_makefile(document: Path) -> None:
    assert not unknown(iter(targets_in(document)), makefile_targets().__contains__)


def test_every_command_that_is_named_is_one_of_crypto_ml(document: Path) -> None:
    named = (name for line in code_in(document) for name in COMMAND.findall(line))
    assert not unknown(named, COMMANDS.__contains__)


def test_every_module_that_is_named_is_there(document: Path) -> None:
    named = (name for line in code_in(document) for name in MODULE.findall(line))
    assert not unknown(named, is_module)


def test_every_file_and_folder_that_is_named_is_there(document: Path) -> None:
    named = (name for line in code_in(document) for name in PATH.findall(line))
    assert not unknown(named, is_there)


def test_readme_names_every_command_and_every_target_is_named_somewhere() -> None:
    shown = {name for name, command in COMMANDS.items() if not command.hidden}
    assert not sorted(shown - {name for line in code_in(ROOT / "README.md") for name in COMMAND.findall(line)})
    told = {target for path in documents() for target in targets_in(path)}
    assert not sorted(makefile_targets() - told - {"help"})


def test_the_commands_shown_are_those_of_the_template_and_what_is_said_of_them_too() -> None:
    """Whoever edits either has to run `make examples`."""

    def said(text: str) -> tuple[list[str], list[int]]:
        blocks = [part["block"] for part in PART.finditer(text) if part["block"] is not None]
        return PART.sub("", text).split(), [len(re.findall(r"^\$ ", block, re.MULTILINE)) for block in blocks]

    assert said(text_of(DOCUMENT)) == said(text_of(TEMPLATE))


def test_every_command_is_shown_with_a_run_of_it() -> None:
    shown = {name for name, command in COMMANDS.items() if not command.hidden}
    assert shown <= set(re.findall(r"^\$ .*\bcrypto-ml ([a-z-]+)", text_of(DOCUMENT), re.MULTILINE))


def test_every_option_that_is_named_is_one_of_its_command(document: Path) -> None:
    named = (found for line in code_in(document) for found in re.findall(r"\bcrypto-ml ([a-z-]+)([^|#;&]*)", line))
    every = ((name, option) for name, rest in named for option in re.findall(r"(?<=\s)--[a-z-]+", rest))

    def known(used: tuple[str, str]) -> bool:
        name, option = used
        return option == "--help" or any(
            option in (*param.opts, *param.secondary_opts) for param in COMMANDS[name].params
        )

    assert not [used for used in every if not known(used)]
