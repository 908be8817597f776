"""`p2p treehub` with real clients: stock `ostree` pulls, and the requests of a push."""

import hashlib
import http.client
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from p2p.ostree.objects import FileHeader
from tests.compat.treehub_process import TreeHubProcess, treehub_process
from tests.oracle import Ostree, closure, dangling, walk_objects
from tests.trees import MIB, change_files, nasty_tree, random_tree, small_tree

FORCE = {"x-ats-ostree-force": "true"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TreeHubProcess]:
    with treehub_process(tmp_path / "store") as process:
        yield process


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


class GaragePush:
    """The requests that garage-push makes, in its order (research of aktualizr).

    HEAD of the commit; unless it is there, HEAD of every object below it and POST of
    what is missing, children first and the commit last; POST of the ref. Success is
    204 or 409 and nothing else.
    """

    def __init__(self, hub: TreeHubProcess, repo: Path) -> None:
        self.sent: list[str] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", hub.port)
        self._repo = repo

    def _ask(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, bytes]:
        self._connection.request(method, f"/api/v3/{path}", body, FORCE)
        response = self._connection.getresponse()
        return response.status, response.read()

    def push(self, ref: str) -> None:
        commit = (self._repo / "refs/heads" / ref).read_text().strip()
        name = f"{commit}.commit"
        if self._ask("HEAD", place(name))[0] != 200:
            needed = closure(self._repo, commit).reachable - {name}
            for child in sorted(needed, key=lambda n: (n.endswith("tree"), n)):
                self._ensure(child)
            self._ensure(name)
        status, _ = self._ask("POST", f"refs/heads/{ref}", commit.encode())
        assert status == 200
        self._connection.close()

    def _ensure(self, name: str) -> None:
        if self._ask("HEAD", place(name))[0] == 200:
            return
        data = (self._repo / place(name)).read_bytes()
        status, answer = self._ask("POST", place(name), data)
        assert status in (204, 409), answer
        self.sent.append(name)


def place(name: str) -> str:
    """Where an archive repository keeps an object."""
    name = re.sub(r"\.file$", ".filez", name)
    return f"objects/{name[:2]}/{name[2:]}"


def places(repo: Path, commit: str) -> set[str]:
    """Where an archive repository keeps what a commit needs."""
    return {place(name) for name in closure(repo, commit).reachable}


def make_source(path: Path, tree: Path, *, mode: str = "archive") -> Ostree:
    stock = Ostree.init(path, mode)
    stock.run("commit", "--branch=main", f"--tree=dir={tree}")
    return stock


def pull(hub: TreeHubProcess, path: Path, *, mode: str, prefix: str = "") -> Ostree:
    client = Ostree.init(path, mode)
    client.run("remote", "add", "hub", hub.url + prefix, "--no-gpg-verify")
    client.run("pull", "hub", "main")
    return client


def assert_sound(store: Path) -> None:
    """The independent walker and stock fsck find nothing to complain about."""
    assert walk_objects(store).problems == ()
    assert dangling(store) == []
    Ostree(store).run("fsck", "--quiet")


def try_push(hub: TreeHubProcess, repo: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "p2p", "push", f"--repo={repo}", "--ref=main"]
    return subprocess.run(
        [*command, f"--origin={hub.url}/api/v3"],
        capture_output=True,
        text=True,
        check=False,
    )


def p2p_push(hub: TreeHubProcess, repo: Path) -> None:
    done = try_push(hub, repo)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("prefix", ["", "/api/v2", "/api/v3"])
@pytest.mark.parametrize("mode", ["archive", "bare-user"])
def test_ostree_pulls_what_garage_push_pushed(
    tmp_path: Path, hub: TreeHubProcess, store: Path, prefix: str, mode: str
) -> None:
    small_tree(tmp_path / "tree")
    source = make_source(tmp_path / "source", tmp_path / "tree")
    GaragePush(hub, source.repo).push("main")
    client = pull(hub, tmp_path / "client", mode=mode, prefix=prefix)
    commit = source.run("rev-parse", "main").strip()
    assert client.run("rev-parse", "hub:main").strip() == commit
    client.run("fsck", "--quiet")
    assert not closure(client.repo, commit).missing
    assert_sound(store)


def test_a_second_push_sends_what_changed_and_ostree_pulls_it(
    tmp_path: Path, hub: TreeHubProcess, store: Path
) -> None:
    random_tree(tmp_path / "tree", seed=5, files=300, size=MIB)
    source = make_source(tmp_path / "source", tmp_path / "tree")
    GaragePush(hub, source.repo).push("main")
    client = pull(hub, tmp_path / "client", mode="bare-user")
    change_files(tmp_path / "tree", seed=6, files=3)
    source.run("commit", "--branch=main", f"--tree=dir={tmp_path / 'tree'}")
    second = GaragePush(hub, source.repo)
    second.push("main")
    kinds = Counter(name.rpartition(".")[2] for name in second.sent)
    assert (kinds["filez"], kinds["commit"]) == (3, 1)
    client.run("pull", "hub", "main")
    new = source.run("rev-parse", "main").strip()
    assert client.run("rev-parse", "hub:main").strip() == new
    client.run("fsck", "--quiet")
    assert_sound(store)


@pytest.mark.parametrize("mode", ["archive", "bare-user"])
def test_our_push_of_a_nasty_tree_comes_out_as_ostree_committed_it(
    tmp_path: Path, hub: TreeHubProcess, store: Path, mode: str
) -> None:
    nasty_tree(tmp_path / "tree", root=os.geteuid() == 0)
    source = make_source(tmp_path / "source", tmp_path / "tree", mode=mode)
    p2p_push(hub, source.repo)
    assert_sound(store)
    client = pull(hub, tmp_path / "client", mode="bare-user", prefix="/api/v3")
    commit = source.run("rev-parse", "main").strip()
    # Objects are named by their content, so equal names are equal trees.
    assert places(client.repo, commit) == places(source.repo, commit)
    client.run("fsck", "--quiet")


@pytest.mark.root
def test_a_bare_repository_can_be_pushed(
    tmp_path: Path, hub: TreeHubProcess, store: Path
) -> None:
    nasty_tree(tmp_path / "tree", root=True)
    source = make_source(tmp_path / "source", tmp_path / "tree", mode="bare")
    p2p_push(hub, source.repo)
    assert_sound(store)


def test_ostree_commits_into_the_store_and_the_server_serves_it(
    tmp_path: Path, hub: TreeHubProcess, store: Path
) -> None:
    small_tree(tmp_path / "tree")
    stock = Ostree(store)
    stock.run("commit", "--branch=main", f"--tree=dir={tmp_path / 'tree'}")
    pull(hub, tmp_path / "client", mode="archive").run("fsck", "--quiet")


def test_ostree_prune_of_the_store_during_a_push_costs_nothing_but_time(
    tmp_path: Path, hub: TreeHubProcess, store: Path
) -> None:
    random_tree(tmp_path / "tree", seed=8, files=200, size=MIB)
    source = make_source(tmp_path / "source", tmp_path / "tree")
    done = threading.Event()
    pruned = []

    def prune() -> None:
        while not done.is_set():
            Ostree(store).run("prune", "--refs-only")
            pruned.append(True)

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        # What prune takes away meanwhile nothing refers to; the ref is refused then.
        first = try_push(hub, source.repo)
    finally:
        done.set()
        pruning.join()
    assert pruned
    refused = "lacks" in first.stderr or "is not here" in first.stderr
    assert first.returncode == 0 or refused
    assert_sound(store)
    p2p_push(hub, source.repo)
    assert_sound(store)
    assert "main" in Ostree(store).run("refs")


def test_ostree_goes_on_to_the_next_mirror_for_what_is_not_here(
    tmp_path: Path, hub: TreeHubProcess, store: Path
) -> None:
    """Release 2022.7 takes the body of a 404 for the beginning of the object."""
    small_tree(tmp_path / "tree")
    source = make_source(tmp_path / "source", tmp_path / "tree")
    p2p_push(hub, source.repo)
    shutil.copytree(store, tmp_path / "other")
    for path in sorted((store / "objects").rglob("*.filez"))[:3]:
        path.unlink()
    with treehub_process(tmp_path / "other") as second:
        mirrors = tmp_path / "mirrors"
        mirrors.write_text(f"{hub.url}\n{second.url}\n")
        client = Ostree.init(tmp_path / "client", "archive")
        url = f"mirrorlist=file://{mirrors}"
        client.run("remote", "add", "hub", url, "--no-gpg-verify")
        client.run("pull", "hub", "main")
        client.run("fsck", "--quiet")


# -- killed, stalled, flooded ------------------------------------------------------


def test_nothing_answered_is_lost_when_the_server_is_killed(
    tmp_path: Path, store: Path
) -> None:
    random_tree(tmp_path / "tree", seed=9, files=220, size=4 * MIB)
    source = make_source(tmp_path / "source", tmp_path / "tree")
    commit = source.run("rev-parse", "main").strip()
    names = sorted(closure(source.repo, commit).reachable)
    random.Random(10).shuffle(names)
    answered: set[str] = set()
    for stop_at in (20, 60, 110, 160, 200):
        with treehub_process(store) as hub:
            upload_until(hub, source.repo, names, answered, stop_at=stop_at)
            hub.kill()
        assert walk_objects(store).problems == ()
        lost = [name for name in answered if not (store / place(name)).exists()]
        assert lost == []
    with treehub_process(store) as hub:
        left = list((store / "tmp").glob("p2p-upload-*/[0-9]*"))
        assert left == []
        p2p_push(hub, source.repo)
        assert hub.stop() == 0
    assert_sound(store)
    assert list((store / "tmp").glob("p2p-upload-*")) == []
    assert Ostree(store).run("rev-parse", "main").strip() == commit


def upload_until(
    hub: TreeHubProcess,
    repo: Path,
    names: list[str],
    answered: set[str],
    *,
    stop_at: int,
) -> None:
    """Upload with eight connections until that many objects are answered.

    The connections still have uploads under way then.
    """
    waiting = iter([name for name in names if name not in answered])
    guard, enough = threading.Lock(), threading.Event()

    def work() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", hub.port)) as connection:
            for name in iter(take, ""):
                body = (repo / place(name)).read_bytes()
                try:
                    connection.request("POST", f"/{place(name)}", body)
                    response = connection.getresponse()
                    response.read()
                except (OSError, http.client.HTTPException):
                    return
                if response.status in (204, 409):
                    answered.add(name)
                if len(answered) >= stop_at:
                    enough.set()

    def take() -> str:
        with guard:
            return next(waiting, "")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    hub.kill()
    for thread in threads:
        thread.join()


def test_a_large_upload_takes_little_memory(hub: TreeHubProcess, store: Path) -> None:
    size = 300 * MIB
    header = FileHeader(0, 0, 0o100644)
    piece = random.Random(11).randbytes(MIB)
    digest = hashlib.sha256(header.frame())
    packer = zlib.compressobj(0, zlib.DEFLATED, -15)
    packed = [header.serialize_filez(size)]
    for _ in range(size // MIB):
        digest.update(piece)
        packed.append(packer.compress(piece))
    packed.append(packer.flush())
    before = hub.peak_memory_bytes()
    name = f"{digest.hexdigest()}.filez"
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=120)
    length = sum(map(len, packed))
    connection.request(
        "POST", f"/{place(name)}", iter(packed), {"Content-Length": str(length)}
    )
    assert connection.getresponse().status == 204
    assert hub.peak_memory_bytes() - before < 20 * MIB
    assert (store / place(name)).stat().st_size == length
    connection.close()


def test_clients_that_never_finish_do_not_keep_others_out(
    tmp_path: Path, hub: TreeHubProcess
) -> None:
    small_tree(tmp_path / "tree")
    source = make_source(tmp_path / "source", tmp_path / "tree")
    p2p_push(hub, source.repo)
    idlers = [socket.create_connection(("127.0.0.1", hub.port)) for _ in range(400)]
    for number, idler in enumerate(idlers):
        idler.sendall((b"", b"GET / HT", b"POST /objects/ HTTP/1.1\r\nX: ")[number % 3])
    pull(hub, tmp_path / "client", mode="archive").run("fsck", "--quiet")
    for idler in idlers:
        idler.close()
