"""What is staged and published against what `ostree pull` writes, inode by inode."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2p.agent.writing import Writer, open_process_writer
from p2p.errors import LockedError, RepositoryError, WriterError
from p2p.ostree.holdings import STAGE_PATH, Holdings
from p2p.ostree.libostree import LibostreePublisher, publisher_for
from p2p.ostree.lock import locked
from p2p.ostree.messages import Done, Form, Publish, StageObjects, Sync
from p2p.ostree.objects import ObjectName, ObjectType
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from p2p.writer.service import WriterService
from tests import killing
from tests.mounts import MakeMount
from tests.oracle import (
    ObjectStat,
    Ostree,
    closure,
    dangling,
    differences,
    snapshot,
    walk_objects,
)
from tests.require import require
from tests.servers import StartNginx
from tests.transfer import (
    PUBLISHERS,
    main_of,
    publication,
    read_objects,
    requests,
    transfer,
)
from tests.trees import canonical_tree, nasty_tree, os_tree, random_tree, small_tree
from tests.unprivileged import Unprivileged

MAIN = remote_ref("o", "main")
ROOT = Path(__file__).parents[2]
MODES = [
    "archive",
    pytest.param("bare", marks=pytest.mark.root),
    "bare-user",
    "bare-user-only",
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive repositories: `nasty`, `plain` (of this user) and `canonical`."""
    top = tmp_path_factory.mktemp("sources")
    nasty_tree(top / "nasty-tree", root=os.geteuid() == 0)
    canonical_tree(top / "canonical-tree")
    Ostree.init(top / "nasty", "archive").commit(top / "nasty-tree", "main")
    options = ("--owner-uid=0", "--owner-gid=0", "--no-xattrs")
    canonical = Ostree.init(top / "canonical", "archive")
    canonical.commit(top / "canonical-tree", "main", *options)
    return top


def comparable(repo: Path) -> dict[str, ObjectStat]:
    """Every object; the time only of bare files, where it has a meaning."""
    return {
        name: found
        if name.endswith(".file") and found.mode[0] == "-"
        else replace(found, mtime_ns=0)
        for name, found in snapshot(repo).items()
    }


def pulled_by_stock(
    source: Path, target: Path, mode: str, nginx: StartNginx, *, prefix: tuple[str, ...]
) -> Ostree:
    stock = Ostree.init(target, mode, prefix=prefix)
    stock.remote_add("o", nginx(source).url)
    stock.pull("o", "main")
    return stock


def assert_as_pulled(ours: Ostree, stock: Ostree) -> None:
    assert differences(comparable(stock.repo), comparable(ours.repo)) == []
    assert ours.rev_parse("o:main") == stock.rev_parse("o:main")
    ours.fsck()
    assert_whole(ours.repo)
    assert list(Repo.open(ours.repo / STAGE_PATH).all_objects()) == []


def assert_whole(repo: Path) -> None:
    report = walk_objects(repo)
    assert report.problems == ()
    assert report.checked > 0
    assert dangling(repo) == []
    commit = Repo.open(repo).refs.resolve(MAIN)
    assert closure(repo, commit).missing == frozenset()


# -- the same bytes and inodes ---------------------------------------------------------


@pytest.mark.parametrize("publisher", ["native", "libostree"])
@pytest.mark.parametrize("cut", [0, 100_000], ids=["whole", "pieces"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_published_is_what_ostree_pulls(
    tmp_path: Path,
    sources: Path,
    nginx: StartNginx,
    mode: str,
    cut: int,
    publisher: str,
) -> None:
    source = sources / ("canonical" if mode == "bare-user-only" else "nasty")
    stock = pulled_by_stock(source, tmp_path / "stock", mode, nginx, prefix=())
    ours = Ostree.init(tmp_path / "ours", mode)
    transfer(source, ours.repo, form=Form.CANONICAL, cut=cut, publisher=publisher)
    if mode == "archive":
        # Each deflates for itself: the packed bytes may differ, nothing else.
        assert ours.ls("o:main") == stock.ls("o:main")
        ours.fsck()
        assert_whole(ours.repo)
        return
    assert_as_pulled(ours, stock)


@pytest.mark.parametrize("publisher", ["native", "libostree"])
@pytest.mark.parametrize("cut", [0, 100_000], ids=["whole", "pieces"])
def test_a_filez_goes_into_an_archive_byte_for_byte(
    tmp_path: Path, sources: Path, nginx: StartNginx, cut: int, publisher: str
) -> None:
    source = sources / "nasty"
    stock = pulled_by_stock(source, tmp_path / "stock", "archive", nginx, prefix=())
    ours = Ostree.init(tmp_path / "ours", "archive")
    transfer(source, ours.repo, form=Form.FILEZ, cut=cut, publisher=publisher)
    assert_as_pulled(ours, stock)


@pytest.mark.parametrize("publisher", ["native", "libostree"])
@pytest.mark.parametrize("mode", ["archive", "bare", "bare-user", "bare-user-only"])
def test_an_ordinary_user_publishes_what_ostree_pulls_as_that_user(
    sources: Path,
    nginx: StartNginx,
    ordinary_user: Unprivileged,
    mode: str,
    publisher: str,
) -> None:
    user, home = ordinary_user, ordinary_user.home
    source = sources / ("canonical" if mode == "bare-user-only" else "nasty")
    if mode == "bare":
        # Only what this user may own.
        source = home / "source"
        user.run(
            "cp", "-a", "--no-preserve=ownership", sources / "canonical-tree", home
        )
        own = Ostree.init(source, "archive", prefix=user.prefix)
        own.commit(home / "canonical-tree", "main")
    stock = pulled_by_stock(source, home / "stock", mode, nginx, prefix=user.prefix)
    ours = Ostree.init(home / "ours", mode, prefix=user.prefix)
    program = f"import sys; sys.path.append({str(ROOT)!r}); import runpy; "
    program += "runpy.run_module('tests.transfer', run_name='__main__', alter_sys=True)"
    form = "filez" if mode == "archive" else "canonical"
    user.run(
        sys.executable, "-P", "-c", program, source, ours.repo, form, "0", publisher
    )
    assert_as_pulled(ours, stock)


def test_a_user_who_may_not_write_is_told_so(
    tmp_path: Path, sources: Path, ordinary_user: Unprivileged
) -> None:
    require("root")  # whose repository it is
    Ostree.init(tmp_path / "repo", "bare-user")
    program = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from p2p.errors import ReadOnlyError\n"
        "from p2p.ostree.repo import Repo\n"
        "from p2p.ostree.stage import Stage\n"
        "try: Stage(Repo.open(sys.argv[1]))\n"
        "except ReadOnlyError as error: print(error, error.hint)\n"
    )
    done = ordinary_user.run(sys.executable, "-P", "-c", program, tmp_path / "repo")
    assert "Permission denied" in done.stdout
    assert "owner" in done.stdout


@pytest.mark.root
def test_a_label_that_may_not_be_set_is_an_error_and_never_left_out(
    sources: Path, ordinary_user: Unprivileged
) -> None:
    """The nasty tree holds security.*, trusted.* and files of other owners."""
    repo = Ostree.init(ordinary_user.home / "repo", "bare", prefix=ordinary_user.prefix)
    program = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from p2p.ostree.filez import to_canonical\n"
        "from p2p.ostree.messages import *\n"
        "from p2p.ostree.repo import Repo\n"
        "from p2p.writer.service import WriterService\n"
        "from tests.transfer import read_objects\n"
        "with WriterService(Repo.open(sys.argv[2])) as service:\n"
        "    for each in read_objects(Path(sys.argv[1]), Form.CANONICAL):\n"
        "        reply = service.handle(StageObjects((each,)))\n"
        "        if reply != Done(): print(reply.kind, each[0], reply.message)\n"
    )
    done = ordinary_user.run(
        sys.executable, "-P", "-c", program, sources / "nasty", repo.repo
    )
    lines = done.stdout.splitlines()
    assert lines
    for line in lines:
        kind, name, *_ = line.split()
        assert kind == "RepositoryError"
        assert f"object {name}" in line
    assert walk_objects(repo.repo).problems == ()


@pytest.mark.parametrize("mode", ["bare", "bare-user"])
@pytest.mark.root
def test_libostree_links_what_was_staged(
    tmp_path: Path, sources: Path, mode: str
) -> None:
    """It must not copy: an update would need its space twice."""
    ours = Ostree.init(tmp_path / "ours", mode)
    with WriterService(Repo.open(ours.repo)) as service:
        for request in requests(read_objects(sources / "nasty", Form.CANONICAL), cut=0):
            service.handle(request)
        inodes = {n: s.st_ino for n, s in _inodes(ours.repo / STAGE_PATH / "objects")}
        LibostreePublisher(service.stage).publish(publication(sources / "nasty"))
    after = dict(_inodes(ours.repo / "objects"))
    files = [name for name in inodes if name.endswith(".file")]
    assert files
    assert [name for name in files if after[name].st_ino != inodes[name]] == []


def commit_of(source: Path) -> tuple[ObjectName, Form, bytes]:
    """The `.commit` of `main`."""
    objects = read_objects(source, Form.CANONICAL)
    return next(each for each in objects if each[0].type is ObjectType.COMMIT)


def _inodes(objects: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in objects.glob("??/*"):
        yield path.parent.name + path.name, path.lstat()


def test_split_xattrs_are_for_libostree_to_write_or_to_refuse(
    tmp_path: Path, sources: Path
) -> None:
    """2022.7 refuses; what it is made to write by a variable is damaged."""
    ours = Ostree.init(tmp_path / "ours", "bare-split-xattrs")
    source = sources / "canonical"
    with WriterService(Repo.open(ours.repo)) as service:
        for request in requests(read_objects(source, Form.CANONICAL), cut=0):
            assert service.handle(request) == Done()
        publisher = publisher_for(service.stage)
        assert isinstance(publisher, LibostreePublisher)
        with pytest.raises(RepositoryError, match="Not allowed due to repo mode"):
            publisher.publish(publication(source))
        assert service.stage.has(commit_of(source)[0])
    assert ours.refs() == []


@pytest.mark.parametrize("publisher", ["native", "libostree"])
def test_an_update_needs_only_what_is_new(
    tmp_path: Path, nginx: StartNginx, publisher: str
) -> None:
    small_tree(tmp_path / "tree")
    origin = Ostree.init(tmp_path / "origin", "archive")
    origin.commit(tmp_path / "tree", "main")
    ours = pulled_by_stock(
        origin.repo, tmp_path / "ours", "bare-user", nginx, prefix=()
    )
    (tmp_path / "tree/usr/share/new").write_text("new\n")
    new = origin.commit(tmp_path / "tree", "main", timestamp=1_700_000_100)
    sent = []
    with WriterService(Repo.open(ours.repo)) as service:
        for name, form, data in read_objects(origin.repo, Form.CANONICAL):
            if not service.stage.holdings.has(name):
                service.handle(StageObjects(((name, form, data),)))
                sent.append(name)
        PUBLISHERS[publisher](service.stage).publish(publication(origin.repo))
    kinds = sorted(name.type.extension for name in sent)
    assert kinds == ["commit", "dirtree", "dirtree", "dirtree", "file"]
    ours.fsck()
    assert_whole(ours.repo)
    assert ours.rev_parse("o:main") == new


@pytest.mark.parametrize("publisher", ["native", "libostree"])
def test_one_commit_is_published_under_a_second_ref(
    tmp_path: Path, sources: Path, publisher: str
) -> None:
    ours = Ostree.init(tmp_path / "ours", "bare-user")
    for remote in ("o", "p"):
        with WriterService(Repo.open(ours.repo)) as service:
            for request in requests(
                read_objects(sources / "canonical", Form.CANONICAL), cut=0
            ):
                service.handle(request)
            what = publication(sources / "canonical", remote=remote)
            PUBLISHERS[publisher](service.stage).publish(what)
    assert ours.refs() == ["o:main", "p:main"]
    ours.fsck()
    assert_whole(ours.repo)
    assert list(Repo.open(ours.repo / STAGE_PATH).all_objects()) == []


@pytest.mark.parametrize("publisher", ["native", "libostree"])
def test_only_metadata_leaves_the_partial_commit_that_ostree_leaves(
    tmp_path: Path, sources: Path, nginx: StartNginx, publisher: str
) -> None:
    source = sources / "canonical"
    stock = Ostree.init(tmp_path / "stock", "bare-user")
    stock.remote_add("o", nginx(source).url)
    stock.pull("o", "main", options=["--commit-metadata-only"])
    ours = Ostree.init(tmp_path / "ours", "bare-user")
    with WriterService(Repo.open(ours.repo)) as service:
        service.handle(StageObjects((commit_of(source),)))
        what = replace(publication(source), metadata_only=True)
        PUBLISHERS[publisher](service.stage).publish(what)
    assert differences(comparable(stock.repo), comparable(ours.repo)) == []
    states = [
        sorted(p.name for p in (r.repo / "state").iterdir()) for r in (stock, ours)
    ]
    assert states[0] == states[1]
    assert ours.refs() == ["o:main"]
    stock_says, we_say = (r.run("fsck", "--quiet") for r in (stock, ours))
    assert stock_says == we_say


@pytest.mark.parametrize("publisher", ["native", "libostree"])
def test_a_remote_that_demands_gpg_signatures_is_no_hindrance_to_publishing(
    tmp_path: Path, sources: Path, publisher: str
) -> None:
    """The writer verified before; `ostree` must not look for keys it may not have."""
    ours = Ostree.init(tmp_path / "ours", "bare-user")
    ours.remote_add(
        "o", "http://localhost/", "--set=gpg-verify=true", "--set=sign-verify=ed25519"
    )
    transfer(
        sources / "canonical",
        ours.repo,
        form=Form.CANONICAL,
        cut=0,
        publisher=publisher,
    )
    assert_whole(ours.repo)


# -- a system --------------------------------------------------------------------------


@contextlib.contextmanager
def running(*command: str | Path) -> Iterator[list[int]]:
    """Run a command over and over beside the block; the status of each run."""
    statuses: list[int] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            done = subprocess.run(command, capture_output=True, check=False)
            statuses.append(done.returncode)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def sysroot(loop_ext4: MakeMount) -> Ostree:
    """An empty system on a filesystem of its own; `prefix` of its paths is `root`."""
    root = loop_ext4()
    stock = Ostree(root / "ostree/repo")
    stock.admin("init-fs", root)
    stock.admin("os-init", "tree", f"--sysroot={root}")
    stock.remote_add("o", "http://localhost/")
    return stock


def root_of(sysroot: Ostree) -> Path:
    return sysroot.repo.parents[1]


def deployable(top: Path, version: str) -> Path:
    """An archive repository whose `main` can be deployed."""
    os_tree(top / f"tree-{version}", version=version)
    origin = Ostree.init(top / f"origin-{version}", "archive")
    origin.commit(
        top / f"tree-{version}", "main", timestamp=1_700_000_000 + int(version)
    )
    return origin.repo


def stage_and_publish(
    source: Path, target: Path, *, staged: Callable[[], None] = lambda: None
) -> None:
    """As an agent does it: through the writer, with the publisher it chooses."""
    commit = main_of(source)
    with WriterService(Repo.open(target)) as service:
        for request in requests(read_objects(source, Form.CANONICAL), cut=0):
            assert service.handle(request) == Done()
        staged()
        request = Publish(
            remote="o", commits=((commit, "main"),), refs=((MAIN, commit),)
        )
        assert service.handle(request) == Done()


@pytest.mark.root
def test_ostree_deploys_what_was_published_into_its_sysroot(
    tmp_path: Path, sysroot: Ostree
) -> None:
    root = root_of(sysroot)
    for version in ("1", "2"):
        source = deployable(tmp_path, version)
        stage_and_publish(source, sysroot.repo)
        sysroot.admin("deploy", "--os=tree", f"--sysroot={root}", "o:main")
        deployed = root / f"ostree/deploy/tree/deploy/{main_of(source)}.0"
        release = (deployed / "usr/lib/os-release").read_text()
        assert f"VERSION_ID={version}\n" in release
        origin = deployed.with_suffix(".0.origin").read_text()
        assert "refspec=o:main" in origin
    sysroot.fsck()
    assert_whole(sysroot.repo)
    sysroot.admin("cleanup", f"--sysroot={root}")
    sysroot.fsck()


@pytest.mark.root
def test_cleaning_a_sysroot_up_while_it_is_published_to_costs_nothing(
    tmp_path: Path, sysroot: Ostree
) -> None:
    root = root_of(sysroot)
    sources = [deployable(tmp_path, str(number)) for number in range(1, 4)]
    with running("ostree", "admin", "cleanup", f"--sysroot={root}") as statuses:
        for source in sources:
            stage_and_publish(source, sysroot.repo)
            assert_whole(sysroot.repo)
    assert set(statuses) == {0}
    sysroot.fsck()


@pytest.mark.root
def test_staging_keeps_nobody_from_deploying_and_cleaning_up(
    tmp_path: Path, sysroot: Ostree
) -> None:
    root = root_of(sysroot)
    stage_and_publish(deployable(tmp_path, "1"), sysroot.repo)
    sysroot.run("config", "set", "core.lock-timeout-secs", "0")
    objects = list(read_objects(deployable(tmp_path, "2"), Form.CANONICAL))
    with WriterService(Repo.open(sysroot.repo)) as service:
        service.handle(StageObjects(tuple(objects[:5])))
        sysroot.admin("deploy", "--os=tree", f"--sysroot={root}", "o:main")
        service.handle(StageObjects(tuple(objects[5:])))
        sysroot.admin("cleanup", f"--sysroot={root}")
        sysroot.run("prune", "--refs-only")
        missing = [n for n, _, _ in objects if not service.stage.holdings.has(n)]
    assert missing == []


# -- others at work --------------------------------------------------------------------


def test_pruning_while_commits_are_staged_and_published_costs_nothing(
    tmp_path: Path,
) -> None:
    origins = []
    for number in range(3):
        tree = tmp_path / f"tree{number}"
        random_tree(tree, seed=number, files=150, size=600_000)
        origins.append(tmp_path / f"origin{number}")
        stock = Ostree.init(origins[-1], "archive")
        stock.commit(tree, "main", timestamp=1_700_000_000 + number)
    ours = Ostree.init(tmp_path / "ours", "bare-user")
    ours.remote_add("o", "http://localhost/")
    prune = ("ostree", "prune", "--refs-only", f"--repo={ours.repo}")
    with running(*prune) as statuses:

        def wait_for_a_prune() -> None:
            """Wait until one ran that began after now."""
            ran = len(statuses)
            while len(statuses) < ran + 2:
                time.sleep(0.01)

        for origin in origins:
            stage_and_publish(origin, ours.repo, staged=wait_for_a_prune)
            # What the ref named before goes meanwhile; what it names now is whole.
            assert closure(ours.repo, main_of(origin)).missing == frozenset()
    assert_whole(ours.repo)
    assert set(statuses) == {0}
    ours.fsck()


async def test_two_writers_publish_into_one_repository_at_once(tmp_path: Path) -> None:
    """Two updates that share most of their files, under two refs."""
    random_tree(tmp_path / "tree", seed=7, files=120, size=400_000)
    origins = []
    for number in range(2):
        (tmp_path / "tree" / f"only-{number}").write_text(str(number))
        origins.append(tmp_path / f"origin{number}")
        Ostree.init(origins[-1], "archive").commit(tmp_path / "tree", "main")
        (tmp_path / "tree" / f"only-{number}").unlink()
    target = fresh(tmp_path / "repo")
    Ostree(target).remote_add("p", "http://localhost/")
    async with trio.open_nursery() as nursery:
        for origin, remote in zip(origins, ("o", "p"), strict=True):
            nursery.start_soon(Fetcher(origin, target, remote=remote).fetch)
    ours = Ostree(target)
    assert ours.refs() == ["o:main", "p:main"]
    ours.fsck()
    assert_nothing_dangles(target)


@pytest.mark.parametrize("key", ["core.locking=true", "ex-integrity.fsverity=maybe"])
def test_a_repository_that_somebody_locked_is_waited_for_and_then_given_up(
    tmp_path: Path, sources: Path, key: str
) -> None:
    """The second key makes libostree the publisher."""
    ours = Ostree.init(tmp_path / "ours", "bare-user")
    ours.remote_add("o", "http://localhost/")
    ours.run("config", "set", "core.lock-timeout-secs", "1")
    ours.run("config", "set", *key.split("="))
    lock = str(ours.repo / ".lock")
    with Stage(Repo.open(ours.repo)) as stage:
        with locked(lock, exclusive=True, timeout_seconds=0):
            for name, _, data in read_objects(sources / "canonical", Form.CANONICAL):
                stage.put(name, data)
            with pytest.raises(LockedError):
                publisher_for(stage).publish(publication(sources / "canonical"))
            assert ours.refs() == []
            assert list(Repo.open(ours.repo).all_objects()) == []
        publisher_for(stage).publish(publication(sources / "canonical"))
    ours.fsck()
    assert_whole(ours.repo)


# -- killed ----------------------------------------------------------------------------


BATCH = 10


class Fetcher:
    """An agent that stages what is missing and counts what it sends."""

    def __init__(self, source: Path, target: Path, *, remote: str = "o") -> None:
        self.sent: list[ObjectName] = []
        self.acknowledged: set[ObjectName] = set()
        self._objects = {
            name: (name, form, data)
            for name, form, data in read_objects(source, Form.CANONICAL)
        }
        self._commit = main_of(source)
        self._target = target
        self._remote = remote

    def _open(
        self, command: list[str] | None
    ) -> contextlib.AbstractAsyncContextManager[Writer]:
        if command is None:
            return open_process_writer(str(self._target))
        return open_process_writer(str(self._target), command=command)

    async def fetch(self, *, command: list[str] | None = None) -> None:
        """Stage in batches, and publish."""
        async with self._open(command) as writer:
            holdings = Holdings.of(Repo.open(self._target))
            missing = [n for n in self._objects if not holdings.has(n)]
            lost = self.acknowledged & set(missing)
            assert not lost
            while missing:
                batch, missing = missing[:BATCH], missing[BATCH:]
                self.sent += batch
                await writer.call(StageObjects(tuple(self._objects[n] for n in batch)))
                self.acknowledged.update(batch)
                await writer.call(Sync())
            await writer.call(
                Publish(
                    remote=self._remote,
                    commits=((self._commit, "main"),),
                    refs=((remote_ref(self._remote, "main"), self._commit),),
                )
            )


WRITER = """
from p2p.writer.process import main
sys.exit(main(sys.argv[1:]))
"""
COUNTING = """
from pathlib import Path
from p2p.writer.process import main
from tests.killing import Steps
log, directory = sys.argv[1:3]
steps = Steps(directory, 0)
status = main([directory, *sys.argv[4:]])
Path(log).write_text(str(steps.count))
sys.exit(status)
"""


@pytest.fixture
def small_origin(tmp_path: Path) -> Path:
    random_tree(tmp_path / "tree", seed=1, files=60, size=200_000)
    origin = Ostree.init(tmp_path / "origin", "archive")
    origin.commit(tmp_path / "tree", "main")
    return origin.repo


def fresh(target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    Ostree.init(target, "bare-user").remote_add("o", "http://localhost/")
    return target


async def count_steps(source: Path, target: Path) -> int:
    """How many steps a writer takes that is not killed."""
    log = target.with_suffix(".steps")
    command = [*killing.command(target, COUNTING, at=0), str(log), str(target)]
    await Fetcher(source, fresh(target)).fetch(command=command)
    return int(log.read_text())


@pytest.mark.slow
async def test_a_writer_killed_at_any_moment_loses_nothing_it_acknowledged(
    tmp_path: Path, small_origin: Path
) -> None:
    target = tmp_path / "repo"
    steps = await count_steps(small_origin, target)
    for seed in range(20):
        at = random.Random(seed).randint(1, steps)
        fetcher = Fetcher(small_origin, fresh(target))
        command = killing.command(target, WRITER, at=at)
        with pytest.raises(WriterError):
            await fetcher.fetch(command=command)
        assert_nothing_dangles(target)
        await fetcher.fetch()
        assert_whole(target)
        # Only the batch under way may have to be sent again.
        twice = len(fetcher.sent) - len(set(fetcher.sent))
        assert twice <= BATCH, f"killed at step {at} of {steps}"
        assert list(Repo.open(target / STAGE_PATH).all_objects()) == []


def assert_nothing_dangles(repo: Path) -> None:
    assert walk_objects(repo).problems == ()
    assert dangling(repo) == []


@pytest.mark.slow
async def test_a_writer_that_is_killed_again_and_again_gets_there(
    tmp_path: Path, small_origin: Path
) -> None:
    target = fresh(tmp_path / "repo")
    fetcher = Fetcher(small_origin, target)
    killed = 0
    while True:
        command = killing.command(target, WRITER, at=120)
        try:
            await fetcher.fetch(command=command)
        except WriterError:
            assert_nothing_dangles(target)
            killed += 1
            continue
        break
    assert killed > 3
    assert_whole(target)
