"""The `p2p` command: finds the subcommand, and turns errors into words and codes.

Each group of commands is a module that is imported only when one of it is run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys

import click

from p2p import __version__
from p2p.cli.options import refusals, refuse
from p2p.errors import Error, OutputError, UnsupportedOptionError, single_error
from p2p.ostree.disk import disk_error

_MODULES = {
    "agent": "agent",
    "check": "control",
    "checkout": "upkeep",
    "commit": "tree",
    "confirm": "history",
    "config": "config",
    "deploy": "deploy",
    "deployments": "deploy",
    "disable": "control",
    "doctor": "doctor",
    "enable": "control",
    "events": "history",
    "follow": "control",
    "fsck": "upkeep",
    "history": "history",
    "init": "repository",
    "keygen": "repository",
    "limits": "limits",
    "ls": "listing",
    "peers": "control",
    "prune": "upkeep",
    "pull": "pull",
    "push": "push",
    "remote": "remote",
    "rollback": "deploy",
    "serve": "serve",
    "show": "tree",
    "sim": "sim",
    "status": "control",
    "treehub": "origin",
    "unfollow": "control",
    "writer": "writer_service",
}
_INTERRUPTED = 128 + signal.SIGINT


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
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
@click.option("--repo", metavar="REPO", hidden=True)  # `default_repo` reads it
@refuse("--sysroot", reason="give --repo=SYSROOT/ostree/repo")
def p2p(repo: str | None) -> None:
    """Share OSTree updates between the devices of a site.

    Everything that is fetched is checked against a signed commit before it becomes
    visible. `--repo` defaults to $OSTREE_REPO, then to /sysroot/ostree/repo.
    """


def arguments_of_ostree(arguments: list[str]) -> list[str]:
    """Return the arguments without the name of this program among them.

    `ostree p2p pull …` runs `ostree-p2p p2p pull …`, and with options in front it
    runs `ostree-p2p --repo=R p2p pull …`.
    """
    for index, argument in enumerate(arguments):
        if argument == "p2p":
            return arguments[:index] + arguments[index + 1 :]
        if not argument.startswith("-"):
            break
    return arguments


def report(error: Error, *, as_json: bool) -> int:
    """Print what went wrong, whose fault it is and what to do; return the status."""
    kind, code = type(error).__name__, error.exit_code
    _report(kind, str(error), error.hint, code, as_json=as_json)
    return error.exit_code


def _report(kind: str, message: str, hint: str, code: int, *, as_json: bool) -> None:
    with contextlib.suppress(OSError):
        # Where nobody reads, the exit status still tells.
        if as_json and kind != OutputError.__name__:
            record = {"error": kind, "message": message, "hint": hint}
            click.echo(json.dumps({**record, "exit_code": code}))
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"  {hint}", err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit status (see `p2p.errors`)."""
    arguments = arguments_of_ostree(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in arguments
    try:
        status = p2p.main(arguments, prog_name="p2p", standalone_mode=False)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        return _report_usage(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return _report_interrupt(as_json=as_json)
    except BaseExceptionGroup as group:
        return _report_group(group, as_json=as_json)
    except Error as error:
        return report(error, as_json=as_json)
    except OSError as error:
        return report(disk_error("this system", error), as_json=as_json)
    finally:
        _flush()
    # Most commands return nothing, which is success.
    return status if isinstance(status, int) else 0


def _report_usage(error: click.ClickException, *, as_json: bool) -> int:
    """Report a command line that is wrong, or holds an option that is not taken."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        reason = refusals(error.ctx.command.callback).get(error.option_name)
        if reason is not None:
            refusal = UnsupportedOptionError(f"{error.option_name}: {reason}")
            return report(refusal, as_json=as_json)
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.get_usage()}; see `{error.ctx.command_path} --help`."
    kind = type(error).__name__
    _report(kind, error.format_message(), hint, error.exit_code, as_json=as_json)
    return error.exit_code


def _report_interrupt(*, as_json: bool) -> int:
    hint = "What was done so far is kept; the same command goes on from there."
    _report("Interrupted", "interrupted", hint, _INTERRUPTED, as_json=as_json)
    return _INTERRUPTED


def _report_group(group: BaseExceptionGroup[BaseException], *, as_json: bool) -> int:
    """Report the one error that concurrent tasks ended with."""
    error = single_error(group)
    if error is not None:
        return report(error, as_json=as_json)
    if group.subgroup(KeyboardInterrupt) is not None:
        return _report_interrupt(as_json=as_json)
    raise group


def _flush() -> None:
    """Flush standard output, so that the interpreter need not when it ends.

    What cannot be written was reported or has been written long before.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
