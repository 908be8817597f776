"""Bootable systems that stock `ostree` made."""

from pathlib import Path

from p2p.ostree.objects import Checksum
from tests.oracle import Ostree
from tests.trees import os_tree


def make_sysroot(root: Path, work: Path) -> tuple[Checksum, ...]:
    """Make a sysroot with the stateroot `tree`, a remote `o` and three commits.

    They are kept by refs of their own, and bound to the branch `main`.
    """
    stock = Ostree(root / "ostree/repo")
    stock.admin("init-fs", "--modern", root)
    stock.admin("os-init", "tree", f"--sysroot={root}")
    stock.remote_add("o", "http://localhost/")
    commits = []
    for number in range(3):
        tree = work / f"tree-{number}"
        os_tree(tree, version=str(number))
        branch, when = f"keep-{number}", 1_700_000_000 + number
        bound = stock.commit(tree, branch, "--bind-ref=main", timestamp=when)
        commits.append(Checksum(bound))
    return tuple(commits)
