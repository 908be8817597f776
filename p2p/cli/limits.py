"""`p2p limits`: how much of the network and the disk the agent may use."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from p2p.agent.hours import parse_minute
from p2p.cli.configured import config_option, read_config
from p2p.cli.local_api import ask
from p2p.cli.options import json_option, print_json, print_line
from p2p.errors import AgentError, ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def limits(
    context: click.Context, /, *, config_path: str | None, as_json: bool
) -> None:
    """Show what is limited, who said so and until when; or change it."""
    context.obj = config_path
    if context.invoked_subcommand is None:
        _print(ask(read_config(config_path), "/limits"), as_json=as_json)


@limits.command(name="set")
@config_option
@click.argument("settings", nargs=-1, required=True, metavar="SETTING=VALUE…")
@click.option("--for", "duration", metavar="TIME", help="For so long: 30min, 8h, 2d.")
@click.option("--until", "clock", metavar="HH:MM", help="Until it is so late next.")
@json_option
@click.pass_obj
def set_limits(
    outer: str | None,
    /,
    *,
    config_path: str | None,
    settings: tuple[str, ...],
    duration: str | None,
    clock: str | None,
    as_json: bool,
) -> None:
    """Limit something at once, whatever files say, for example upload=2mbit.

    It outlasts a restart of the agent, and holds until `p2p limits reset` unless a
    time is given.
    """
    if duration is not None and clock is not None:
        raise click.UsageError("give either --for or --until")
    until = None
    if duration is not None:
        until = time.time() + _parse_duration(duration)
    elif clock is not None:
        until = next_time(parse_minute(clock, "--until"), time.time())
    body = {"set": dict(map(_parse_setting, settings)), "until": until}
    _print(ask(read_config(config_path or outer), "/limits", body), as_json=as_json)


@limits.command
@config_option
@click.argument("settings", nargs=-1, metavar="[SETTING…]")
@json_option
@click.pass_obj
def reset(
    outer: str | None,
    /,
    *,
    config_path: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Have what files say hold again: for these settings, or for all."""
    config = read_config(config_path or outer)
    body = {"settings": list(settings)}
    _print(ask(config, "/limits/reset", body), as_json=as_json)


def _parse_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise ConfigError(text, "is not SETTING=VALUE", hint="Example: upload=2mbit.")
    return name, value


def _parse_duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or not float(match[1]):
        raise ConfigError("--for", f"{text!r} is no time like 30min, 8h or 2d")
    return float(match[1]) * _UNITS[match[2]]


def next_time(minute: int, now: float) -> float:
    """Return when the local clock shows a minute of the day next."""
    local = time.localtime(now)
    for day in (0, 1):
        when = (*local[:2], local.tm_mday + day, 0, minute, 0, 0, 0, -1)
        if (found := time.mktime(when)) > now:
            return found
    raise AssertionError("no such minute today or tomorrow")


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    try:
        for line in describe(answer, time.time()):
            print_line(line)
    except (KeyError, TypeError) as error:
        raise AgentError(
            f"the agent's limits are not of this version: {error!r}",
            hint="Restart the agent, so that it and this command are the same version.",
        ) from None


def describe(answer: dict[str, Any], now: float) -> list[str]:
    """Return lines for people about what the agent says of its limits."""
    lines = []
    for each in answer["settings"]:
        source = each["source"]
        if each["until"] is not None:
            source += f", until {_format_time(each['until'], now)}"
        lines.append(f"{each['name']:11}  {each['text']:12}  {source}")
    metered = answer["metered"]
    for name, told_by in metered["interfaces"].items():
        lines.append(f"metered      {name:12}  {told_by}")
    if not metered["interfaces"]:
        told_by = " and ".join(metered["told_by"]) or "nobody who would know is asked"
        lines.append(f"metered      {'nothing':12}  {told_by}")
    return lines


def _format_time(when: float, now: float) -> str:
    form = "%H:%M" if when < now + 86400 else "%a %d %b %H:%M"
    return time.strftime(form, time.localtime(when))
