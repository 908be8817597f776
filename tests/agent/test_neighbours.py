"""Devices that pull from each other, over real TLS on loopback."""

from pathlib import Path

import pytest
import trio

from p2p.agent.request import PullRequest, Wanted
from p2p.errors import NoSourceError, RollbackError, SignatureError
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from tests.agent.devices import REF, Publisher, pull, puller, sharing
from tests.oracle import closure, dangling, walk_objects
from tests.oracle.walker import object_files
from tests.trees import MIB, random_tree

NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher.create(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small files, and one of some units."""
    path = tmp_path / "tree"
    random_tree(path, seed=1, files=300, size=2 * MIB)
    (path / "large").write_bytes(bytes(range(256)) * 4096 * 3)
    return path


async def holder(publisher: Publisher, path: Path, origin: Path) -> Repo:
    """A device that has what the publisher published."""
    del origin
    repo = publisher.device(path, NOWHERE)
    async with sharing(publisher.repo) as source:
        await pull(repo, peers=(source.port,), origin=False)
    return repo


def assert_whole(repo: Repo, commit: Checksum) -> None:
    report = walk_objects(Path(repo.path))
    assert report.checked > 0
    assert not report.problems
    assert not closure(Path(repo.path), commit).missing
    assert not dangling(Path(repo.path))
    assert not repo.is_partial(commit)


@pytest.mark.parametrize("mode", [RepoMode.BARE_USER, RepoMode.ARCHIVE])
async def test_a_device_gets_everything_from_a_neighbour_while_the_origin_is_away(
    tmp_path: Path, publisher: Publisher, tree: Path, mode: RepoMode
) -> None:
    commit = publisher.commit(tree)
    device = publisher.device(tmp_path / "device", NOWHERE, mode)
    async with sharing(publisher.repo) as source:
        pulled = await pull(device, peers=(source.port,), origin=False)
    assert pulled.refs[0].commit == commit
    assert pulled.refs[0].signed_by
    assert pulled.status.peers.bytes > 2 * MIB
    assert pulled.status.origin.objects == 0
    assert device.resolve(f"up:{REF}") == commit
    assert_whole(device, commit)


async def test_two_holders_of_different_modes_share_the_work(
    tmp_path: Path, publisher: Publisher, tree: Path
) -> None:
    commit = publisher.commit(tree)
    second = await holder(publisher, tmp_path / "second", tree)
    device = publisher.device(tmp_path / "device", NOWHERE)
    async with sharing(publisher.repo) as one, sharing(second) as two:
        await pull(device, peers=(one.port, two.port), origin=False)
    assert_whole(device, commit)


async def test_what_compresses_well_travels_compressed_unless_one_side_will_not(
    tmp_path: Path, publisher: Publisher
) -> None:
    tree = tmp_path / "text"
    (tree / "notes").mkdir(parents=True)
    for number in range(100):
        (tree / f"notes/{number}").write_text(f"{number}: the same again.\n" * 500)
    (tree / "large").write_bytes(b"".join(b"line %d\n" % n for n in range(200_000)))
    commit = publisher.commit(tree)
    came = []
    for compress in (True, False):
        device = publisher.device(tmp_path / f"device-{compress}", NOWHERE)
        async with (
            sharing(publisher.repo, compress=compress) as source,
            puller(device, peers=(source.port,), origin=False) as taker,
        ):
            pulled = await taker.run()
            [session] = [found[2] for found in taker.meeting.neighbours.peers()]
            came.append(session.received_bytes)
        assert_whole(device, commit)
        # People hear of content, whatever it weighed on the way.
        assert pulled.status.peers.bytes > 3 * MIB
    packed, plain = came
    assert packed < plain / 4
    assert plain > 3 * MIB


async def test_two_that_have_half_each_complete_each_other(
    tmp_path: Path, publisher: Publisher, tree: Path
) -> None:
    commit = publisher.commit(tree)
    halves = []
    for number in range(2):
        half = await holder(publisher, tmp_path / f"half{number}", tree)
        (Path(half.path) / "state" / f"{commit}.commitpartial").touch()
        for path, checksum, kind in list(object_files(Path(half.path))):
            if not kind.startswith("commit") and int(checksum[0], 16) % 2 == number:
                path.unlink()
        halves.append(half)
    request = PullRequest(wanted=(Wanted(REF, commit),))
    async with (
        puller(halves[0], origin=False, request=request) as one,
        puller(
            halves[1], peers=(one.meeting.port,), origin=False, request=request
        ) as two,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(one.run)
        nursery.start_soon(two.run)
    for half in halves:
        assert_whole(half, commit)


async def test_a_head_signed_by_a_stranger_is_refused_before_any_content(
    tmp_path: Path, publisher: Publisher, tree: Path
) -> None:
    stranger = Publisher.create(tmp_path / "stranger")
    stranger.commit(tree)
    device = publisher.device(tmp_path / "device", NOWHERE)
    async with sharing(stranger.repo) as source:
        with pytest.raises(SignatureError):
            await pull(device, peers=(source.port,), origin=False)
    assert list(device.refs.all()) == []
    assert walk_objects(Path(device.path)).checked == 0


async def test_an_older_head_of_a_neighbour_is_refused(
    tmp_path: Path, publisher: Publisher, tree: Path
) -> None:
    publisher.commit(tree, timestamp=1_700_000_000)
    stale = await holder(publisher, tmp_path / "stale", tree)
    (tree / "new").write_text("new")
    newest = publisher.commit(tree, timestamp=1_700_000_100)
    device = publisher.device(tmp_path / "device", NOWHERE)
    async with sharing(publisher.repo) as source:
        await pull(device, peers=(source.port,), origin=False)
    async with sharing(stale) as source:
        with pytest.raises(RollbackError):
            await pull(device, peers=(source.port,), origin=False)
    assert device.resolve(f"up:{REF}") == newest


async def test_of_two_heads_the_newest_is_taken_and_a_forged_one_costs_nothing(
    tmp_path: Path, publisher: Publisher, tree: Path
) -> None:
    publisher.commit(tree, timestamp=1_700_000_000)
    stale = await holder(publisher, tmp_path / "stale", tree)
    (tree / "new").write_text("new")
    newest = publisher.commit(tree, timestamp=1_700_000_100)
    stranger = Publisher.create(tmp_path / "stranger")
    stranger.commit(tree, timestamp=1_700_000_200)
    device = publisher.device(tmp_path / "device", NOWHERE)
    async with (
        sharing(publisher.repo) as one,
        sharing(stale) as two,
        sharing(stranger.repo) as three,
    ):
        peers = (one.port, two.port, three.port)
        await pull(device, peers=peers, origin=False)
    assert device.resolve(f"up:{REF}") == newest
    assert_whole(device, newest)


async def test_a_ref_nobody_shares_is_said_to_be_missing(
    tmp_path: Path, publisher: Publisher
) -> None:
    device = publisher.device(tmp_path / "device", NOWHERE)
    async with sharing(publisher.repo) as source:
        with pytest.raises(NoSourceError, match=REF):
            await pull(device, peers=(source.port,), origin=False)


async def test_only_what_changed_comes_from_the_neighbour(
    tmp_path: Path, publisher: Publisher, tree: Path
) -> None:
    publisher.commit(tree, timestamp=1_700_000_000)
    device = publisher.device(tmp_path / "device", NOWHERE)
    async with sharing(publisher.repo) as source:
        await pull(device, peers=(source.port,), origin=False)
    (tree / "new").write_bytes(b"n" * 10_000)
    commit = publisher.commit(tree, timestamp=1_700_000_100)
    async with sharing(publisher.repo) as source:
        pulled = await pull(device, peers=(source.port,), origin=False)
    assert pulled.status.peers.bytes < 40_000
    assert_whole(device, commit)
