"""docs/commands.md says what the program does."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from p2p import errors
from p2p.cli.main import p2p

TEXT = (Path(__file__).parents[2] / "docs/commands.md").read_text()


def commands() -> Iterator[str]:
    context = click.Context(p2p)
    for name in p2p.list_commands(context):
        command = p2p.get_command(context, name)
        assert command is not None
        if not command.hidden:
            yield name


def test_every_command_is_described() -> None:
    described = set(re.findall(r"`p2p ([a-z-]+)", TEXT))
    assert described == set(commands())


def test_every_error_has_its_exit_status() -> None:
    documented = {}
    for status, names in re.findall(r"^\| (\d+) \| (`.*?`) \|", TEXT, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            documented[name] = int(status)
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.Error)
    }
    assert documented == found
