"""A table of a TOML file, read key by key with errors that say where."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from p2p.errors import ConfigError

T = TypeVar("T")


class Table:
    """One table of one file; every key that is there must be asked for."""

    def __init__(self, where: str, prefix: str, values: dict[str, Any]) -> None:
        self.where = where
        self._prefix = prefix
        self._left = dict(values)

    def name(self, key: str) -> str:
        """Return where a key of this table is, for people."""
        return f"{self.where}: {self._prefix}{key}"

    def error(self, key: str, reason: str) -> ConfigError:
        """Return the error that a key of this table is wrong."""
        return ConfigError(self.name(key), reason)

    def take(self, key: str, kind: type[T], default: T) -> T:
        """Return a key's value; ConfigError if it is of another type."""
        value = self._left.pop(key, None)
        if value is None:
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(key, f"must be {_NAMES[kind]}, not {_name(value)}")
        return value

    def text(self, key: str, default: T) -> str | T:
        """Return a text that is not empty."""
        value = self.take(key, str, "\0")
        if value == "\0":
            return default
        if not value or "\0" in value:
            raise self.error(key, "must not be empty")
        return value

    def path(self, key: str, default: T) -> str | T:
        """Return an absolute path; a relative one is meant from the file."""
        value = self.text(key, None)
        if value is None:
            return default
        directory = os.path.dirname(os.path.abspath(self.where))
        return os.path.normpath(os.path.join(directory, os.path.expanduser(value)))

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Return a list of texts."""
        values: list[Any] = self.take(key, list, list(default))
        for value in values:
            if not isinstance(value, str) or not value:
                raise self.error(key, "must be a list of texts, none of them empty")
        return tuple(values)

    def each(self, key: str, default: T, parse: Callable[[Table], T]) -> T:
        """Return what `parse` makes of a sub-table, if it is there."""
        values = self.take(key, dict, {"": None})
        if values == {"": None}:
            return default
        table = Table(self.where, f"{self._prefix}{key}.", values)
        result = parse(table)
        table.end()
        return result

    def rows(self, key: str, parse: Callable[[Table], T]) -> tuple[T, ...]:
        """Return what `parse` makes of each table of an array."""
        rows: list[Any] = self.take(key, list, [])
        results = []
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise self.error(key, f"must be tables: [[{self._prefix}{key}]]")
            table = Table(self.where, f"{self._prefix}{key}[{number}].", row)
            results.append(parse(table))
            table.end()
        return tuple(results)

    def pairs(self) -> dict[str, str]:
        """Return all keys, each with a path."""
        return {key: str(self.path(key, "")) for key in list(self._left)}

    def end(self) -> None:
        """Refuse keys that nobody asked for: they would be ignored in silence."""
        for key in self._left:
            raise self.error(key, "is not a setting of this program")


_NAMES: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)
