"""The stock `ostree` program with failures that show what it said."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self


class OstreeError(AssertionError):
    """`ostree` ended with an error; the message holds all of its output."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.returncode = done.returncode
        self.stderr = done.stderr
        command = " ".join(map(str, done.args))
        super().__init__(
            f"{command}\nended with {done.returncode}\n"
            f"--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
        )


class Ostree:
    """One repository as `ostree` sees it.

    `prefix` is put before every command, for instance to run it as another user.
    """

    def __init__(self, repo: Path, *, prefix: Sequence[str] = ()) -> None:
        self.repo = repo
        self._prefix = tuple(prefix)

    @classmethod
    def init(
        cls,
        repo: Path,
        mode: str,
        *,
        collection_id: str | None = None,
        prefix: Sequence[str] = (),
    ) -> Self:
        """Make a repository: archive, bare, bare-user, bare-user-only or
        bare-split-xattrs."""
        stock = cls(repo, prefix=prefix)
        options = [f"--collection-id={collection_id}"] if collection_id else []
        stock.run("init", f"--mode={mode}", *options)
        return stock

    def run(self, *arguments: str | Path, timeout: float = 240) -> str:
        """Run `ostree --repo=REPO ARGUMENTS`; its standard output.

        Raises:
            OstreeError: it ended with another code than 0.
        """
        return _checked(self.try_run(*arguments, timeout=timeout))

    def try_run(
        self, *arguments: str | Path, timeout: float = 240
    ) -> "subprocess.CompletedProcess[str]":
        """The same, for a command that is expected to fail."""
        subcommand, *rest = map(str, arguments)
        return self._execute([subcommand, f"--repo={self.repo}", *rest], timeout)

    def admin(self, *arguments: str | Path) -> str:
        """Run `ostree admin ARGUMENTS`, which find the repository by the sysroot."""
        return _checked(self._execute(["admin", *map(str, arguments)], 240))

    def _execute(
        self, arguments: Sequence[str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "OSTREE_EXP_WRITE_BARE_SPLIT_XATTRS": "1",
        }
        return subprocess.run(
            [*self._prefix, "ostree", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=environment,
        )

    def commit(
        self, tree: Path, branch: str, *options: str, timestamp: int = 1_700_000_000
    ) -> str:
        """Commit a tree; the checksum of the commit."""
        when = f"--timestamp=@{timestamp}"
        source = f"--tree=dir={tree}"
        return self.run("commit", f"--branch={branch}", when, *options, source).strip()

    def remote_add(self, name: str, url: str, *options: str) -> None:
        """Add a remote; without options it verifies no signature."""
        self.run("remote", "add", *(options or ("--no-gpg-verify",)), name, url)

    def pull(self, remote: str, *refs: str, options: Sequence[str] = ()) -> None:
        """Pull refs of a remote."""
        self.run("pull", *options, remote, *refs)

    def pull_local(
        self, source: Path, *refs: str, options: Sequence[str] = ("--untrusted",)
    ) -> None:
        """Pull refs from another local repository, checking every object."""
        self.run("pull-local", *options, source, *refs)

    def fsck(self) -> None:
        """Check every commit of the repository."""
        self.run("fsck", "--quiet")

    def show(self, rev: str) -> str:
        """The commit as people read it."""
        return self.run("show", rev)

    def ls(self, rev: str) -> str:
        """Every path with mode, owner, size and checksums."""
        return self.run("ls", "-R", "-C", "-X", rev)

    def checkout(self, rev: str, target: Path, *options: str) -> None:
        """Write the tree of a commit into a new directory."""
        self.run("checkout", *options, rev, target)

    def rev_parse(self, rev: str) -> str:
        """The commit that a ref, refspec or abbreviation means."""
        return self.run("rev-parse", rev).strip()

    def refs(self) -> list[str]:
        """All refs, with remotes before a colon."""
        return sorted(self.run("refs").split())

    def root(self, rev: str) -> tuple[str, str]:
        """The checksums of the commit's root directory: dirtree and dirmeta."""
        first = self.run("ls", "-d", "-C", rev, "/").split()
        tree, meta = (word for word in first if len(word) == 64)
        return tree, meta


def _checked(done: "subprocess.CompletedProcess[str]") -> str:
    if done.returncode:
        raise OstreeError(done)
    return done.stdout
