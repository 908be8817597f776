"""`p2p history`, `p2p events` and `p2p confirm`: the steps of updates."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from p2p.cli.configured import config_option, read_config
from p2p.cli.deploy import Place, place_options
from p2p.cli.options import json_option, print_json, print_line
from p2p.deploy.history import describe, describe_job
from p2p.deploy.journal_file import read_journal
from p2p.deploy.target import journal_of, open_updater
from p2p.errors import AgentError, ConfigError, UnhealthyError
from p2p.ostree.mounts import make_writable
from p2p.ostree.repo import Repo

_FOLLOW_SECONDS = 1.0
# For a writer that is just about to have this done.
_TURN_SECONDS = 60.0


@click.command
@place_options
def history(*, place: Place, as_json: bool) -> None:
    """Show the steps of updates: when, which, and why."""
    answer = _reader(place)(0)
    if as_json:
        print_json(answer)
        return
    for event in answer["events"]:
        print_line(_describe(event))
    if not answer["events"]:
        print_line("nothing was deployed yet")


@click.command
@place_options
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
def events(*, place: Place, as_json: bool, follow: bool) -> None:
    """Print the steps of updates, each as soon as it is made with --follow."""
    read, after = _reader(place), 0
    while True:
        for event in read(after)["events"]:
            after = event["number"]
            if as_json:
                print_json(event)
            else:
                print_line(_describe(event))
        if not follow:
            return
        time.sleep(_FOLLOW_SECONDS)


@click.command
@config_option
@json_option
def confirm(*, config_path: str | None, as_json: bool) -> None:
    """Check what was updated and booted: confirm it, or go back.

    The service does it at every boot. Where nothing waits for it, nothing is done.
    """
    config = read_config(config_path)
    if config.deploy is None:
        raise ConfigError("deploy", "nowhere to deploy to is configured")
    make_writable(config.repo)
    repo = Repo.open(config.repo)
    updater = open_updater(repo, config.deploy, agent=config.socket)
    job = updater.go_on(timeout_seconds=_TURN_SECONDS)
    if as_json:
        print_json({"update": None if job is None else describe_job(job)})
    elif job is None:
        print_line("nothing was deployed yet")
    else:
        print_line(f"{job.step}  {job.commit}  {job.cause}")
    if job is not None and job.bad:
        raise UnhealthyError(f"{job.commit} is {job.step}: {job.cause}")


def _reader(place: Place) -> Callable[[int], dict[str, Any]]:
    """Return what gives the events behind a number."""
    if place.target is None:
        return lambda after: _checked(place.ask("/history", {"after": after}))
    repo, _ = place.open(place.target)
    path = journal_of(repo, place.target)
    return lambda after: describe(read_journal(path), after)


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(answer.get("events"), list):
        raise AgentError("the agent's answer has no events")
    return answer


def _describe(event: dict[str, Any]) -> str:
    try:
        when = f"{datetime.fromtimestamp(event['time'], UTC):%Y-%m-%d %H:%M:%S}Z"
        what = f"{event['step'] or 'note':12}  {event['commit'][:16]:16}"
        return f"{when}  {what}  {event['cause']}".rstrip()
    except (KeyError, TypeError) as error:
        raise AgentError(
            f"the agent's answer is not of this version: {error!r}"
        ) from None
