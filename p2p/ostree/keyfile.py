"""GLib key files: the syntax of a repository's `config` and of `*.conf` remotes.

Reading keeps every line, so that writing a changed file back loses no comment.
Source: GLib's GKeyFile and the Desktop Entry Specification's basic format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from p2p.errors import ConfigError

MAX_BYTES = 1 << 20
_GROUP = re.compile(r"\[([^\[\]\x00-\x1f]+)\]\s*", re.ASCII)
_KEY = re.compile(r"([^\[\]=\s#][^\[\]=]*?)\s*=\s*(.*)", re.ASCII)
_SPACE = " \t\r\n\v\f"
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\", ";": ";"}


class KeyFile:
    """Groups of keys and string values, with the lines they came from."""

    def __init__(self, *, where: str) -> None:
        """Start empty; `where` names the file in errors."""
        self.where = where
        self._lines: list[tuple[str | None, str | None, str]] = []

    @classmethod
    def parse(cls, text: str, *, where: str) -> KeyFile:
        """Return the key file in text; ConfigError names the line that is wrong."""
        if len(text) > MAX_BYTES:
            raise ConfigError(where, f"larger than {MAX_BYTES} bytes")
        self = cls(where=where)
        group: str | None = None
        for number, line in enumerate(text.split("\n"), 1):
            key = None
            if line.strip(_SPACE) and not line.lstrip(_SPACE).startswith("#"):
                if match := _GROUP.fullmatch(line):
                    group = match[1]
                elif group is not None and (
                    match := _KEY.fullmatch(line.strip(_SPACE))
                ):
                    key = match[1]
                else:
                    raise ConfigError(
                        f"{where}:{number}",
                        f"neither [group] nor key=value: {line[:80]!r}",
                    )
            self._lines.append((group, key, line))
        while self._lines and not self._lines[-1][2]:
            self._lines.pop()
        return self

    def groups(self) -> list[str]:
        """Return the group names in the order of their first appearance."""
        return list(dict.fromkeys(g for g, _, _ in self._lines if g is not None))

    def keys(self, group: str) -> list[str]:
        """Return the keys of a group."""
        return list(
            dict.fromkeys(k for g, k, _ in self._lines if g == group and k is not None)
        )

    def raw(self, group: str, key: str) -> str | None:
        """Return the value as written, without the escapes undone; the last wins."""
        value = None
        for g, k, line in self._lines:
            if g == group and k == key:
                value = line.partition("=")[2].strip(_SPACE)
        return value

    def string(self, group: str, key: str) -> str | None:
        """Return a string value, or None if the key is not there."""
        value = self.raw(group, key)
        return None if value is None else self._unescape(value, f"[{group}] {key}")

    def boolean(self, group: str, key: str, *, default: bool) -> bool:
        """Return true/false (also 1/0), or the default."""
        value = self.raw(group, key)
        if value is None:
            return default
        if value in ("true", "1"):
            return True
        if value in ("false", "0"):
            return False
        raise self._error(group, key, f"{value!r} is neither true nor false")

    def integer(self, group: str, key: str, *, default: int) -> int:
        """Return a whole number ≥ 0, or the default."""
        value = self.raw(group, key)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or len(value) > 18:
            raise self._error(group, key, f"{value!r} is not a whole number")
        return int(value)

    def strings(self, group: str, key: str) -> tuple[str, ...] | None:
        """Return a list separated by `;` (or `,` as libostree allows), or None."""
        value = self.raw(group, key)
        if value is None:
            return None
        separator = "," if "," in value and ";" not in value else ";"
        parts = re.split(rf"(?<!\\){separator}", value)
        where = f"[{group}] {key}"
        return tuple(
            self._unescape(p.strip(_SPACE), where) for p in parts if p.strip(_SPACE)
        )

    def _unescape(self, value: str, what: str) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[1] not in _ESCAPES:
                raise ConfigError(f"{self.where}: {what}", f"unknown escape {match[0]}")
            return _ESCAPES[match[1]]

        return re.sub(r"\\(.?)", replace, value)

    def _error(self, group: str, key: str, reason: str) -> ConfigError:
        return ConfigError(f"{self.where}: [{group}] {key}", reason)

    def set(self, group: str, key: str, value: str) -> None:
        """Set a key, in place if it exists, else at the end of its group."""
        line = f"{key}={_escape(value)}"
        writable = _is_key(key) and _GROUP.fullmatch(f"[{group}]")
        if not writable or value.strip("\v\f") != value:
            raise self._error(group, key, f"cannot be written: {value[:80]!r}")
        last = None
        for index, (g, k, _) in enumerate(self._lines):
            if g == group:
                last = index
                if k == key:
                    self._lines[index] = (group, key, line)
                    return
        if last is None:
            if self._lines:
                self._lines.append((self._lines[-1][0], None, ""))
            self._lines.append((group, None, f"[{group}]"))
            last = len(self._lines) - 1
        while last > 0 and not self._lines[last][2]:
            last -= 1
        self._lines.insert(last + 1, (group, key, line))

    def remove_group(self, group: str) -> bool:
        """Remove a group with all its lines; tell whether it was there."""
        kept = [line for line in self._lines if line[0] != group]
        found = len(kept) != len(self._lines)
        self._lines = kept
        return found

    def merge(self, other: KeyFile) -> None:
        """Add the groups of another file that are not here yet."""
        mine = set(self.groups())
        self._lines += [line for line in other._lines if line[0] not in mine]

    def items(self, group: str) -> Iterator[tuple[str, str]]:
        """Yield (key, raw value) of a group."""
        for key in self.keys(group):
            yield key, self.raw(group, key) or ""

    def __str__(self) -> str:
        return "".join(f"{line}\n" for _, _, line in self._lines)


def _is_key(text: str) -> bool:
    """Tell whether text reads back as this very key."""
    match = _KEY.fullmatch(f"{text}=")
    return match is not None and match[1] == text


def _escape(value: str) -> str:
    """Return a value as GLib writes it, so that spaces at its ends survive too."""
    for character, escape in (("\\", "\\"), ("\n", "n"), ("\t", "t"), ("\r", "r")):
        value = value.replace(character, f"\\{escape}")
    middle = value.strip(_SPACE)
    before, _, after = value.partition(middle) if middle else (value, "", "")
    return before.replace(" ", "\\s") + middle + after.replace(" ", "\\s")
