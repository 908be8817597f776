"""`p2p doctor`: looks for what keeps updates from coming."""

from __future__ import annotations

import os
from typing import Any

import click
import trio

from p2p.agent.config import SYSTEM_SOCKET, AgentConfig, default_config
from p2p.agent.doctor.examination import examine
from p2p.agent.doctor.finding import Finding, Level, failed, ok, warn
from p2p.cli.configured import config_option, read_config
from p2p.cli.local_api import agent_socket, ask
from p2p.cli.options import json_option, print_json, print_line
from p2p.errors import AgentError, ConfigError, Error

_FAILED = 1
_STATUS_SECONDS = 10.0


@click.command
@config_option
@json_option
def doctor(*, config_path: str | None, as_json: bool) -> int:
    """Look for what keeps updates from coming; name one remedy for each.

    It changes nothing, works with and without a running agent, and ends with status
    0 only if nothing failed. As root it sees most.
    """
    findings, config = _configuration(config_path)
    status, agent = _agent(config)
    findings += agent
    findings += trio.run(examine, config, status)
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    if as_json:
        print_json({"findings": findings, "counts": counts})
    else:
        _print(findings)
    return _FAILED if counts[Level.FAIL] else 0


def _configuration(path: str | None) -> tuple[list[Finding], AgentConfig]:
    """Return what counts; where it is wrong, the defaults, so that the rest is seen."""
    try:
        config = read_config(path)
        if agent_socket(config) == SYSTEM_SOCKET:
            config = read_config(path, system=True)
        return [ok("configuration", path or "nothing is wrong in it")], config
    except ConfigError as error:
        default = default_config(os.environ, os.geteuid())
        return [failed("configuration", error)], default


def _agent(config: AgentConfig) -> tuple[dict[str, Any] | None, list[Finding]]:
    try:
        return ask(config, "/status", seconds=_STATUS_SECONDS), []
    except AgentError as error:
        return None, [warn("agent", str(error), error.hint)]
    except Error as error:
        return None, [failed("agent", error)]


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print_line(f"{finding.level:4}  {finding.check:{width}}  {finding.message}")
        if finding.remedy:
            print_line(f"{'':6}{'':{width}}  -> {finding.remedy}")
