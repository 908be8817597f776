"""Heads of requests that need no parsing, because one like them was parsed before.

A client that pulls or pushes sends ten thousand heads whose header lines differ in
nothing, or in nothing but the digits of Content-Length. Only what the parser accepted
is remembered, and only an exact match is recalled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_LINE = re.compile(rb"(GET|HEAD|POST) (/[!-~]*) HTTP/1\.1\r\n")
_LENGTH = re.compile(
    rb"(?:\A|\n)content-length:[ \t]*([0-9]{1,15})(?=\r\n|\Z)", re.IGNORECASE
)
# Takes the digits' place in what is remembered; no header can hold it.
_HOLE = b"\0"


class Head(NamedTuple):
    """A request's head; `length` is the body's, `size` its own, in bytes."""

    method: str
    target: str
    headers: Mapping[str, str]
    length: int
    size: int


class HeadMemory:
    """The header lines of the last GET or HEAD, and of the last POST."""

    def __init__(self) -> None:
        self._plain: tuple[bytes, Mapping[str, str]] | None = None
        self._sized: tuple[bytes, Mapping[str, str]] | None = None

    def recall(self, data: bytes) -> Head | None:
        """Return the head that data begins with, if its lines are remembered."""
        line = _LINE.match(data)
        if line is None:
            return None
        end = data.find(b"\r\n\r\n", line.end())
        if end < 0:
            return None
        method, target = line[1].decode("ascii"), line[2].decode("ascii")
        lines = data[line.end() : end]
        if method != "POST":
            if self._plain is None or self._plain[0] != lines:
                return None
            return Head(method, target, self._plain[1], 0, end + 4)
        length = _LENGTH.search(lines)
        if length is None or self._sized is None:
            return None
        if self._sized[0] != _without_digits(lines, length):
            return None
        digits = length[1].decode("ascii")
        headers = {**self._sized[1], "content-length": digits}
        return Head(method, target, headers, int(digits), end + 4)

    def remember(self, head: bytes, headers: Mapping[str, str]) -> None:
        """Keep the lines of a head that was accepted, if it is of the plain kind.

        Args:
            head: its bytes, with the empty line at the end.
            headers: what the parser read in them.

        """
        line = _LINE.match(head)
        if line is None or head.find(b"\r\n\r\n", line.end()) != len(head) - 4:
            return
        if {"transfer-encoding", "expect"} & headers.keys():
            return
        lines = head[line.end() : -4]
        # Several lines, all with the same number, are allowed: not remembered.
        lengths = lines.lower().count(b"content-length")
        length = _LENGTH.search(lines)
        if line[1] != b"POST" and lengths == 0:
            self._plain = (lines, headers)
        elif line[1] == b"POST" and lengths == 1 and length is not None:
            self._sized = (_without_digits(lines, length), headers)


def _without_digits(lines: bytes, length: re.Match[bytes]) -> bytes:
    return lines[: length.start(1)] + _HOLE + lines[length.end(1) :]
