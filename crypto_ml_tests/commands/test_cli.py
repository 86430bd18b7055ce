"""The command itself: which commands it has, and what it loads for one of them."""

import pkgutil
from importlib import import_module

import click
from click.testing import CliRunner

from crypto_ml import commands
from crypto_ml.cli import MODULES, main


def test_every_command_of_a_module_can_be_given_and_no_other() -> None:
    found = {}
    for module in pkgutil.iter_modules(commands.__path__):
        for command in getattr(import_module(f"crypto_ml.commands.{module.name}"), "COMMANDS", ()):
            found[command.name] = module.name
    assert found == MODULES
    assert list(MODULES) == sorted(MODULES)
    within = click.Context(main)
    given = [main.get_command(within, name) for name in main.list_commands(within)]
    assert [command.name for command in given if command] == list(MODULES)


def test_a_command_that_is_not_there_is_told_with_those_that_are_alike() -> None:
    result = CliRunner().invoke(main, ["scroe"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such command 'scroe'. (Did you mean one of: 'rescore', 'score'?)" in result.stderr
