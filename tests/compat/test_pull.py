"""What `p2p pull` leaves in a repository, against what `ostree pull` leaves."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.oracle import Ostree, split_xattrs_repo
from tests.pulls import REF, REMOTE, Client, check_equal, object_requests
from tests.require import require
from tests.servers import Nginx, run_nginx
from tests.trees import canonical_tree, change_files, nasty_tree, random_tree
from tests.unprivileged import Unprivileged

IS_ROOT = os.geteuid() == 0
MODES = ("archive", "bare", "bare-user", "bare-user-only")
WRITERS = ("thread", "process")
DETACHED = "--add-detached-metadata-string=a.key=a value"


@dataclass(frozen=True, slots=True)
class Origin:
    """An archive repository behind nginx with two commits of one branch."""

    stock: Ostree
    nginx: Nginx
    first: str
    second: str

    @property
    def url(self) -> str:
        return self.nginx.url


def make_origin(work: Path, tree: Path) -> tuple[Ostree, str, str]:
    stock = Ostree.init(work / "origin", "archive")
    first = stock.commit(tree, REF, DETACHED)
    (tree / "added").write_bytes(b"in the second commit\n")
    (tree / "names/files/README").write_bytes(b"changed\n")
    second = stock.commit(tree, REF, DETACHED, timestamp=1_700_000_100)
    return stock, first, second


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """Everything that a file system can hold and this user can make."""
    work = tmp_path_factory.mktemp("nasty")
    nasty_tree(work / "tree", root=IS_ROOT)
    made = make_origin(work, work / "tree")
    with run_nginx(work / "origin", work=work / "nginx") as nginx:
        yield Origin(made[0], nginx, *made[1:])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """What a repository of mode bare-user-only, or an ordinary user, can hold."""
    work = tmp_path_factory.mktemp("plain")
    canonical_tree(work / "tree")
    stock = Ostree.init(work / "origin", "archive")
    canonical = "--canonical-permissions"
    first = stock.commit(work / "tree", REF, DETACHED, canonical)
    (work / "tree/added").write_bytes(b"in the second commit\n")
    second = stock.commit(
        work / "tree", REF, DETACHED, canonical, timestamp=1_700_000_100
    )
    with run_nginx(work / "origin", work=work / "nginx") as nginx:
        yield Origin(stock, nginx, first, second)


def origin_for(mode: str, request: pytest.FixtureRequest) -> Origin:
    name = "plain" if mode == "bare-user-only" else "nasty"
    origin = request.getfixturevalue(name)
    assert isinstance(origin, Origin)
    return origin


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mode", MODES)
def test_every_object_is_that_of_ostree_after_a_full_and_an_incremental_pull(
    mode: str, writer: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if mode == "bare":
        require("root")  # to give files to others
    origin = origin_for(mode, request)
    theirs = Client.create(tmp_path / "theirs", mode, origin.url)
    ours = Client.create(tmp_path / "ours", mode, origin.url)

    theirs.stock.pull(REMOTE, f"{REF}@{origin.first}")
    ours.pull(f"{REF}@{origin.first}", f"--writer={writer}").check()
    check_equal(theirs, ours)

    theirs.stock.pull(REMOTE, REF)
    result = ours.pull(REF, f"--writer={writer}", "--json").check()
    check_equal(theirs, ours)
    assert result.json["commit"] == origin.second
    ours.check_sound()


@pytest.mark.parametrize("mode", MODES)
def test_ostree_checks_checks_out_and_passes_on_what_was_pulled(
    mode: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if mode == "bare":
        require("root")  # to give files to others
    origin = origin_for(mode, request)
    ours = Client.create(tmp_path / "ours", mode, origin.url)
    ours.pull(REF, "--depth=-1").check()
    ours.stock.fsck()
    refspec = f"{REMOTE}:{REF}"
    assert ours.stock.ls(refspec) == origin.stock.ls(REF)
    ours.stock.checkout(refspec, tmp_path / "tree", "-U")
    copy = Ostree.init(tmp_path / "copy", mode)
    copy.pull_local(ours.path, origin.second, origin.first)
    copy.fsck()
    # Stock ostree finds everything there and fetches none of it again.
    before = len(origin.nginx.requests())
    ours.stock.pull(REMOTE, REF)
    assert object_requests(origin.nginx.requests()[before:]) == []


@pytest.mark.parametrize("mode", ["archive", "bare-user", "bare-user-only"])
def test_an_ordinary_user_gets_the_objects_that_ostree_would_write(
    mode: str,
    plain: Origin,
    ordinary_user: Unprivileged,
) -> None:
    user = ordinary_user
    clients = [
        Client.create(user.home / name, mode, plain.url, prefix=user.prefix)
        for name in ("theirs", "ours")
    ]
    theirs, ours = clients
    theirs.stock.pull(REMOTE, REF)
    ours.pull_apart(REF, prefix=user.prefix).check()
    check_equal(theirs, ours)
    assert ours.path.joinpath("objects").stat().st_uid == user.uid


@pytest.mark.root
def test_an_ordinary_user_may_keep_foreign_owners_only_where_the_mode_records_them(
    nasty: Origin, ordinary_user: Unprivileged
) -> None:
    user = ordinary_user
    for mode in ("archive", "bare-user"):
        theirs, ours = (
            Client.create(
                user.home / f"{name}-{mode}", mode, nasty.url, prefix=user.prefix
            )
            for name in ("theirs", "ours")
        )
        theirs.stock.pull(REMOTE, REF)
        ours.pull_apart(REF, prefix=user.prefix).check()
        check_equal(theirs, ours)
    bare = Client.create(user.home / "bare", "bare", nasty.url, prefix=user.prefix)
    result = bare.pull_apart(REF, prefix=user.prefix)
    assert result.status == 30
    assert "only root may give a file to" in result.err
    bare.check_nothing_visible()


@pytest.mark.root
def test_split_attributes_are_written_by_ostree_or_not_at_all(
    nasty: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Client.create(tmp_path / "bare", "bare", nasty.url)
    bare.stock.pull(REMOTE, f"{REF}@{nasty.first}")
    split_xattrs_repo(bare.path, tmp_path / "split")
    ours = Client(tmp_path / "split", Ostree(tmp_path / "split"))
    refused = ours.pull(REF)
    assert refused.status == 30
    assert "Not allowed due to repo mode" in refused.err
    assert ours.refs() == bare.refs()
    monkeypatch.setenv("OSTREE_EXP_WRITE_BARE_SPLIT_XATTRS", "1")
    ours.pull(REF).check()
    assert ours.refs() == {f"remotes/{REMOTE}/{REF}": nasty.second}


def test_what_ostree_began_is_finished_and_the_other_way_round(
    plain: Origin, tmp_path: Path
) -> None:
    """Partial commits of `ostree pull --commit-metadata-only` count as such."""
    whole = Client.create(tmp_path / "whole", "bare-user", plain.url)
    whole.stock.pull(REMOTE, REF)
    ours = Client.create(tmp_path / "ours", "bare-user", plain.url)
    ours.stock.pull(REMOTE, REF, options=["--commit-metadata-only"])
    ours.pull(REF).check()
    check_equal(whole, ours)
    theirs = Client.create(tmp_path / "theirs", "bare-user", plain.url)
    theirs.pull(REF, "--commit-metadata-only").check()
    theirs.stock.pull(REMOTE, REF)
    check_equal(whole, theirs)


@pytest.fixture(scope="module")
def debian(
    debian_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Origin]:
    """A real operating system, and a second commit with 140 files changed."""
    work = tmp_path_factory.mktemp("debian")
    stock = Ostree.init(work / "origin", "archive")
    first = stock.commit(debian_tree, REF)
    changes = work / "changes"
    random_tree(changes, seed=3, files=140, size=4_000_000)
    change_files(changes, seed=4, files=40)
    second = stock.run(
        "commit",
        f"--branch={REF}",
        f"--tree=ref={first}",
        f"--tree=dir={changes}",
        "--timestamp=@1700000100",
    ).strip()
    with run_nginx(work / "origin", work=work / "nginx") as nginx:
        yield Origin(stock, nginx, first, second)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(
    "mode",
    [
        "bare",
        pytest.param("bare-user", marks=pytest.mark.long),
        pytest.param("archive", marks=pytest.mark.long),
    ],
)
def test_a_debian_system_arrives_as_with_ostree(
    mode: str, debian: Origin, tmp_path: Path
) -> None:
    theirs = Client.create(tmp_path / "theirs", mode, debian.url)
    ours = Client.create(tmp_path / "ours", mode, debian.url)
    for wanted in (f"{REF}@{debian.first}", REF):
        theirs.stock.pull(REMOTE, wanted)
        ours.pull_apart(wanted).check()
    check_equal(theirs, ours)
    ours.check_sound()
    ours.stock.fsck()
