"""`p2p deploy`, `rollback` and `deployments`: what runs, and what ran before.

With a place (`--tree` or `--sysroot`) they work on the repository themselves; without
one they ask the running agent, which has a writer deploy where that was told to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from p2p.cli.local_api import ask, config_option, read_config
from p2p.cli.options import default_repo, json_option, print_json, print_line, refuse
from p2p.deploy.deployment import Deployer, Outcome
from p2p.deploy.target import SysrootTarget, Target, make_target, open_deployer
from p2p.deploy.verify import split_refspec, verify_deployable
from p2p.errors import AgentError
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo

F = TypeVar("F", bound=Callable[..., None])

_OPTIONS = (
    click.option("--repo", "repo_path", metavar="REPO", help="The repository."),
    click.option("--tree", metavar="DIR", help="Deploy into this directory."),
    click.option("--sysroot", metavar="DIR", help="Deploy into this bootable system."),
    click.option("--os", "os_name", metavar="NAME", help="Which stateroot of it."),
    config_option,
    json_option,
)


def _place_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command
@_place_options
@refuse("--stage", reason="staged deployments are lost with the power; reboot instead")
@refuse("--retain", "--retain-pending", "--retain-rollback", reason="see `--pin`")
@refuse("--karg", "--karg-append", "--karg-delete", reason="use `ostree admin kargs`")
@refuse("--origin-file", reason="what is deployed follows REMOTE:REF")
@click.argument("refspec", metavar="REMOTE:REF")
def deploy(
    *,
    repo_path: str | None,
    tree: str | None,
    sysroot: str | None,
    os_name: str | None,
    config_path: str | None,
    as_json: bool,
    refspec: str,
) -> None:
    """Make the commit that REMOTE:REF names here what runs.

    It was pulled before; its signatures are checked once more. In a bootable system it
    runs from the next boot on, in a --tree at once.
    """
    target = make_target(tree=tree, sysroot=sysroot, os_name=os_name)
    ref = remote_ref(*split_refspec(refspec))
    if target is None:
        _refuse_repo(repo_path)
        answer = ask(read_config(config_path), "/deploy", {"refspec": refspec})
        _print_answer(answer, as_json=as_json)
        return
    repo, deployer = _open(repo_path, target)
    commit = repo.refs.resolve(ref)
    verify_deployable(repo, refspec, commit)
    _print_outcome(deployer.deploy(refspec, commit), as_json=as_json)


@click.command
@_place_options
def rollback(
    *,
    repo_path: str | None,
    tree: str | None,
    sysroot: str | None,
    os_name: str | None,
    config_path: str | None,
    as_json: bool,
) -> None:
    """Go back to the deployment before; once more, and it is undone."""
    target = make_target(tree=tree, sysroot=sysroot, os_name=os_name)
    if target is None:
        _refuse_repo(repo_path)
        answer = ask(read_config(config_path), "/rollback", {})
        _print_answer(answer, as_json=as_json)
        return
    _, deployer = _open(repo_path, target)
    _print_outcome(deployer.rollback(), as_json=as_json)


@click.command
@_place_options
@click.option("--pin", metavar="ID", help="Keep this deployment until it is unpinned.")
@click.option("--unpin", metavar="ID", help="Keep this deployment no longer.")
def deployments(
    *,
    repo_path: str | None,
    tree: str | None,
    sysroot: str | None,
    os_name: str | None,
    config_path: str | None,
    as_json: bool,
    pin: str | None,
    unpin: str | None,
) -> None:
    """List what is deployed, what runs first."""
    target = make_target(tree=tree, sysroot=sysroot, os_name=os_name)
    if target is None:
        _refuse_repo(repo_path)
        if pin or unpin:
            raise click.UsageError("--pin and --unpin need --tree or --sysroot")
        listed = _listed(ask(read_config(config_path), "/status"))
    else:
        _, deployer = _open(repo_path, target)
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


def _refuse_repo(repo_path: str | None) -> None:
    """Refuse a repository without a place: the agent has its own."""
    if repo_path is not None:
        raise click.UsageError("--repo needs --tree or --sysroot beside it")


def _open(repo_path: str | None, target: Target) -> tuple[Repo, Deployer]:
    if repo_path is None and isinstance(target, SysrootTarget):
        repo_path = os.path.join(target.sysroot, "ostree/repo")
    repo = Repo.open(repo_path if repo_path is not None else default_repo())
    return repo, open_deployer(repo, target)


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
