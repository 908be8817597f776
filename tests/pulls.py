"""`p2p pull` and `ostree pull` side by side: run them, compare what they leave."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from p2p.agent.sharing import load_complete
from p2p.cli.main import main
from p2p.ostree.canonical import CanonicalReader
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import Holdings
from p2p.ostree.objects import Checksum, Metadata, parse_metadata
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.trust.keys import generate_key_pair, load_secret_key
from p2p.trust.sign import SecretKey, add_signature, sign_commit
from tests.oracle import Ostree, dangling, differences, snapshot, walk_objects
from tests.oracle.snapshot import ObjectStat
from tests.servers import Request

ROOT = Path(__file__).parents[1]
REMOTE = "up"
REF = "os/test"
"""A remote's name, and a ref's, wherever a test needs none of its own."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def check(self) -> Result:
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        return self


def p2p(*arguments: object) -> Result:
    """Run a command line of ours in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Result(status, out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    """The command line that runs ours in a process of its own."""
    return [sys.executable, "-P", "-m", "p2p", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """The environment for `command`, where the package need not be installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def spawn(*arguments: object, prefix: Sequence[str] = ()) -> Result:
    """Run a command line of ours in a process of its own, to its end."""
    done = subprocess.run(
        [*prefix, *command(*arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment(),
    )
    return Result(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Client:
    """A repository to pull into, with one remote that demands no signature."""

    path: Path
    stock: Ostree

    @classmethod
    def create(
        cls,
        path: Path,
        mode: str,
        url: str,
        *options: str,
        collection_id: str | None = None,
        prefix: Sequence[str] = (),
    ) -> Client:
        """Make it; `options` go to `ostree remote add`."""
        stock = Ostree.init(path, mode, collection_id=collection_id, prefix=prefix)
        stock.remote_add(REMOTE, url, "--no-gpg-verify", *options)
        return cls(path, stock)

    def configure(self, group: str, **settings: str) -> None:
        """Set keys of the configuration; `_` stands for `-`."""
        repo = Repo.open(self.path)
        for key, value in settings.items():
            repo.keys.set(group, key.replace("_", "-"), value)
        repo.save_config()

    def pull(self, *arguments: object, remote: str = REMOTE) -> Result:
        """Pull with our command, in this process; options and refs in any order."""
        return p2p("pull", f"--repo={self.path}", remote, "--no-mdns", *arguments)

    def pull_apart(
        self, *arguments: object, prefix: Sequence[str] = (), remote: str = REMOTE
    ) -> Result:
        """Pull with our command in a process of its own."""
        pull = ["pull", f"--repo={self.path}", remote, "--no-mdns"]
        return spawn(*pull, *arguments, prefix=prefix)

    def refs(self) -> dict[str, str]:
        """Every ref by its path below `refs/`."""
        top = self.path / "refs"
        return {
            str(path.relative_to(top)): path.read_text().strip()
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }

    def partial(self) -> list[str]:
        """The commits that are marked as partial."""
        marks = (self.path / "state").glob("*.commitpartial")
        return sorted(mark.stem for mark in marks)

    def objects(self) -> dict[str, ObjectStat]:
        """Every published object, its time only where it means something."""
        bare = self.stock.run("config", "get", "core.mode").strip().startswith("bare")
        return {
            name: found
            if bare and name.endswith(".file") and found.mode[0] == "-"
            else replace(found, mtime_ns=0)
            for name, found in snapshot(self.path).items()
        }

    def state(self) -> dict[str, object]:
        """Refs, partial commits, names of objects, and the summary's bytes."""
        summary = self.path / "summary"
        return {
            "refs": self.refs(),
            "partial": self.partial(),
            "objects": sorted(snapshot(self.path)),
            "summary": summary.read_bytes() if summary.exists() else None,
        }

    def check_sound(self) -> None:
        """Check every object, and that nothing points at what is not there."""
        report = walk_objects(self.path)
        assert not report.problems, "\n".join(report.problems[:20])
        lines = dangling(self.path)
        assert not lines, "\n".join(lines)

    def check_nothing_visible(self) -> None:
        """Check that nothing was published; what is staged is sound."""
        assert walk_objects(self.path).problems == ()
        assert not list((self.path / "objects").rglob("*.*"))
        assert self.refs() == {}

    def staged(self) -> int:
        """How many objects the staging store holds."""
        stage = self.path / "extensions/p2p/stage/objects"
        return sum(1 for path in stage.rglob("*.*"))


def check_equal(theirs: Client, ours: Client) -> None:
    """Check that two repositories hold the same, inode by inode."""
    lines = differences(theirs.objects(), ours.objects())
    assert not lines, "\n".join(lines[:20])
    assert ours.refs() == theirs.refs()
    assert ours.partial() == theirs.partial()
    assert ours.staged() == 0


def object_requests(requests: Iterable[Request]) -> list[str]:
    """The paths below `objects/` that were asked for, without detached metadata."""
    return [
        request.path
        for request in requests
        if "/objects/" in request.path and not request.path.endswith(".commitmeta")
    ]


def content_requests(requests: Iterable[Request]) -> list[str]:
    """The objects asked for that are no commits."""
    paths = object_requests(requests)
    return [path for path in paths if not path.endswith((".commit", "-commit"))]


@dataclass(frozen=True, slots=True)
class Publisher:
    """An archive repository whose commits are signed with an ed25519 key."""

    repo: Repo
    key: SecretKey
    public: Path

    @classmethod
    def create(cls, directory: Path, *, collection_id: str | None = None) -> Publisher:
        pair = generate_key_pair(directory / "keys")
        repo = Repo.init(
            directory / "origin", RepoMode.ARCHIVE, collection_id=collection_id
        )
        return cls(repo, load_secret_key(pair.secret_path), pair.public_path)

    @property
    def path(self) -> Path:
        return Path(self.repo.path)

    def commit(
        self,
        tree: Path,
        ref: str = REF,
        *,
        keys: Sequence[SecretKey] | None = None,
        timestamp: int = 1_700_000_000,
        **options: Any,
    ) -> Checksum:
        """Commit a tree, signed with the publisher's key or with these."""
        signing = (self.key,) if keys is None else keys

        def sign(data: bytes) -> Metadata:
            meta: bytes | None = None
            for key in signing:
                meta = add_signature(meta, sign_commit(data, key))
            return () if meta is None else parse_metadata(meta)

        chosen = CommitOptions(branch=ref, timestamp=timestamp, sign=sign, **options)
        return commit_tree(self.repo, str(tree), chosen)

    def content_bytes(self, commit: Checksum) -> int:
        """How long the objects of a commit are together, in canonical form."""
        holdings = Holdings.published(self.repo)
        reader = CanonicalReader(holdings, scratch=str(self.path))
        closure = load_complete(holdings, commit).closure
        sizes = [reader.size(name) or 0 for name in closure]
        reader.close()
        return sum(sizes)

    def set_ref(self, ref: str, commit: str) -> None:
        """Make a ref name a commit, whatever it is for."""
        self.repo.refs.set(head(ref), Checksum(commit))

    def client(self, path: Path, url: str, mode: str = "bare-user") -> Client:
        """A repository whose remote demands this publisher's signature."""
        p2p("init", f"--repo={path}", f"--mode={mode}").check()
        verify = f"--sign-verify=ed25519=file:{self.public}"
        p2p("remote", "add", f"--repo={path}", REMOTE, url, verify).check()
        return Client(path, Ostree(path))
