"""A commit of a real repository as a tree to simulate: its names and sizes."""

from __future__ import annotations

from p2p.errors import ConfigError
from p2p.ostree.objects import ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.ostree.walk import Closure, walk
from p2p.sim.tree import Tree


def read_tree(path: str, rev: str) -> Tree:
    """Return the tree of a commit, whose every object must be here.

    Raises:
        RepositoryError, RefNotFoundError, ObjectNotFoundError: something is not here.
        ConfigError: the commit has no content.

    """
    repo = Repo.open(path)
    checksum = repo.resolve(rev)
    commit = repo.load_commit(checksum)
    tree = Tree(checksum)
    tree.start = (
        ObjectName(commit.root_dirtree, ObjectType.DIRTREE),
        ObjectName(commit.root_dirmeta, ObjectType.DIRMETA),
    )
    closure = Closure()
    for name in walk(closure, closure.add_commit(commit), repo.load_dirtree):
        tree.sizes[name] = _size(repo, name)
        if name.type is ObjectType.DIRTREE:
            tree.children[name] = _children(repo, name)
    if not tree.bytes:
        raise ConfigError(f"{path}:{rev}", "the commit is empty")
    return tree


def _size(repo: Repo, name: ObjectName) -> int:
    """Return the length of an object's canonical form."""
    if name.type is not ObjectType.FILE:
        return len(repo.load_metadata(name))
    with repo.open_content(name.checksum) as reader:
        return len(reader.header.frame()) + reader.size


def _children(repo: Repo, name: ObjectName) -> tuple[ObjectName, ...]:
    directory = repo.load_dirtree(name.checksum)
    files = [ObjectName(checksum, ObjectType.FILE) for _, checksum in directory.files]
    below = [
        each
        for _, subtree, meta in directory.dirs
        for each in (
            ObjectName(subtree, ObjectType.DIRTREE),
            ObjectName(meta, ObjectType.DIRMETA),
        )
    ]
    return tuple(dict.fromkeys(files + below))
