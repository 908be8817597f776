"""Static deltas that `ostree` left in a repository: which there are.

This program neither makes nor applies them; a summary names them, and prune removes
those whose commit is gone. Source: libostree `ostree-core.c`
(_ostree_get_relative_static_delta_path): base64 with `_` for `/`, two characters of
directory before the rest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from p2p.errors import FormatError
from p2p.ostree.objects import Checksum, from_raw
from p2p.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class StaticDelta:
    """One delta: `source` is None for one from nothing; `path` its directory."""

    source: Checksum | None
    target: Checksum
    path: str

    @property
    def name(self) -> str:
        """The name that a summary lists it under."""
        return f"{self.source}-{self.target}" if self.source else self.target


def list_deltas(repo: Repo) -> Iterator[StaticDelta]:
    """Yield the deltas of a repository in the order libostree lists them."""
    root = os.path.join(repo.path, "deltas")
    if not os.path.isdir(root):
        return
    for prefix in os.listdir(root):
        for rest in os.listdir(os.path.join(root, prefix)):
            path = os.path.join(root, prefix, rest)
            source, dash, target = f"{prefix}{rest}".rpartition("-")
            if not os.path.exists(os.path.join(path, "superblock")):
                continue
            yield StaticDelta(
                _checksum(source) if dash else None, _checksum(target), path
            )


def superblock_checksums(repo: Repo) -> list[tuple[str, Checksum]]:
    """Return each delta's name and the SHA-256 of its superblock."""
    found = []
    for delta in list_deltas(repo):
        with open(os.path.join(delta.path, "superblock"), "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        found.append((delta.name, Checksum(digest.hexdigest())))
    return found


def _checksum(text: str) -> Checksum:
    try:
        data = base64.b64decode(f"{text.replace('_', '/')}=", validate=True)
    except binascii.Error:
        raise FormatError(f"not the name of a static delta: {text[:100]!r}") from None
    return from_raw(data)
