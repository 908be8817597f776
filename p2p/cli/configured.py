"""The agent's configuration as commands read it, and options beside it."""

from __future__ import annotations

import os

import click

from p2p.agent.config import AgentConfig, load_config
from p2p.cli.options import F
from p2p.net.interfaces import Choice

config_option = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help="Read this configuration instead of the system's and the user's.",
)


system_option = click.option(
    "--system",
    is_flag=True,
    help="Whoever runs this, take the system's configuration, not the user's.",
)


def read_config(path: str | None, *, system: bool = False) -> AgentConfig:
    """Return the configuration that counts for this user; ConfigError if it is bad."""
    return load_config(path, os.environ, 0 if system else os.geteuid())


def mdns_options(function: F) -> F:
    """Add the options of commands that look for neighbours."""
    function = click.option(
        "--no-mdns", is_flag=True, help="Do not look for neighbours."
    )(function)
    return click.option(
        "--interface",
        "interfaces",
        metavar="NAME",
        multiple=True,
        help="Look for neighbours on this network interface, not on all.",
    )(function)


def choose_interfaces(config: AgentConfig, named: tuple[str, ...]) -> Choice:
    """Return where to look for neighbours: what is named counts."""
    return Choice(only=named or config.interfaces, never=config.never_interfaces)
