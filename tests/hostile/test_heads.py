"""What a neighbour offers as a head is believed only if it may be."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from p2p.agent.request import PullRequest, Wanted
from p2p.errors import (
    BindingError,
    Error,
    FutureError,
    NoSourceError,
    RevokedError,
    RollbackError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.commit import CommitOptions, commit_tree
from p2p.ostree.config import RepoMode
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.repo import Repo
from p2p.trust.keys import load_ed25519_keys
from p2p.trust.sign import SignatureKind, add_signature, parse_signatures
from p2p.trust.verify import Verifier
from p2p.wire import messages as m
from tests.agent.devices import REF, Publisher, puller, sharing
from tests.hostile.scene import Scene, assert_clean, assert_whole, until
from tests.hostile.villain import BentSession, Villain

YEAR_AHEAD = int(time.time()) + 365 * 86_400


@dataclass(frozen=True, slots=True)
class Offer:
    """A commit as somebody might offer it."""

    checksum: Checksum
    commit: bytes
    commitmeta: bytes | None

    def answer(self, request: m.RequestId) -> m.CommitData:
        return m.CommitData(request, self.checksum, self.commit, self.commitmeta)


class Offering(Villain):
    """Answers every question for a commit with these, the next one each time."""

    def __init__(self, *offers: Offer) -> None:
        super().__init__()
        self.offers = list(offers)

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.GetHead | m.GetCommit):
            offer = self.offers[0]
            self.offers = [*self.offers[1:], offer]
            session.speak(offer.answer(message.request))
            return True
        return False


def load(repo: Repo, checksum: Checksum) -> Offer:
    commit = repo.load_metadata(ObjectName(checksum, ObjectType.COMMIT))
    return Offer(checksum, commit, repo.load_commitmeta(checksum))


@pytest.fixture
def make(scene: Scene, tmp_path: Path) -> "Maker":
    return Maker(scene, tmp_path)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes offers with the publisher's key or another's."""

    scene: Scene
    directory: Path

    def offer(self, options: CommitOptions) -> Offer:
        repo = Repo.init(self.directory / "made", RepoMode.ARCHIVE)
        return load(repo, commit_tree(repo, self.scene.tree, options))

    def signed(self, branch: str = REF, timestamp: int | None = None) -> Offer:
        sign = self.scene.publisher.sign
        return self.offer(CommitOptions(branch=branch, timestamp=timestamp, sign=sign))

    def unsigned(self) -> Offer:
        return self.offer(CommitOptions(branch=REF, timestamp=YEAR_AHEAD - 1))

    def by_a_stranger(self) -> Offer:
        stranger = Publisher.create(self.directory / "stranger")
        return self.offer(CommitOptions(branch=REF, sign=stranger.sign))

    def for_another_ref(self) -> Offer:
        return self.signed(branch="other")

    def for_no_ref(self) -> Offer:
        sign = self.scene.publisher.sign
        return self.offer(CommitOptions(branch=REF, bindings=False, sign=sign))

    def of_the_future(self) -> Offer:
        return self.signed(timestamp=YEAR_AHEAD)

    def with_a_broken_signature(self) -> Offer:
        offer = self.signed()
        assert offer.commitmeta is not None
        (signature,) = parse_signatures(offer.commitmeta, SignatureKind.ED25519)
        return replace(offer, commitmeta=add_signature(None, signature[::-1]))


REFUSED: dict[str, type[Error]] = {
    "unsigned": UnsignedError,
    "by_a_stranger": SignatureError,
    "for_another_ref": BindingError,
    "for_no_ref": BindingError,
    "of_the_future": FutureError,
    "with_a_broken_signature": SignatureError,
}


@pytest.mark.parametrize("how", REFUSED)
async def test_a_head_that_may_not_be_is_refused_before_any_content(
    scene: Scene, make: Maker, how: str
) -> None:
    villain = Offering(getattr(make, how)())
    repo = scene.device()
    async with (
        scene.villains(villain) as ports,
        puller(repo, peers=ports, origin=False) as device,
    ):
        await until(lambda: len(device.meeting.neighbours) == 1)
        with pytest.raises(REFUSED[how]):
            await device.run()
        # Another publisher's device says the same in good faith.
        assert not device.meeting.neighbours.banned
    assert not villain.told(m.Want)
    assert not list(repo.refs.all())
    assert not list(Path(repo.path).glob("objects/*/*"))


@pytest.mark.parametrize("how", REFUSED)
async def test_beside_an_honest_head_it_costs_nothing(
    scene: Scene, make: Maker, how: str
) -> None:
    _, neighbours = await scene.pull_beside(Offering(getattr(make, how)()))
    assert not neighbours.banned


async def test_a_revoked_key_and_a_withdrawn_commit_are_refused(scene: Scene) -> None:
    repo = scene.device()
    remote = repo.remote("up")
    keys = load_ed25519_keys(remote)
    usual = Verifier.for_remote(remote, directories=[])
    for strict in (
        replace(usual, ed25519=replace(keys, revoked=frozenset(keys.trusted))),
        replace(usual, withdrawn=frozenset({scene.commit})),
    ):
        async with (
            sharing(scene.publisher.repo) as source,
            puller(repo, peers=(source.port,), origin=False, verifier=strict) as device,
        ):
            await until(lambda: len(device.meeting.neighbours) == 1)
            with pytest.raises(RevokedError):
                await device.run()
        assert not list(repo.refs.all())


async def test_an_older_head_replaces_nothing(scene: Scene, make: Maker) -> None:
    repo = scene.device()
    async with (
        sharing(scene.publisher.repo) as source,
        puller(repo, peers=(source.port,), origin=False) as device,
    ):
        await device.run()
    older = Offering(make.signed(timestamp=1_000_000_000))
    async with (
        scene.villains(older) as ports,
        puller(repo, peers=ports, origin=False) as device,
    ):
        await until(lambda: len(device.meeting.neighbours) == 1)
        with pytest.raises(RollbackError):
            await device.run()
    assert repo.resolve(f"up:{REF}") == scene.commit
    assert_whole(repo, scene.commit)


async def test_bytes_under_a_false_name_ban_whoever_sent_them(
    scene: Scene, make: Maker
) -> None:
    forged = replace(make.signed(), checksum=scene.commit)
    villain = Offering(forged)
    _, neighbours = await scene.pull_beside(villain)
    assert list(neighbours.banned) == [villain.device]


async def pull_by_checksum(scene: Scene, *villains: Villain) -> Repo:
    """Ask neighbours for a commit by its name: the liar first, then an honest one."""
    repo = scene.device()
    request = PullRequest(wanted=(Wanted(REF, scene.commit),))
    async with (
        scene.villains(*villains) as ports,
        sharing(scene.publisher.repo) as source,
        puller(
            repo, peers=(*ports, source.port), origin=False, request=request
        ) as device,
    ):
        await until(lambda: len(device.meeting.neighbours) > len(villains))
        await device.run(20)
    return repo


async def test_the_right_commit_without_its_signature_does_not_stop_the_pull(
    scene: Scene,
) -> None:
    true = load(scene.publisher.repo, scene.commit)
    for commitmeta in (None, b"\xff" * 100, add_signature(None, bytes(64))):
        villain = Offering(replace(true, commitmeta=commitmeta))
        repo = await pull_by_checksum(
            scene.at(scene.directory / str(commitmeta)[:3]), villain
        )
        assert repo.load_commitmeta(scene.commit) == true.commitmeta


async def test_what_a_neighbour_adds_to_the_signatures_is_not_kept(
    scene: Scene,
) -> None:
    true = load(scene.publisher.repo, scene.commit)
    padded = add_signature(true.commitmeta, b"junk" * 16)
    repo = await pull_by_checksum(scene, Offering(replace(true, commitmeta=padded)))
    assert repo.load_commitmeta(scene.commit) == true.commitmeta


class Deaf(Villain):
    """Reads every question and answers none."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        return isinstance(message, m.Request)


async def test_who_does_not_answer_for_a_head_is_not_waited_for(scene: Scene) -> None:
    _, neighbours = await scene.pull_beside(*(Deaf() for _ in range(5)))
    assert not neighbours.banned


async def test_where_nobody_has_the_ref_the_error_says_so(scene: Scene) -> None:
    repo = scene.device()
    async with (
        scene.villains(Deaf()) as ports,
        puller(repo, peers=ports, origin=False) as device,
    ):
        await until(lambda: len(device.meeting.neighbours) == 1)
        with pytest.raises(NoSourceError, match=REF):
            await device.run()
    assert_clean(repo)
