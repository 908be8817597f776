"""`p2p deploy`, `rollback` and `deployments`: what runs, and what ran before.

With a place (`--tree` or `--sysroot`) they work on the repository themselves; without
one they ask the running agent, which has a writer deploy where that was told to.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click

from p2p.cli.configured import config_option, read_config
from p2p.cli.local_api import ask
from p2p.cli.options import default_repo, json_option, print_json, print_line, refuse
from p2p.deploy.deployment import Deployer, Outcome
from p2p.deploy.target import (
    SysrootTarget,
    Target,
    make_target,
    open_deployer,
    open_updater,
)
from p2p.deploy.verify import split_refspec
from p2p.errors import AgentError
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo

_OPTIONS = (
    click.option("--repo", "repo_path", metavar="REPO", help="The repository."),
    click.option("--tree", metavar="DIR", help="Deploy into this directory."),
    click.option("--sysroot", metavar="DIR", help="Deploy into this bootable system."),
    click.option("--os", "os_name", metavar="NAME", help="Which stateroot of it."),
    config_option,
    json_option,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works: the options' target, or None for the running agent."""

    repo_path: str | None
    target: Target | None
    config_path: str | None

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the agent answers."""
        return ask(read_config(self.config_path), path, body)

    def open(self, target: Target) -> tuple[Repo, Deployer]:
        """Return the repository, a sysroot's own by default, and what deploys it."""
        path = self.repo_path
        if path is None and isinstance(target, SysrootTarget):
            path = os.path.join(target.sysroot, "ostree/repo")
        repo = Repo.open(path if path is not None else default_repo())
        return repo, open_deployer(repo, target)


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where; the function gets them as `place`."""

    @functools.wraps(function)
    def command(
        *,
        repo_path: str | None,
        tree: str | None,
        sysroot: str | None,
        os_name: str | None,
        config_path: str | None,
        **options: object,
    ) -> None:
        target = make_target(tree=tree, sysroot=sysroot, os_name=os_name)
        if target is None and repo_path is not None:
            raise click.UsageError("--repo needs --tree or --sysroot beside it")
        function(place=Place(repo_path, target, config_path), **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command
@place_options
@refuse("--stage", reason="staged deployments are lost with the power; reboot instead")
@refuse("--retain", "--retain-pending", "--retain-rollback", reason="see `--pin`")
@refuse("--karg", "--karg-append", "--karg-delete", reason="use `ostree admin kargs`")
@refuse("--origin-file", reason="what is deployed follows REMOTE:REF")
@click.argument("refspec", metavar="REMOTE:REF")
def deploy(
    *,
    place: Place,
    as_json: bool,
    refspec: str,
) -> None:
    """Make the commit that REMOTE:REF names here what runs.

    It was pulled before; its signatures are checked once more. In a bootable system it
    runs from the next boot on, in a --tree at once.
    """
    ref = remote_ref(*split_refspec(refspec))
    if place.target is None:
        _print_answer(place.ask("/deploy", {"refspec": refspec}), as_json=as_json)
        return
    repo, _ = place.open(place.target)
    commit = repo.refs.resolve(ref)
    updater = open_updater(repo, place.target)
    _print_outcome(updater.deploy(refspec, commit), as_json=as_json)


@click.command
@place_options
def rollback(
    *,
    place: Place,
    as_json: bool,
) -> None:
    """Go back to the deployment before; once more, and it is undone."""
    if place.target is None:
        _print_answer(place.ask("/rollback", {}), as_json=as_json)
        return
    repo, _ = place.open(place.target)
    updater = open_updater(repo, place.target)
    _print_outcome(updater.rollback(), as_json=as_json)


@click.command
@place_options
@click.option("--pin", metavar="ID", help="Keep this deployment until it is unpinned.")
@click.option("--unpin", metavar="ID", help="Keep this deployment no longer.")
def deployments(
    *,
    place: Place,
    as_json: bool,
    pin: str | None,
    unpin: str | None,
) -> None:
    """List what is deployed, what runs first."""
    if place.target is None:
        if pin or unpin:
            raise click.UsageError("--pin and --unpin need --tree or --sysroot")
        listed = _listed(place.ask("/status"))
    else:
        _, deployer = place.open(place.target)
        for deployment_id, pinned in ((pin, True), (unpin, False)):
            if deployment_id is not None:
                _warn(deployer.pin(deployment_id, pinned=pinned).notes)
        listed = [asdict(each) for each in deployer.list()]
    if as_json:
        print_json({"deployments": listed})
        return
    for each in listed:
        print_line(_describe(each))
    if not listed:
        print_line("nothing is deployed")


def _listed(answer: dict[str, Any]) -> list[dict[str, Any]]:
    listed = answer.get("deployments")
    if not isinstance(listed, list):
        raise AgentError("the agent's status has no deployments")
    return listed


def _print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    _warn(outcome.notes)
    if as_json:
        record = asdict(outcome.deployment)
        print_json(record | {"changed": outcome.changed, "notes": outcome.notes})
        return
    change = "" if outcome.changed else "unchanged, "
    print_line(change + _describe(asdict(outcome.deployment)))


def _print_answer(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print_line(_describe(answer))


def _warn(notes: tuple[str, ...]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _describe(deployment: dict[str, Any]) -> str:
    """Return the line of a deployment, here or as the agent lists it."""
    try:
        seconds = deployment["time"]
        when = (
            "-"
            if seconds is None
            else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
        )
        pinned = "  pinned" if deployment["pinned"] else ""
        return (
            f"{deployment['state']:8}  {deployment['id']}  "
            f"{deployment['refspec'] or '-'}  {when}{pinned}"
        )
    except (KeyError, TypeError) as error:
        raise AgentError(
            f"the agent's answer is not of this version: {error!r}"
        ) from None
