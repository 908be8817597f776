"""Made-up commits: names, sizes and which directory names what; no content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2p.ostree.objects import Checksum, ObjectName, ObjectType

if TYPE_CHECKING:
    from random import Random

_FILES_PER_DIRECTORY = 24
_DIRECTORIES_PER_DIRECTORY = 6
_DIRMETA_BYTES = 40
_ENTRY_BYTES = 60


@dataclass(slots=True)
class Tree:
    """A commit.

    Attributes:
        sizes: every object of its closure, in canonical order.
        children: what each dirtree names.
        start: what the commit itself names.

    """

    commit: Checksum
    start: tuple[ObjectName, ...] = ()
    sizes: dict[ObjectName, int] = field(default_factory=dict)
    children: dict[ObjectName, tuple[ObjectName, ...]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Sum of all objects."""
        return sum(self.sizes.values())


def make_name(text: str, kind: ObjectType) -> ObjectName:
    """Return a made-up object name, the same for the same text."""
    return ObjectName(Checksum(hashlib.sha256(text.encode()).hexdigest()), kind)


def make_tree(label: str, files: Sequence[tuple[str, int]]) -> Tree:
    """Make a commit of files, given as (what they are, size), in directories.

    The same files in the same places of two trees are the same objects, and so are
    directories with the same content.
    """
    tree = Tree(make_name(f"commit {label}", ObjectType.COMMIT).checksum)
    meta = make_name("dirmeta", ObjectType.DIRMETA)
    names = [make_name(f"file {text}", ObjectType.FILE) for text, _ in files]
    sizes = {name: size for name, (_, size) in zip(names, files, strict=True)}
    level: list[ObjectName] = []
    for k in range(0, max(len(names), 1), _FILES_PER_DIRECTORY):
        children = (meta, *names[k : k + _FILES_PER_DIRECTORY])
        level.append(_directory(tree, children))
    while len(level) > 1:
        step = _DIRECTORIES_PER_DIRECTORY
        groups = [level[k : k + step] for k in range(0, len(level), step)]
        level = [_directory(tree, (meta, *group)) for group in groups]
    tree.start = (level[0], meta)
    tree.sizes[meta] = _DIRMETA_BYTES
    tree.sizes |= sizes
    return tree


def _directory(tree: Tree, children: tuple[ObjectName, ...]) -> ObjectName:
    text = "".join(name.checksum for name in children)
    name = make_name(f"dirtree {text}", ObjectType.DIRTREE)
    tree.sizes[name] = _ENTRY_BYTES * len(children)
    tree.children[name] = children
    return name


def even_files(label: str, count: int, size: int) -> list[tuple[str, int]]:
    """Return so many different files of one size."""
    return [(f"{label} {k}", size) for k in range(count)]


def system_files(
    label: str, count: int, total: int, rng: Random
) -> list[tuple[str, int]]:
    """Return files as an operating system has them: many small, one very large.

    Sizes are log-normal; the largest file is 15.7 % of all bytes, as measured on a
    Debian tree.
    """
    weights = [rng.lognormvariate(0, 2.0) for _ in range(count - 1)]
    large = int(total * 0.157)
    scale = (total - large) / sum(weights)
    files = [
        (f"{label} {k}", max(20, int(weight * scale)))
        for k, weight in enumerate(weights)
    ]
    files.append((f"{label} large", large))
    return files
