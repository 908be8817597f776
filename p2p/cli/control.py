"""What people ask of a running agent: status, peers, enable, follow and so on."""

from __future__ import annotations

import time
from typing import Any

import click

from p2p.cli.configured import config_option, read_config
from p2p.cli.local_api import ask
from p2p.cli.options import format_bytes, json_option, print_json, print_line
from p2p.errors import AgentError


@click.command
@config_option
@json_option
def status(*, config_path: str | None, as_json: bool) -> None:
    """Show what the agent follows, what it has, and what came from where."""
    answer = ask(read_config(config_path), "/status")
    if as_json:
        print_json(answer)
        return
    _print_status(answer)


@click.command
@config_option
@json_option
def peers(*, config_path: str | None, as_json: bool) -> None:
    """Show the neighbours that are met or known, and why sessions ended."""
    answer = ask(read_config(config_path), "/peers")
    if as_json:
        print_json(answer)
        return
    _print_peers(answer)


def _print_peers(answer: dict[str, Any]) -> None:
    for peer in answer["peers"]:
        held = sum(commit["held"] == "complete" for commit in peer["commits"])
        print_line(
            f"{peer['device'][:16]}  {peer['address']:24}  {peer['software']:20}  "
            f"{held} of {len(peer['commits'])} commits complete, "
            f"{format_bytes(peer['given_bytes'])} given"
        )
    others = [known for known in answer["known"] if not known["met"]]
    for known in others:
        print_line(
            f"{(known['device'] or known['instance'])[:16]}  {known['address']:24}  "
            f"known for {_duration(known['seconds'])}, no session"
        )
    if not answer["peers"] and not others:
        print_line("no neighbours")
    for banned in answer["banned"]:
        left = _duration(banned["seconds"])
        print_line(f"{banned['device'][:16]}  banned for {left}: {banned['reason']}")
    for ended in answer["ended"]:
        print_line(
            f"{ended['device'][:16]}  {ended['address']:24}  a session ended "
            f"{_duration(ended['seconds'])} ago: {ended['reason']}"
        )


@click.command
@config_option
@json_option
def enable(*, config_path: str | None, as_json: bool) -> None:
    """Look for neighbours and share with them what is followed."""
    _command(config_path, "/enable", {}, as_json=as_json)


@click.command
@config_option
@json_option
def disable(*, config_path: str | None, as_json: bool) -> None:
    """Share nothing, and take nothing from neighbours; updates go on."""
    _command(config_path, "/disable", {}, as_json=as_json)


@click.command
@config_option
@click.argument("refspec", metavar="REMOTE:REF")
@click.option("--deploy", is_flag=True, help="Deploy each new commit.")
@json_option
def follow(
    *, config_path: str | None, refspec: str, deploy: bool, as_json: bool
) -> None:
    """Keep up with a branch of a remote (see `p2p remote add`)."""
    body = {"refspec": refspec, "deploy": deploy}
    _command(config_path, "/follow", body, as_json=as_json)


@click.command
@config_option
@click.argument("refspec", metavar="REMOTE:REF")
@json_option
def unfollow(*, config_path: str | None, refspec: str, as_json: bool) -> None:
    """Keep up with a branch no more; what was pulled of it stays."""
    _command(config_path, "/unfollow", {"refspec": refspec}, as_json=as_json)


@click.command
@config_option
@click.argument("refspec", required=False, metavar="[REMOTE:REF]")
@json_option
def check(*, config_path: str | None, refspec: str | None, as_json: bool) -> None:
    """Look for new commits now instead of at the next poll."""
    _command(config_path, "/check", {"refspec": refspec}, as_json=as_json)


def _command(
    config_path: str | None, path: str, body: dict[str, Any], *, as_json: bool
) -> None:
    answer = ask(read_config(config_path), path, body)
    if as_json:
        print_json(answer)


def _print_status(answer: dict[str, Any]) -> None:
    try:
        sharing = "enabled" if answer["enabled"] else "disabled (`p2p enable`)"
        print_line(f"repository   {answer['repo']}")
        print_line(f"neighbours   {answer['neighbours']}, sharing {sharing}")
        if answer["site"]:
            print_line(f"site         {answer['site']}")
        for branch in answer["branches"]:
            print_line(f"branch       {branch['refspec']}  {_describe(branch)}")
        for deployment in answer["deployments"]:
            print_line(
                f"deployment   {deployment['state']:10} {deployment['commit'][:16]}  "
                f"{deployment['refspec'] or ''}"
            )
        if answer["update"] is not None:
            job = answer["update"]
            print_line(
                f"step         {job['step']:12} {job['commit'][:16]}  {job['cause']}"
            )
        for update in answer["updates"][-5:]:
            print_line(f"update       {_describe_update(update)}")
        for problem in answer["problems"]:
            print_line(f"problem      {problem}")
    except (KeyError, TypeError) as error:
        raise AgentError(
            f"the agent's status is not of this version: {error!r}",
            hint="Restart the agent, so that it and this command are the same version.",
        ) from None


def _describe(branch: dict[str, Any]) -> str:
    commit = branch["commit"]
    words = ["nothing yet" if commit is None else commit[:16]]
    if branch["confirmed"] is not None:
        words.append(f"confirmed {_ago(branch['confirmed'])}")
    if branch["stale"]:
        words.append("only its origin is believed (max-offline-age)")
    pull = branch["pull"]
    if pull is not None:
        total = f"{pull['total_objects']}{'' if pull['total_known'] else '+'}"
        words.append(f"pulling: {pull['staged_objects']} of {total} objects")
    last = branch["last"]
    if last is not None and last["error"]:
        words.append(f"{last['error']}: {last['message']} ({last['hint']})")
    if pull is None:
        words.append(f"next check in {branch['next_check_seconds']:.0f} s")
    return ", ".join(words)


def _describe_update(update: dict[str, Any]) -> str:
    if update["error"]:
        what = f"{update['error']}: {update['message']}"
    else:
        what = (
            f"{update['commit'][:16]}  origin {format_bytes(update['origin_bytes'])}, "
            f"neighbours {format_bytes(update['peer_bytes'])}, "
            f"{update['seconds']:.1f} s"
        )
    return f"{_ago(update['time'])}  {update['refspec']}  {what}"


def _ago(when: float) -> str:
    return f"{_duration(time.time() - when)} ago"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
