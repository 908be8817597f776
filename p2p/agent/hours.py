"""Hours in which other limits hold, by the clock on the wall; pure.

A window is of local time, and begins on the days it names; one whose end is not after
its beginning ends on the day after. Only the clock's face counts: where it is put
forward over a window's beginning the window begins late, and where an hour comes twice
it holds twice. Whoever looks after the clock has jumped sees what holds then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from p2p.agent.limits import SETTINGS, Layer, Value, show_setting, take_values
from p2p.agent.table import Table
from p2p.errors import ConfigError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]\d|2[0-4]):([0-5]\d)")
_DAY_MINUTES: Final = 24 * 60
# What is kept on the disk is not for some hours.
_HOURLY: Final = tuple(name for name in SETTINGS if name != "cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Some hours of some days, and what holds in them.

    Attributes:
        days: on which it begins; 0 is Monday.
        begin, end: minutes since midnight; `end` is at most 24 hours.
        values: what is limited how.
        source: which file says so.

    """

    days: tuple[int, ...]
    begin: int
    end: int
    values: Mapping[str, Value]
    source: str = field(default="configuration", compare=False)

    def holds(self, day: int, minute: int) -> bool:
        """Tell whether it holds on a day of the week, at a minute of that day."""
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        began_today = day in self.days and minute >= self.begin
        began_yesterday = (day - 1) % 7 in self.days and minute < self.end
        return began_today or began_yesterday

    def __str__(self) -> str:
        days = "" if len(self.days) == len(DAYS) else f" {format_days(self.days)}"
        return f"{format_minute(self.begin)}-{format_minute(self.end)}{days}"


def layers_at(windows: Iterable[Window], day: int, minute: int) -> list[Layer]:
    """Return what holds at a minute of a day of the week; later windows count."""
    return [
        Layer(f"hours {window}, {window.source}", window.values)
        for window in windows
        if window.holds(day, minute)
    ]


def parse_window(table: Table) -> Window:
    """Return the window that a table [[hours]] says; ConfigError names the key."""
    days = table.texts("days", DAYS)
    window = Window(
        days=_parse_days(days, table),
        begin=_parse_minute(table, "from"),
        end=_parse_minute(table, "to"),
        values=take_values(table, _HOURLY),
        source=table.where,
    )
    if window.begin == window.end:
        raise table.error("to", "is when it begins; a whole day is 00:00 to 24:00")
    if window.begin == _DAY_MINUTES:
        raise table.error("from", "must be before 24:00")
    if not window.values:
        raise table.error("from", f"says nothing of {', '.join(_HOURLY)}")
    return window


def _parse_days(texts: Iterable[str], table: Table) -> tuple[int, ...]:
    found: set[int] = set()
    for text in texts:
        first, dash, last = text.lower().partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise table.error("days", f"{text!r} is no day; give it as mon or mon-fri")
        begin = DAYS.index(first)
        count = (DAYS.index(last) - begin) % 7 if dash else 0
        found |= {(begin + number) % 7 for number in range(count + 1)}
    if not found:
        raise table.error("days", "must name a day")
    return tuple(sorted(found))


def _parse_minute(table: Table, key: str) -> int:
    text = table.text(key, None)
    if text is None:
        raise table.error(key, "is needed: a time like 08:00")
    try:
        return parse_minute(text, "")
    except ConfigError:
        raise table.error(key, f"{text!r} is no time like 08:00") from None


def parse_minute(text: str, where: str) -> int:
    """Return the minutes since midnight of 08:00; ConfigError if it is no time."""
    match = _TIME.fullmatch(text)
    minute = int(match[1]) * 60 + int(match[2]) if match else _DAY_MINUTES + 1
    if minute > _DAY_MINUTES:
        raise ConfigError(where, f"{text!r} is no time like 08:00")
    return minute


def format_minute(minute: int) -> str:
    """Return minutes since midnight as a time."""
    return f"{minute // 60:02}:{minute % 60:02}"


def format_days(days: Iterable[int]) -> str:
    """Return days of the week for people: runs of three and more as such."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    words = []
    for run in runs:
        names = [DAYS[day] for day in run]
        words += [f"{names[0]}-{names[-1]}"] if len(names) > 2 else names
    return ",".join(words)


def window_table(window: Window) -> dict[str, object]:
    """Return a window as the table that says it."""
    said = {name: show_setting(name, value) for name, value in window.values.items()}
    return {
        "days": [DAYS[day] for day in window.days],
        "from": format_minute(window.begin),
        "to": format_minute(window.end),
        **said,
    }
