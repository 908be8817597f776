"""How updates are carried out: what is checked, and when a reboot is due.

The writer is told them on its command line, as one option.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from p2p.errors import ConfigError

_OPTION = "--settings"
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class Reboot(StrEnum):
    """When a reboot into a new deployment is due."""

    NEVER = "never"
    """People reboot."""
    IDLE = "idle"
    """As soon as the system has little to do."""
    WINDOW = "window"
    """In certain hours."""
    COMMAND = "command"
    """A program is run instead of a reboot, and reboots when it sees fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What may be set of updates.

    Attributes:
        reboot: when a reboot is due.
        window: `HH:MM-HH:MM`, by local time, for `Reboot.WINDOW`.
        command: the program and its arguments, for `Reboot.COMMAND`.
        units: systemd units that a healthy system has active.
        each_seconds: how long one check may take.
        all_seconds: how long all checks may take together.

    """

    reboot: Reboot = Reboot.NEVER
    window: str | None = None
    command: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    each_seconds: float = 60.0
    all_seconds: float = 300.0

    def options(self) -> tuple[str, ...]:
        """Return them as options of a command line."""
        return () if self == Settings() else (f"{_OPTION}={json.dumps(asdict(self))}",)


def parse_settings(text: str) -> Settings:
    """Return the settings in an option's value; ConfigError if there are none."""
    try:
        values = json.loads(text)
        known = {each.name for each in fields(Settings)}
        if not isinstance(values, dict) or not known.issuperset(values):
            raise ValueError("not settings of updates")
        return _settings(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(_OPTION, str(error)) from None


def _settings(values: dict[str, Any]) -> Settings:
    for name in ("command", "units"):
        values[name] = tuple(values.get(name, ()))
    return Settings(**{**values, "reboot": Reboot(values.get("reboot", "never"))})


def window_minutes(text: str) -> tuple[int, int] | None:
    """Return the minutes of a day at which a window begins and ends; None: none."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        return None
    hours = list(map(int, match.groups()))
    return hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
