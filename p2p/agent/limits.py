"""What an operator limits: the settings, and which of those that are said counts.

A setting may be said several times: by default, in a configuration file, for some
hours, and by command until further notice. What is said later counts, setting by
setting; and what is said carries who said it, so that people can be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from p2p.agent.table import Table
from p2p.errors import ConfigError
from p2p.qos import LOWER_EFFORT, format_dscp, parse_dscp
from p2p.rate import format_rate, parse_rate

LEAST_RATE: Final = 64_000 / 8
"""Slower than this, neighbours and origins take each other for dead."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

Value = float | int | bool | None
Values = Mapping[str, Value]


def _rate(text: str, where: str) -> Value:
    if text == "unlimited":
        return None
    rate = parse_rate(text, where=where)
    if rate < LEAST_RATE:
        raise ConfigError(
            where,
            f"{text} is less than {format_rate(LEAST_RATE)}",
            hint="Slower than that nothing gets through. `p2p disable` stops sharing.",
        )
    return rate


def _metered(text: str, where: str) -> Value:
    if text not in ("use", "avoid"):
        raise ConfigError(where, f"{text!r} is neither `use` nor `avoid`")
    return text == "use"


def parse_size(text: str, where: str) -> int:
    """Return the bytes of `500MB` or `2GiB`; ConfigError if it is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(where, f"{text!r} is no size", hint="Examples: 500MB, 2GiB.")
    base = 1024 if match[3] else 1000
    unit: int = base ** _POWERS[(match[2] or "").lower()]
    # No float: it would not hold large numbers exactly.
    whole, _, decimals = match[1].partition(".")
    size: int = int(whole) * unit + int(decimals or 0) * unit // 10 ** len(decimals)
    return size


def format_size(size: int) -> str:
    """Return a number of bytes as `parse_size` reads it, exactly."""
    power = 0
    while size and size % 1024 == 0 and power + 1 < len(_UNITS):
        size //= 1024
        power += 1
    return f"{size}{_UNITS[power]}"


class Setting(NamedTuple):
    """One thing that can be limited: how it is read, written, and its default."""

    parse: Callable[[str, str], Value]
    show: Callable[[Any], str]
    default: Value


_RATE: Final = Setting(_rate, format_rate, None)
SETTINGS: Final[Mapping[str, Setting]] = {
    "upload": _RATE,
    "download": _RATE,
    "origin": _RATE,
    "site-origin": _RATE,
    "dscp": Setting(
        lambda text, where: parse_dscp(text, where=where), format_dscp, LOWER_EFFORT
    ),
    "metered": Setting(_metered, lambda use: "use" if use else "avoid", False),
    "cache": Setting(parse_size, format_size, 0),
}
"""By name, as in the table [limits]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds at some moment.

    Attributes:
        upload: bytes a second that all neighbours are given together; None: any.
        download: that are read from them.
        origin: that come from origins.
        site_origin: that come from origins to all devices of the site together.
        dscp: priority of what is sent; None: no mark.
        metered: whether metered networks are used.
        cache: how many bytes of old commits are kept for neighbours.

    """

    upload: float | None = None
    download: float | None = None
    origin: float | None = None
    site_origin: float | None = None
    dscp: int | None = LOWER_EFFORT
    metered: bool = False
    cache: int = 0


class Said(NamedTuple):
    """A setting's value and who said it."""

    value: Value
    source: str


class Layer(NamedTuple):
    """Values that one source says; later layers count."""

    source: str
    values: Values


def resolve(layers: Iterable[Layer]) -> dict[str, Said]:
    """Return what counts of each setting; the first layer has them all."""
    said: dict[str, Said] = {}
    for source, values in layers:
        said |= {name: Said(value, source) for name, value in values.items()}
    return said


def limits_of(said: Mapping[str, Said]) -> Limits:
    """Return resolved settings as values."""
    values: dict[str, Any] = {
        name.replace("-", "_"): each.value for name, each in said.items()
    }
    return Limits(**values)


def parse_setting(name: str, text: str, where: str) -> Value:
    """Return the value of a setting; ConfigError if there is none such, or it is bad.

    `where` names what is read; the setting's name is put behind it.
    """
    setting = SETTINGS.get(name)
    if setting is None:
        raise ConfigError(f"{where}{name}", "is not a setting of this program")
    return setting.parse(text, f"{where}{name}")


def show_setting(name: str, value: Value) -> str:
    """Return a value as `parse_setting` reads it."""
    return SETTINGS[name].show(value)


def take_values(table: Table, names: Iterable[str] = SETTINGS) -> dict[str, Value]:
    """Return the settings that a table has; ConfigError names the key."""
    values = {}
    for name in names:
        text = table.text(name, None)
        if text is not None:
            values[name] = parse_setting(name, text, table.name(""))
    return values


def _defaults() -> Values:
    return {name: setting.default for name, setting in SETTINGS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitTable:
    """What the tables [limits] of all files say together.

    Attributes:
        values: of all settings.
        metered_interfaces: names of interfaces that are metered, whatever the system
            says; `*` and `?` are taken.
        sources: which file said a setting; none if it has its default.

    """

    values: Values = field(default_factory=_defaults)
    metered_interfaces: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def layers(self) -> list[Layer]:
        """Return each setting with the file that said it."""
        return [
            Layer(self.sources.get(name, "default"), {name: value})
            for name, value in self.values.items()
        ]


def parse_limits(before: LimitTable, table: Table) -> LimitTable:
    """Return what counts after one file's table [limits]."""
    values = take_values(table)
    return LimitTable(
        values={**before.values, **values},
        metered_interfaces=table.texts("metered-interfaces", before.metered_interfaces),
        sources={**before.sources, **dict.fromkeys(values, table.where)},
    )
