"""When libostree publishes, and what it is asked to do; see tests/compat for it."""

import os
import subprocess
from pathlib import Path

import pytest

from p2p.errors import (
    LockedError,
    NoSpaceError,
    ObjectNotFoundError,
    ReadOnlyError,
    RepositoryError,
)
from p2p.ostree.config import RepoMode
from p2p.ostree.holdings import STAGE_PATH
from p2p.ostree.libostree import LibostreePublisher, is_sysroot, publisher_for
from p2p.ostree.objects import Checksum
from p2p.ostree.publish import NativePublisher, NewCommit, Publication
from p2p.ostree.refs import RefPath, head, mirror_ref, remote_ref
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from tests.ostree.samples import SAMPLE, TREE, Sample, make_repo, sample

MAIN = remote_ref("o", "main")
NEXT = sample({**TREE, "new": b"new"}, parent=SAMPLE, timestamp=1_800_000_000)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(str(tmp_path / "repo"), RepoMode.BARE_USER)


def configured(repo: Repo, text: str) -> Repo:
    config = Path(repo.path, "config")
    config.write_text(config.read_text() + text)
    return Repo.open(repo.path)


def kind_of_publisher(repo: Repo) -> type[object]:
    with Stage(repo) as stage:
        return type(publisher_for(stage))


# -- who publishes -------------------------------------------------------------------


def test_a_plain_repository_is_published_to_directly(repo: Repo) -> None:
    assert kind_of_publisher(repo) is NativePublisher


@pytest.mark.parametrize(
    "text",
    [
        "[core]\nsome-new-key=1\n",
        "[ex-integrity]\nfsverity=yes\n",
        "[ex-integrity]\ncomposefs=true\n",
        "[ex-anything]\nkey=value\n",
    ],
)
def test_a_configuration_we_do_not_implement_is_left_to_libostree(
    repo: Repo, text: str
) -> None:
    assert kind_of_publisher(configured(repo, text)) is LibostreePublisher


@pytest.mark.parametrize("text", ["[ex-integrity]\nfsverity=no\n", "[other]\nkey=1\n"])
def test_what_is_switched_off_or_not_of_the_repository_does_not_matter(
    repo: Repo, text: str
) -> None:
    assert kind_of_publisher(configured(repo, text)) is NativePublisher


def test_a_repository_of_split_xattrs_is_left_to_libostree(repo: Repo) -> None:
    config = Path(repo.path, "config")
    text = config.read_text().replace("mode=bare-user", "mode=bare-split-xattrs")
    config.write_text(text)
    assert kind_of_publisher(Repo.open(repo.path)) is LibostreePublisher


def test_a_sysroot_is_left_to_libostree_however_it_is_reached(tmp_path: Path) -> None:
    repo = make_repo(str(tmp_path / "sysroot/ostree/repo"), RepoMode.BARE_USER)
    assert kind_of_publisher(repo) is NativePublisher
    (tmp_path / "sysroot/ostree/deploy").mkdir()
    assert kind_of_publisher(repo) is LibostreePublisher
    (tmp_path / "link").symlink_to(repo.path)
    assert is_sysroot(str(tmp_path / "link"))
    assert kind_of_publisher(Repo.open(tmp_path / "link")) is LibostreePublisher


# -- what it is asked to do ------------------------------------------------------------


class FakeOstree:
    """A program in the place of `ostree`: notes its arguments, then does `body`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "fake-ostree"
        self._log = directory / "calls"
        self.does("exit 0")

    def does(self, body: str) -> None:
        self.path.write_text(
            f'#!/bin/sh\nfor argument; do echo "$argument"; done >> {self._log}\n'
            f"echo . >> {self._log}\n{body}\n"
        )
        self.path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        text = self._log.read_text() if self._log.exists() else ""
        return [call.splitlines() for call in text.split(".\n")[:-1]]


@pytest.fixture
def ostree(tmp_path: Path) -> FakeOstree:
    return FakeOstree(tmp_path)


def publish(
    repo: Repo,
    ostree: FakeOstree | str,
    refs: dict[RefPath, Sample],
    *samples: Sample,
    metadata_only: bool = False,
    fsync: bool = True,
) -> None:
    with Stage(repo) as stage:
        for each in samples:
            for name, data in each.objects.items():
                stage.put(name, data)
        commits = [NewCommit(checksum=s.checksum, commit=s.commit) for s in samples]
        command = ostree if isinstance(ostree, str) else str(ostree.path)
        LibostreePublisher(stage, command=command).publish(
            Publication(
                commits=tuple(commits),
                refs=tuple((ref, each.checksum) for ref, each in refs.items()),
                metadata_only=metadata_only,
                fsync=fsync,
            )
        )


def staged_refs(repo: Repo) -> list[tuple[RefPath, Checksum]]:
    return list(Repo.open(Path(repo.path, STAGE_PATH)).refs.all())


def names_of(call: list[str]) -> list[str]:
    """What the call pulls."""
    assert call[0] == "pull-local"
    return call[call.index(next(a for a in call if a.endswith("/stage"))) + 1 :]


def test_a_remotes_ref_is_pulled_with_its_commit(
    repo: Repo, ostree: FakeOstree
) -> None:
    publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    (call,) = ostree.calls()
    assert call == [
        "pull-local",
        "--untrusted",
        "--disable-verify-bindings",
        f"--repo={repo.path}",
        "--remote=o",
        f"{repo.path}/{STAGE_PATH}",
        "main",
    ]


def test_the_ref_is_in_the_store_as_long_as_it_is_pulled(
    repo: Repo, ostree: FakeOstree
) -> None:
    ref = Path(repo.path, STAGE_PATH, "refs/heads/main")
    ostree.does(f"grep -q {SAMPLE.checksum} {ref}")
    publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    assert staged_refs(repo) == []


def test_commits_without_a_ref_come_in_the_same_transaction(
    repo: Repo, ostree: FakeOstree
) -> None:
    publish(repo, ostree, {MAIN: NEXT}, SAMPLE, NEXT)
    (call,) = ostree.calls()
    assert names_of(call) == ["main", SAMPLE.checksum]


def test_commits_without_any_ref_are_pulled_by_their_names(
    repo: Repo, ostree: FakeOstree
) -> None:
    publish(repo, ostree, {}, SAMPLE, NEXT)
    (call,) = ostree.calls()
    assert names_of(call) == [SAMPLE.checksum, NEXT.checksum]
    assert not any(argument.startswith("--remote") for argument in call)


def test_refs_of_one_remote_are_pulled_at_once(repo: Repo, ostree: FakeOstree) -> None:
    other = remote_ref("o", "deep/er")
    publish(repo, ostree, {MAIN: SAMPLE, other: NEXT}, SAMPLE, NEXT)
    (call,) = ostree.calls()
    assert names_of(call) == ["main", "deep/er"]


def test_heads_are_pulled_without_a_remote(repo: Repo, ostree: FakeOstree) -> None:
    publish(repo, ostree, {head("main"): SAMPLE, MAIN: NEXT}, SAMPLE, NEXT)
    heads, remotes = ostree.calls()
    assert names_of(heads) == ["main"]
    assert not any(argument.startswith("--remote") for argument in heads)
    assert names_of(remotes) == ["main"]
    assert "--remote=o" in remotes


def test_options_are_passed_on(repo: Repo, ostree: FakeOstree) -> None:
    publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE, metadata_only=True, fsync=False)
    (call,) = ostree.calls()
    assert "--commit-metadata-only" in call
    assert "--disable-fsync" in call


def test_mirrored_refs_are_refused_before_anything_is_done(
    repo: Repo, ostree: FakeOstree
) -> None:
    with pytest.raises(RepositoryError, match=r"mirrors/org\.example\.Os/main"):
        publish(repo, ostree, {mirror_ref("org.example.Os", "main"): SAMPLE}, SAMPLE)
    assert ostree.calls() == []


def test_missing_objects_are_named_before_anything_is_done(
    repo: Repo, ostree: FakeOstree
) -> None:
    partial = Sample(SAMPLE.checksum, dict(list(SAMPLE.objects.items())[1:]))
    with pytest.raises(ObjectNotFoundError, match="vanished"):
        publish(repo, ostree, {MAIN: SAMPLE}, partial)
    assert ostree.calls() == []


def test_what_was_published_leaves_the_store(repo: Repo, ostree: FakeOstree) -> None:
    publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    assert list(Repo.open(Path(repo.path, STAGE_PATH)).all_objects()) == []


@pytest.mark.parametrize(
    "said, kind",
    [
        ("error: Locking repo shared failed: Resource temporarily", LockedError),
        ("error: min-free-space-percent '3%' would be exceeded", NoSpaceError),
        ("error: fsetxattr: No space left on device", NoSpaceError),
        ("error: mkdirat: Read-only file system", ReadOnlyError),
        ("error: openat: Permission denied", ReadOnlyError),
        ("error: something else", RepositoryError),
    ],
)
def test_what_ostree_refuses_is_said_and_the_store_kept(
    repo: Repo, ostree: FakeOstree, said: str, kind: type[RepositoryError]
) -> None:
    ostree.does(f'echo "{said}" >&2; exit 1')
    with pytest.raises(RepositoryError, match=r"pull-local into .* failed") as caught:
        publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    store = Repo.open(Path(repo.path, STAGE_PATH))
    assert set(store.all_objects()) == set(SAMPLE.objects)
    assert staged_refs(repo) == []


def test_a_silent_failure_is_told_by_its_status(repo: Repo, ostree: FakeOstree) -> None:
    ostree.does("exit 7")
    with pytest.raises(RepositoryError, match="exit status 7"):
        publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)


def test_a_talkative_failure_is_cut(repo: Repo, ostree: FakeOstree) -> None:
    ostree.does("yes error | head -c 1000000 >&2; printf '\\377the end' >&2; exit 1")
    with pytest.raises(RepositoryError, match="the end") as caught:
        publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    assert len(str(caught.value)) < 3000


def test_without_ostree_the_package_to_install_is_named(repo: Repo) -> None:
    with pytest.raises(RepositoryError, match="not installed") as caught:
        publish(repo, "/nowhere/ostree", {MAIN: SAMPLE}, SAMPLE)
    assert "Install" in caught.value.hint


def test_ostree_speaks_english_and_is_not_typed_to(
    repo: Repo, ostree: FakeOstree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    ostree.does(f'echo "$LC_ALL" > {tmp_path}/locale; cat > {tmp_path}/typed')
    publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    assert (tmp_path / "locale").read_text() == "C.UTF-8\n"
    assert (tmp_path / "typed").read_text() == ""


def test_two_publishers_take_turns(repo: Repo, ostree: FakeOstree) -> None:
    """Their refs in the store may have one name and mean two commits."""
    lock = f"{repo.path}/{STAGE_PATH}/publish.lock"
    probe = (
        "import fcntl, os, struct, sys\n"
        f"fd = os.open({lock!r}, os.O_RDWR)\n"
        "want = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
        "try: fcntl.fcntl(fd, fcntl.F_OFD_SETLK, want)\n"
        "except OSError: sys.exit(0)\n"
        "sys.exit(1)\n"
    )
    script = Path(f"{ostree.path}.py")
    script.write_text(probe)
    ostree.does(f"exec python3 {script}")
    publish(repo, ostree, {MAIN: SAMPLE}, SAMPLE)
    assert subprocess.run(["python3", script], check=False).returncode == 1
    assert os.path.exists(lock)
