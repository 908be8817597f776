"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from p2p.errors import OutputError

F = TypeVar("F", bound=Callable[..., None])

_REFUSED = "refused_options"
_QUIET = "no more than what is shown is ever printed"
_REFUSED_EVERYWHERE = {
    "-v": _QUIET,
    "--verbose": _QUIET,
    "--version": "give it before the command: `p2p --version`",
}
# A token of RFC 9110.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SYSTEM_REPO = "/sysroot/ostree/repo"


def default_repo() -> str:
    """Return `--repo` from before the command, else what it stands for.

    That is $OSTREE_REPO, else `.` where it is a repository, else the system's.
    """
    context = click.get_current_context(silent=True)
    repo: str | None = context.find_root().params.get("repo") if context else None
    if repo:
        return repo
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
    print_line(json.dumps(record, default=_plain))


def print_line(text: str, *, end: str = "\n") -> None:
    """Print a line of the result on standard output.

    Raises:
        OutputError: nobody reads it, or it cannot be written.

    """
    try:
        click.echo(text + end, nl=False)
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from None


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def refuse(*names: str, reason: str) -> Callable[[F], F]:
    """Return a decorator that notes options of `ostree` and why they are not taken."""

    def note(function: F) -> F:
        notes = refusals(function)
        vars(function)[_REFUSED] = notes | dict.fromkeys(names, reason)
        return function

    return note


def refusals(function: object) -> dict[str, str]:
    """Return why options of a command's function are not taken, by option."""
    notes: dict[str, str] = getattr(function, _REFUSED, {})
    return _REFUSED_EVERYWHERE | notes


def parse_headers(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the headers in NAME=VALUE options; a usage error if one is none."""
    return tuple(map(_parse_header, texts))


def _parse_header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _HEADER_NAME.fullmatch(name) or not value.isprintable():
        raise click.BadParameter(
            f"{text!r} is not NAME=VALUE", param_hint="--http-header"
        )
    return name, value


def format_bytes(size: float) -> str:
    """Return a number of bytes for people: 3 significant digits, binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return f"{size:.3g} TiB"
