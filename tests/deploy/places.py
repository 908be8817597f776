"""Repositories with commits to deploy, and what a place of deployments must be."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from p2p.deploy.tree import TreeDeployer
from p2p.ostree.config import RepoMode
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from tests.ostree.samples import TIME, TREE, Sample, Tree, make_repo, sample

REFSPEC = "o:main"
MAIN = remote_ref("o", "main")
_NEWER: tuple[Tree, ...] = tuple({**TREE, "new": bytes([n]) * 9} for n in range(3))
COMMITS = tuple(
    sample(tree, timestamp=TIME + number) for number, tree in enumerate(_NEWER)
)
ONE, TWO, THREE = COMMITS
_TREES: dict[str, Tree] = {
    each.checksum: tree for each, tree in zip(COMMITS, _NEWER, strict=True)
}


def publish(repo: Repo, new: Sample) -> None:
    """Put a commit with all its objects into a repository and have the ref name it."""
    with Stage(repo) as stage:
        for name, data in new.objects.items():
            stage.put(name, data)
            place = repo.object_path(name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if stage.has(name):
                os.rename(stage.repo.object_path(name), place)
    repo.refs.set(MAIN, new.checksum)


def repo_of(path: Path, *commits: Sample, mode: RepoMode = RepoMode.BARE_USER) -> Repo:
    """A repository with these commits; the ref names the last of them."""
    repo = make_repo(str(path), mode, {"fsync": "false"})
    for each in commits:
        publish(repo, each)
    return repo


def _paths(tree: Tree, above: str = "") -> Iterator[tuple[str, str | bytes | None]]:
    for name, entry in tree.items():
        if isinstance(entry, Mapping):
            yield f"{above}{name}", None
            yield from _paths(entry, f"{above}{name}/")
        else:
            yield f"{above}{name}", entry


def _content(path: Path) -> str | bytes | None:
    if path.is_symlink():
        return os.readlink(path)
    return None if path.is_dir() else path.read_bytes()


def assert_is(tree: Path, commit: str) -> None:
    """The directory holds that commit's tree, whole and nothing else."""
    found = {str(p.relative_to(tree)): _content(p) for p in tree.rglob("*")}
    assert found == dict(_paths(_TREES[commit]))


def assert_sound(root: Path) -> str | None:
    """Whatever happened, `current` leads to a whole tree; the commit it is of."""
    link = root / "current"
    if not os.path.lexists(link):
        return None
    commit = os.readlink(link).removeprefix("deployments/").partition(".")[0]
    assert_is(link, commit)
    return commit


def summary(deployer: TreeDeployer) -> list[tuple[str, str]]:
    """The states and ids of what is deployed."""
    return [(each.state.value, each.id) for each in deployer.list()]
