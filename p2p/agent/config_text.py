"""A configuration written as the TOML that would be read as it; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from p2p.agent.config import AgentConfig, Fleet, Follow
from p2p.agent.hours import window_table
from p2p.agent.limits import show_setting
from p2p.deploy.target import Target as DeployTarget
from p2p.deploy.target import TreeTarget
from p2p.net.identity import Membership

Values = dict[str, Any]


def config_table(config: AgentConfig) -> Values:
    """Return a configuration as the tables of a file that says the same."""
    membership = Membership.OPEN if config.fleet is None else Membership.FLEET
    table: Values = {
        "repo": config.repo,
        "state": config.state,
        "socket": config.socket,
        "writer": config.writer,
        "site": config.site,
        "membership": membership.value,
        "neighbours": {
            "listen": _listen(config),
            "mdns": config.mdns,
            "interfaces": list(config.interfaces),
            "never-interfaces": list(config.never_interfaces),
            "peers": list(map(str, config.peers)),
            "compress": config.compress,
        },
        "share": {"enabled": config.share, "protected": config.share_protected},
        "origin": {
            "poll-seconds": config.poll_seconds,
            "max-offline-age": config.max_offline_age,
        },
        "limits": _limits(config),
    }
    if config.fleet is not None:
        table["fleet"] = _fleet(config.fleet)
    if config.credentials:
        table["credentials"] = dict(config.credentials)
    if config.deploy is not None:
        table["deploy"] = _deploy(config.deploy)
    if config.hours:
        table["hours"] = list(map(window_table, config.hours))
    if config.follow:
        table["follow"] = list(map(_follow, config.follow))
    return table


def _limits(config: AgentConfig) -> Values:
    values = config.limits.values
    return {
        **{name: show_setting(name, value) for name, value in values.items()},
        "metered-interfaces": list(config.limits.metered_interfaces),
    }


def _listen(config: AgentConfig) -> str:
    host = config.listen_host
    return f"{f'[{host}]' if ':' in host else host}:{config.listen_port}"


def _fleet(fleet: Fleet) -> Values:
    files = {
        "authority": fleet.authority,
        "certificate": fleet.certificate,
        "key": fleet.key,
        "secret": fleet.secret,
    }
    return _said(files)


def _deploy(target: DeployTarget) -> Values:
    how = target.settings
    if isinstance(target, TreeTarget):
        place: Values = {"tree": target.directory}
    else:
        place = _said({"sysroot": target.sysroot, "os": target.os})
    return {
        **place,
        "reboot": how.reboot.value,
        **_said({"reboot-window": how.window}),
        "reboot-command": list(how.command),
        "units": list(how.units),
        "check-seconds": how.each_seconds,
        "checks-seconds": how.all_seconds,
    }


def _follow(follow: Follow) -> Values:
    said = {"ref": follow.refspec, "url": follow.url, "key": follow.key}
    return {**_said(said), "deploy": follow.deploy}


def _said(values: Mapping[str, str | None]) -> Values:
    """Return what has a value; TOML knows no other way to say nothing."""
    return {key: value for key, value in values.items() if value is not None}


def to_toml(table: Values) -> str:
    """Return tables, lists of texts and plain values as TOML."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: Values) -> Iterator[str]:
    yield from _plain(table)
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ("", f"[{_key(name)}]", *_plain(value))
        elif _is_rows(value):
            for row in value:
                yield from ("", f"[[{_key(name)}]]", *_plain(row))


def _plain(table: Values) -> Iterator[str]:
    for name, value in table.items():
        if not isinstance(value, dict) and not _is_rows(value):
            yield f"{_key(name)} = {_quote(value)}"


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else _quote(name)


def _quote(value: object) -> str:
    # JSON's texts, numbers, truths and lists of them are TOML's, but for the one
    # control character that JSON lets stand.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
