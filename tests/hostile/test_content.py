"""False, missing or endless content: blamed or outwaited, never kept or passed on."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import nacl.signing
import pytest
import trio

from p2p.agent.neighbours import Neighbours
from p2p.agent.request import PullRequest, Wanted
from p2p.ostree.objects import ObjectType
from p2p.swarm.action import Blame
from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead
from p2p.wire.connection import Connection
from p2p.wire.frame import slice_header
from p2p.wire.hashes import statement
from p2p.wire.limits import UNIT_BYTES
from tests.agent.devices import REF, puller, sharing
from tests.hostile.scene import Scene, assert_whole, until
from tests.hostile.villain import BentSession, Stubborn, Villain
from tests.trees import MIB


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


class FlipsObjects(Villain):
    """Changes a bit of every object."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Batch):
            bent = (o if isinstance(o, m.Miss) else flipped(o) for o in message.objects)
            message = replace(message, objects=tuple(bent))
        yield message


class FlipsFiles(Villain):
    """Gives true directories and changes a bit of every file."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Batch):
            (asked,) = (w for w in self.told(m.Want) if w.request == message.request)
            pairs = zip(asked.names, message.objects, strict=True)
            message = replace(
                message,
                objects=tuple(
                    o
                    if isinstance(o, m.Miss) or name.type is not ObjectType.FILE
                    else flipped(o)
                    for name, o in pairs
                ),
            )
        yield message


class Shortens(Villain):
    """Leaves the last byte of every object away."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Batch):
            bent = (o if isinstance(o, m.Miss) else o[:-1] for o in message.objects)
            message = replace(message, objects=tuple(bent))
        yield message


class Swaps(Villain):
    """Gives every object under the name of the next."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Batch):
            objects = message.objects
            message = replace(message, objects=(*objects[1:], objects[0]))
        yield message


class FlipsUnits(Villain):
    """Lists the hashes of a large object and gives other units."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Unit):
            message = replace(message, data=flipped(message.data))
        yield message


def assert_blamed(neighbours: Neighbours, villain: Villain, *blames: Blame) -> None:
    assert list(neighbours.banned) == [villain.device]
    assert neighbours.banned[villain.device] in {blame.value for blame in blames}


@pytest.mark.parametrize("kind", [FlipsObjects, FlipsFiles, Shortens, Swaps])
async def test_wrong_objects_ban_their_giver(scene: Scene, kind: type[Villain]) -> None:
    villain = kind()
    neighbours, bye = await scene.pull_past(villain)
    assert_blamed(neighbours, villain, Blame.WRONG_BYTES)
    assert bye == m.Bye(m.Farewell.MISBEHAVED, Blame.WRONG_BYTES.value)


async def test_wrong_units_of_ones_own_list_ban_their_giver(scene: Scene) -> None:
    villain = FlipsUnits()
    neighbours, _ = await scene.pull_past(villain)
    assert_blamed(neighbours, villain, Blame.WRONG_BYTES)


class MakesUp(Villain):
    """Gives a large object that it made up, with hashes that agree."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units
        self.key = nacl.signing.SigningKey(bytes(32))
        self.unit = b"x" * UNIT_BYTES

    def greet(self, hello: m.Hello) -> m.Hello:
        return replace(hello, signing_key=self.key.verify_key.encode())

    def page(self, asked: m.GetHashes) -> m.Hashes:
        size = self.units * UNIT_BYTES
        count = min(asked.count, self.units - asked.first)
        hashes = hashlib.sha256(self.unit).digest() * count
        signed = statement(asked.name, size, asked.first, hashes)
        return m.Hashes(
            request=asked.request,
            size=size,
            first=asked.first,
            hashes=hashes,
            signer=self.key.verify_key.encode(),
            signature=self.key.sign(signed).signature,
        )

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.GetHashes):
            session.speak(self.page(message))
        elif isinstance(message, m.GetUnit):
            session.speak(m.Unit(message.request, self.unit))
        else:
            return False
        return True


async def test_hashes_of_something_else_ban_their_author(scene: Scene) -> None:
    villain = MakesUp(units=13)
    neighbours, _ = await scene.pull_past(villain)
    assert_blamed(neighbours, villain, Blame.FALSE_HASHES)


async def test_an_endless_object_is_not_fetched_to_its_end(scene: Scene) -> None:
    """An honest neighbour contradicts it; 16 GiB would take minutes."""
    villain = MakesUp(units=65_536)
    neighbours = await scene.pull_in_turn(
        villain, Villain(), lambda _: bool(villain.told(m.GetUnit))
    )
    assert set(neighbours.banned) <= {villain.device}
    assert len(villain.told(m.GetUnit)) * UNIT_BYTES < 128 * MIB


class Waits(Villain):
    """Is honest, and leaves some requests unanswered until it is told to go on."""

    held: tuple[type[m.Message], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.waits = True

    def hear(self, session: BentSession, message: m.Message) -> bool:
        return self.waits and isinstance(message, self.held)

    def go_on(self) -> None:
        self.waits = False
        (session,) = self.sessions
        for request in self.heard:
            is_held = isinstance(request, self.held)
            if isinstance(request, m.Request) and is_held:
                session.server.handle(request)


class WaitsWithUnits(Waits):
    """Lets a liar speak between its hashes and its first unit."""

    held = (m.GetUnit,)

    def __init__(self, liar: "LateHashes") -> None:
        super().__init__()
        self.liar = liar

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.GetUnit) and len(self.told(m.GetUnit)) == 1:
            self.liar.lie()
        return super().hear(session, message)


class LateHashes(MakesUp):
    """Says nothing of a large object before true hashes are in force."""

    def __init__(self) -> None:
        super().__init__(units=13)
        self.honest = WaitsWithUnits(self)

    def connection(self) -> Connection:
        return Stubborn()

    def lie(self) -> None:
        (session,) = self.sessions
        for asked in self.told(m.GetHashes):
            session.shout(self.page(asked))
        session.speak(m.Ping(1))

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Pong):
            self.honest.go_on()
        return isinstance(message, m.GetHashes)


async def test_late_false_hashes_do_not_spoil_the_true_ones(scene: Scene) -> None:
    """They come after the request was withdrawn, which the protocol allows."""
    liar = LateHashes()
    neighbours = await scene.pull_in_turn(
        liar, liar.honest, lambda _: bool(liar.told(m.GetHashes))
    )
    assert liar.told(m.Cancel)
    assert liar.honest.device not in neighbours.banned


class ClaimsAKey(FlipsObjects):
    """Says that another neighbour's signing key is its own, and gets banned."""

    def __init__(self, honest: "WaitsForTheBan") -> None:
        super().__init__()
        self.honest = honest

    def greet(self, hello: m.Hello) -> m.Hello:
        return replace(hello, signing_key=self.honest.signing_key)

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Bye):
            self.honest.go_on()
        return False


class WaitsForTheBan(Waits):
    """Answers nothing about content before it is told to."""

    held = (m.Want, m.GetHashes, m.Ask)
    signing_key = b""

    def greet(self, hello: m.Hello) -> m.Hello:
        self.signing_key = hello.signing_key
        return hello


async def test_a_stolen_key_does_not_discredit_its_owners_hashes(scene: Scene) -> None:
    honest = WaitsForTheBan()
    thief = ClaimsAKey(honest)
    neighbours = await scene.pull_in_turn(
        honest, thief, lambda _: bool(honest.told(m.Want))
    )
    assert list(neighbours.banned) == [thief.device]


# -- saying what is not so ---------------------------------------------------------


class Misses(Villain):
    """Claims to have everything and gives nothing, for one reason."""

    def __init__(self, miss: m.Miss) -> None:
        super().__init__()
        self.miss = miss

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Batch):
            message = replace(message, objects=(self.miss,) * len(message.objects))
        yield message


@pytest.mark.parametrize("miss", list(m.Miss))
async def test_who_claims_all_and_gives_nothing_is_done_without(
    scene: Scene, miss: m.Miss
) -> None:
    villain = Misses(miss)
    _, neighbours = await scene.pull_beside(villain)
    assert set(neighbours.banned) <= {villain.device}


class Refuses(Villain):
    """Answers whatever is about content in one way."""

    def __init__(self, answer: m.PlainAnswer) -> None:
        super().__init__()
        self.answer = answer

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.GetHead) or not isinstance(message, m.Request):
            return False
        session.speak(replace(self.answer, request=message.request))
        return True


REFUSALS = [
    m.NotHave(m.RequestId(1)),
    m.Rejected(m.RequestId(1), m.Refusal.OTHER, "no"),
    m.Busy(m.RequestId(1), 3_600_000),
]


@pytest.mark.parametrize("answer", REFUSALS, ids=lambda answer: type(answer).__name__)
async def test_who_refuses_everything_is_done_without(
    scene: Scene, answer: m.PlainAnswer
) -> None:
    _, neighbours = await scene.pull_beside(Refuses(answer))
    assert not neighbours.banned


class Exaggerates(Villain):
    """Says that every object has so many bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Sizes):
            sizes = (None if s is None else self.size for s in message.sizes)
            message = replace(message, sizes=tuple(sizes))
        yield message


@pytest.mark.parametrize("size", [0, 1, 500_000, 1 << 40, (1 << 63) - 1])
async def test_false_sizes_do_not_stop_anything(scene: Scene, size: int) -> None:
    _, neighbours = await scene.pull_beside(Exaggerates(size))
    assert not neighbours.banned


# -- saying nothing ----------------------------------------------------------------


class BlackHole(Villain):
    """Reads and answers nothing about content."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        return isinstance(message, m.Request) and not isinstance(message, m.GetHead)


class StopsInTheMiddle(Villain):
    """Begins a batch and never goes on."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Want):
            session.shout(BatchHead(message.request, (900,) * len(message.names)))
            session.write(slice_header(message.request, 500) + b"x" * 500)
            return True
        return False


class LivesAndGivesNothing(Villain):
    """Says for each request that it is at work, and no more."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Want | m.GetUnit | m.GetHashes):
            session.speak(m.Status(message.request, 1_000_000, 1))
            return True
        return False


@pytest.mark.parametrize("kind", [BlackHole, StopsInTheMiddle, LivesAndGivesNothing])
async def test_who_does_not_deliver_is_not_waited_for(
    scene: Scene, kind: type[Villain]
) -> None:
    _, neighbours = await scene.pull_beside(kind(), kind(), kind())
    assert not neighbours.banned


# -- nothing unverified goes on ------------------------------------------------------


@pytest.mark.parametrize("kind", [FlipsFiles, FlipsUnits])
async def test_a_third_device_gets_nothing_that_was_not_verified(
    scene: Scene, kind: type[Villain]
) -> None:
    """It draws on the device that draws on the villain, at the same time."""
    villain = kind()
    middle, third = scene.device("middle"), scene.device("third")
    async with (
        scene.villains(villain) as ports,
        sharing(scene.publisher.repo) as source,
        puller(middle, peers=(*ports, source.port), origin=False) as first,
    ):
        await until(lambda: len(first.meeting.neighbours) == 2)
        request = PullRequest(wanted=(Wanted(REF, scene.commit),))
        async with (
            puller(
                third, peers=(first.meeting.port,), origin=False, request=request
            ) as last,
            trio.open_nursery() as nursery,
        ):
            await until(lambda: len(last.meeting.neighbours) == 1)
            nursery.start_soon(first.run)
            await until(lambda: first.meeting.sharing.commit(scene.commit) is not None)
            await last.run()
            await until(lambda: first.task.status.phase == "done")
            assert not last.meeting.neighbours.banned
            assert last.task.status.peers.bytes > 0
    assert_whole(middle, scene.commit)
    assert_whole(third, scene.commit)
