"""What a command prints: the one place that does, so that text from outside never steers a terminal."""

import json
from typing import Any

import click

from crypto_ml.visible import visible


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line for people; whatever is in it, it stays one line."""
    click.echo(visible(line), err=err)


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print data for programs; JSON spells out what steers a terminal by itself."""
    click.echo(json.dumps(document, indent=indent, default=str))


def in_rich(text: str) -> str:
    """Text for rich, in which square brackets are no markup."""
    from rich.markup import escape

    return escape(visible(text))
