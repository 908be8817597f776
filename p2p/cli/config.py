"""`p2p config`: what is configured, and whether that is right."""

from __future__ import annotations

import os

import click

from p2p.agent.config import config_files
from p2p.agent.config_text import config_table, to_toml
from p2p.cli.configured import config_option, read_config
from p2p.cli.local_api import ask
from p2p.cli.options import json_option, print_json, print_line


@click.group
def config() -> None:
    """Check or show the configuration of the agent, or have it read again."""


@config.command
@config_option
@json_option
def check(*, config_path: str | None, as_json: bool) -> None:
    """Check that all files can be read and say nothing wrong.

    `p2p doctor` looks at what they name.
    """
    read_config(config_path)
    files = _files(config_path)
    if as_json:
        print_json({"valid": True, "files": files})
        return
    for file in files:
        print_line(f"ok  {file}")
    if not files:
        print_line("ok  there is no configuration file: defaults count")


@config.command
@config_option
@json_option
def show(*, config_path: str | None, as_json: bool) -> None:
    """Show every setting that counts, defaults too, as one file would say it."""
    table = config_table(read_config(config_path))
    files = _files(config_path)
    if as_json:
        print_json({"files": files, "settings": table})
        return
    for file in files:
        print_line(f"# from {file}")
    print_line(to_toml(table), end="")


@config.command(name="reload")
@config_option
@json_option
def reload_config(*, config_path: str | None, as_json: bool) -> None:
    """Have the agent read its configuration again: limits and hours hold at once."""
    answer = ask(read_config(config_path), "/reload", {})
    if as_json:
        print_json(answer)
        return
    print_line("reloaded")
    for name in answer.get("restart", ()):
        print_line(f"needs a restart of the agent: {name}")


def _files(path: str | None) -> list[str]:
    return [path] if path is not None else config_files(os.environ, os.geteuid())
