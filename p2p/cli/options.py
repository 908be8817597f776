"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

import click

SYSTEM_REPO = "/sysroot/ostree/repo"


def default_repo() -> str:
    """Return $OSTREE_REPO, else `.` where it is a repository, else the system's."""
    if repo := os.environ.get("OSTREE_REPO"):
        return repo
    if os.path.isdir("objects") and os.path.isfile("config"):
        return "."
    return SYSTEM_REPO


repo_option = click.option(
    "--repo",
    "repo_path",
    default=default_repo,
    metavar="REPO",
    help="The repository; else $OSTREE_REPO, else the system's.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)


def print_json(record: object) -> None:
    """Print a result; dataclasses become objects."""
    click.echo(json.dumps(record, default=_plain))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def refuse(*names: str, reason: str) -> Callable[[Any], Any]:
    """Return a decorator that takes an option of `ostree` only to refuse it."""

    def complain(ctx: click.Context, param: click.Parameter, value: object) -> None:
        # A flag that was not given is False, an option None or ().
        if value:
            raise click.BadParameter(
                reason, ctx=ctx, param=param, param_hint=param.opts[0]
            )

    # A name of its own: `--tree` must not clash with the argument TREE.
    name = "refused_" + names[0].lstrip("-").replace("-", "_")
    return click.option(
        name, *names, hidden=True, expose_value=False, is_eager=True, callback=complain
    )


def format_bytes(size: float) -> str:
    """Return a number of bytes for people: 3 significant digits, binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:.3g} TiB"
