"""Checks of the running agent, from what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from p2p import __version__
from p2p.agent.config import Follow, parse_refspec
from p2p.agent.doctor.finding import Finding, fail, ok, warn
from p2p.errors import AgentError, FormatError

Status = Mapping[str, Any]


def check_agent(status: Status) -> tuple[list[Finding], list[Follow]]:
    """Tell what the agent itself complains of, and what it follows.

    Raises:
        AgentError: the status is not one of this version.

    """
    try:
        return list(_look(status)), list(_followed(status))
    except (KeyError, TypeError, AttributeError, FormatError) as error:
        raise AgentError(
            f"the agent's status is not of this version: {error!r}",
            hint="Restart the agent, so that it and this command are the same version.",
        ) from None


def _followed(status: Status) -> Iterator[Follow]:
    for branch in status["branches"]:
        remote, ref = parse_refspec(branch["refspec"])
        yield Follow(remote=remote, ref=ref)


def _look(status: Status) -> Iterator[Finding]:
    if status["version"] != __version__:
        yield warn(
            "agent",
            f"version {status['version']} runs, and this is {__version__}",
            "Restart the agent.",
        )
    elif not status["enabled"]:
        yield ok("agent", "running, sharing disabled (`p2p enable`)")
    else:
        yield ok("agent", f"running, {status['neighbours']} neighbours, sharing")
    for problem in status["problems"]:
        yield warn("agent", problem, "See the agent's log.")
    for branch in status["branches"]:
        yield _branch(branch)


def _branch(branch: Mapping[str, Any]) -> Finding:
    check, last = f"branch {branch['refspec']}", branch["last"]
    if last is not None and last["error"]:
        return fail(check, f"{last['error']}: {last['message']}", last["hint"])
    if branch["commit"] is None:
        return ok(check, "nothing pulled yet")
    return ok(check, f"at {branch['commit'][:16]}")
