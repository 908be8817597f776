"""The `p2p` command: finds the subcommand, and turns errors into words and codes.

Each group of commands is a module that is imported only when one of it is run.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys

import click

from p2p import __version__
from p2p.errors import Error

_MODULES = {
    "checkout": "upkeep",
    "commit": "tree",
    "fsck": "upkeep",
    "init": "repository",
    "keygen": "repository",
    "ls": "tree",
    "prune": "upkeep",
    "pull": "pull",
    "push": "push",
    "remote": "remote",
    "serve": "serve",
    "show": "tree",
    "treehub": "origin",
}
_INTERRUPTED = 128 + signal.SIGINT


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names for `--help`."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _MODULES:
            ctx.fail(f"there is no command {cmd_name!r}; see `p2p --help`")
        module = importlib.import_module(f"p2p.cli.{_MODULES[cmd_name]}")
        command = getattr(module, cmd_name)
        return command if isinstance(command, click.Command) else None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2p")
def p2p() -> None:
    """Share OSTree updates between the devices of a site.

    Everything that is fetched is checked against a signed commit before it becomes
    visible. `--repo` defaults to $OSTREE_REPO, then to /sysroot/ostree/repo.
    """


def arguments_of_ostree(arguments: list[str]) -> list[str]:
    """Return the arguments in our order, also when stock `ostree` passed them.

    `ostree --repo=R p2p pull …` runs `ostree-p2p --repo=R p2p pull …`: its global
    options come before the word `p2p`, and ours belong behind the command.
    """
    front: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("--repo"):
        front.append(rest.pop(0))
        if front[-1] == "--repo" and rest:
            front.append(rest.pop(0))
    if rest and rest[0] == "p2p":
        rest.pop(0)
    if not rest:
        return front
    return [rest[0], *front, *rest[1:]] if front else rest


def report(error: Error, *, as_json: bool) -> None:
    """Print what went wrong, whose fault it is and what to do."""
    if as_json:
        record = {
            "error": type(error).__name__,
            "message": str(error),
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        click.echo(json.dumps(record))
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit status (see `p2p.errors`)."""
    arguments = arguments_of_ostree(sys.argv[1:] if arguments is None else arguments)
    try:
        p2p.main(arguments, prog_name="p2p", standalone_mode=False)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.Abort:
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("interrupted; what was staged is kept", err=True)
        return _INTERRUPTED
    except BaseExceptionGroup as group:
        return _report_group(group, arguments)
    except Error as error:
        report(error, as_json="--json" in arguments)
        return error.exit_code
    return 0


def _report_group(
    group: BaseExceptionGroup[BaseException], arguments: list[str]
) -> int:
    """Report the one error that concurrent tasks ended with."""
    errors = list(_leaves(group))
    ours = [error for error in errors if isinstance(error, Error)]
    if len(ours) == len(errors):
        report(ours[0], as_json="--json" in arguments)
        return ours[0].exit_code
    if any(isinstance(error, KeyboardInterrupt) for error in errors):
        click.echo("interrupted; what was staged is kept", err=True)
        return _INTERRUPTED
    raise group


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            leaves += _leaves(error)
        else:
            leaves.append(error)
    return leaves
