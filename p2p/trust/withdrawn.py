"""Commits that their publisher took back: never pulled, deployed or shared again.

A list of files of one checksum a line; what follows a `#` is a remark. They are

    ROOT/etc/ostree-p2p/withdrawn-commits, and withdrawn-commits.d/*
    ROOT/usr/share/ostree-p2p/the same

so that a device's management, or the operating system itself, can say so. libostree
has no such list; a tombstone at the origin says the same once it is reached.
"""

from __future__ import annotations

import os
from pathlib import Path

from p2p.errors import ConfigError, FormatError
from p2p.ostree.objects import Checksum, parse_checksum

_PLACES = ("etc/ostree-p2p", "usr/share/ostree-p2p")
_NAME = "withdrawn-commits"
_MAX_BYTES = 1 << 20


def load_withdrawn(root: Path = Path("/")) -> frozenset[Checksum]:
    """Return all commits that were taken back.

    Raises:
        ConfigError: a file cannot be read, or a line is no checksum: nothing is
            believed then, because what the line was to forbid is not known.

    """
    found: set[Checksum] = set()
    for place in _PLACES:
        for path in _files(root / place):
            found.update(_read(path))
    return frozenset(found)


def _files(directory: Path) -> list[Path]:
    files = [directory / _NAME] if (directory / _NAME).is_file() else []
    parts = directory / f"{_NAME}.d"
    return files + (sorted(parts.iterdir()) if parts.is_dir() else [])


def _read(path: Path) -> list[Checksum]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), error.strerror or os.strerror(0)) from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(str(path), f"larger than {_MAX_BYTES} bytes")
    checksums = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            checksums.append(parse_checksum(text))
        except FormatError as error:
            raise ConfigError(f"{path}:{number}", str(error)) from None
    return checksums
