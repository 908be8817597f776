"""Directories that the publisher itself made too large, or of nonsense."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from p2p.errors import Error, FormatError, LimitError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
    serialize_metadata,
)
from p2p.ostree.repo import Repo
from p2p.trust.policy import REF_BINDING
from p2p.wire import messages as m
from tests.agent.devices import REF, Publisher, puller, sharing
from tests.hostile.scene import NOWHERE, Scene, assert_clean, assert_whole, until
from tests.hostile.villain import BentSession, Villain
from tests.trees import MIB


async def test_a_directory_too_large_for_a_batch_comes_in_units(tmp_path: Path) -> None:
    publisher = Publisher.create(tmp_path)
    tree = tmp_path / "tree"
    wide = tree / "wide"
    wide.mkdir(parents=True)
    for number in range(2500):
        (wide / f"{number:0250}").touch()
    (tree / "last").write_text("last")
    commit = publisher.commit(tree)
    sizes = [path.stat().st_size for path in publisher_dirtrees(publisher)]
    assert max(sizes) > MIB // 2
    repo = publisher.device(tmp_path / "device", NOWHERE)
    async with (
        sharing(publisher.repo) as source,
        puller(repo, peers=(source.port,), origin=False) as device,
    ):
        await until(lambda: len(device.meeting.neighbours) == 1)
        await device.run(20)
        assert not device.meeting.neighbours.endings
    assert_whole(repo, commit)


def publisher_dirtrees(publisher: Publisher) -> Iterable[Path]:
    return Path(publisher.repo.path).glob("objects/*/*.dirtree")


class Signed(Villain):
    """Has a commit of these directories, signed as it should be."""

    def __init__(self, publisher: Publisher, root: Checksum, *trees: bytes) -> None:
        super().__init__()
        meta = DirMeta(0, 0, 0o40755).serialize()
        commit = Commit(
            root_dirtree=root,
            root_dirmeta=checksum_of(meta),
            timestamp=1_700_000_000,
            metadata=((REF_BINDING, Variant("as", (REF,))),),
        ).serialize()
        self.commit = checksum_of(commit)
        self.head = m.CommitData(
            m.RequestId(1),
            self.commit,
            commit,
            serialize_metadata(publisher.sign(commit)),
        )
        self.objects = {
            ObjectName(checksum_of(meta), ObjectType.DIRMETA): meta,
            **{ObjectName(checksum_of(t), ObjectType.DIRTREE): t for t in trees},
        }

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Holdings):
            held = (m.HeldCommit(self.commit, m.Held.COMPLETE),)
            message = m.Holdings(held)
        yield message

    def hear(self, session: BentSession, message: m.Message) -> bool:
        match message:
            case m.GetHead(request):
                head = self.head
                session.speak(
                    m.CommitData(request, head.checksum, head.commit, head.commitmeta)
                )
            case m.Want(request, _, names):
                found = (self.objects.get(name, m.Miss.NOT_HAVE) for name in names)
                session.speak(m.Batch(request, tuple(found)))
            case _:
                return isinstance(message, m.Request)
        return True


def nested(levels: int, width: int = 2) -> tuple[Checksum, list[bytes]]:
    """Directories in directories, each named by the one above several times."""
    meta = checksum_of(DirMeta(0, 0, 0o40755).serialize())
    trees = [DirTree().serialize()]
    for _ in range(levels):
        below = checksum_of(trees[-1])
        dirs = tuple((f"d{number:06}", below, meta) for number in range(width))
        trees.append(DirTree(dirs=dirs).serialize())
    return checksum_of(trees[-1]), trees


NONSENSE = b"\x01not a directory"
DIRECTORIES: dict[str, tuple[Checksum, list[bytes], type[Error]]] = {
    "31 objects that name 2^28 directories": (*nested(28), LimitError),
    "no directory": (checksum_of(NONSENSE), [NONSENSE], FormatError),
}


@pytest.mark.parametrize("what", DIRECTORIES)
async def test_what_the_publisher_signed_and_is_no_tree_ends_the_pull(
    scene: Scene, what: str
) -> None:
    """Nobody who passed it on is to blame, and nothing of it becomes visible."""
    root, trees, error = DIRECTORIES[what]
    repo = scene.device()
    async with (
        scene.villains(Signed(scene.publisher, root, *trees)) as ports,
        puller(repo, peers=ports, origin=False) as device,
    ):
        await until(lambda: len(device.meeting.neighbours) == 1)
        with pytest.raises(error):
            await device.run(20)
        assert not device.meeting.neighbours.banned
    assert_clean(repo)
    assert not list(repo.refs.all())
    assert_nothing_visible(repo)


def assert_nothing_visible(repo: Repo) -> None:
    assert not list(Path(repo.path).glob("objects/*/*"))
