"""Neighbours that say they have what they do not give; others do, and the pull ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgpack
import pytest
import trio

from p2p.net.tls import Contact
from p2p.net.transport import Transport
from p2p.ostree.objects import ObjectType
from p2p.wire import layout
from p2p.wire import messages as m
from p2p.wire.bitmap import pack
from p2p.wire.bulk import MapHead
from p2p.wire.frame import control_frame, slice_header
from tests.hostile.scene import Scene
from tests.hostile.villain import BentSession, Villain

CONTENT = (m.Want, m.GetUnit, m.GetHashes)


class Partial(Villain):
    """Says that it has only a part, so that it is asked for a map of it."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Holdings):
            held = tuple(each._replace(held=m.Held.PARTIAL) for each in message.commits)
            message = replace(message, commits=held)
        yield message


class MapsAll(Partial):
    """Gives directories; has all files by its map, and none when it is asked."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Watch):
            bits = pack(range(message.objects), message.objects)
            session.speak(m.Map(message.request, bits))
            return True
        if not isinstance(message, CONTENT):
            return False
        if isinstance(message, m.Want):
            kinds = {name.type for name in message.names}
            if ObjectType.FILE not in kinds:
                return False
        session.speak(m.NotHave(message.request))
        return True


class ClaimsAll(Villain):
    """Says that everything is here, and then that each thing asked for is not."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Batch | m.Unit | m.Hashes):
            yield m.NotHave(message.request)
        else:
            yield message


class ClaimsAndIsSilent(Villain):
    """Says that everything is here, and answers nothing."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        return isinstance(message, CONTENT)


class ClaimsAndIsBusy(Villain):
    """Says that everything is here, and each time to come back in a moment."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, CONTENT):
            session.speak(m.Busy(message.request, 1))
        return isinstance(message, CONTENT)


class ClaimsAndPromises(Villain):
    """Says that everything is here and queued, and gives nothing."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, CONTENT):
            session.speak(m.Status(message.request, 1 << 20, 1 << 20))
        return isinstance(message, CONTENT)


class Trickle(Transport):
    """A stream that sends one KiB a second."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for start in range(0, len(data), 1024):
            await self._inner.send_all(data[start : start + 1024])
            await trio.sleep(1)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def abort(self) -> None:
        self._inner.abort()


class Dribbles(Villain):
    """Gives what is right, at one KiB a second."""

    def stream(self, contact: Contact) -> Transport:
        return Trickle(contact.stream)


KINDS = (
    ClaimsAll,
    ClaimsAndIsSilent,
    ClaimsAndIsBusy,
    ClaimsAndPromises,
    Dribbles,
)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_claims_everything_and_gives_nothing_holds_nobody_up(
    scene: Scene, kind: type[Villain]
) -> None:
    """Nobody is banned: it may be its disk or its link."""
    villain = kind()
    neighbours = await scene.pull_in_turn(
        villain, Villain(), lambda _: bool(villain.told(m.Want))
    )
    assert not neighbours.banned


async def test_a_map_that_promises_everything_holds_nobody_up(scene: Scene) -> None:
    villain = MapsAll()
    neighbours = await scene.pull_in_turn(
        villain, Villain(), lambda _: bool(villain.told(m.Watch))
    )
    assert villain.told(m.Want)
    assert not neighbours.banned


class LongMap(Partial):
    """Its map goes on behind the last object."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if not isinstance(message, m.Watch):
            return False
        size = message.objects // 8 + 2
        session.shout(MapHead(message.request, size))
        session.write(slice_header(message.request, size) + b"\xff" * size)
        return True


class HugeMap(Partial):
    """Its map would be larger than any commit's."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Watch):
            body = msgpack.unpackb(layout.encode(MapHead(message.request, 1)))
            body[-1] = 1 << 40
            session.write(control_frame(msgpack.packb(body)))
        return isinstance(message, m.Watch)


class HasTooMuch(Partial):
    """What came since its map lies behind the last object."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        yield from super().say(session, message)
        if isinstance(message, m.Map):
            (watch,) = (w for w in self.told(m.Watch) if w.request == message.request)
            session.shout(m.Have(message.request, (watch.objects,)))


class HasTooManyUnits(Partial):
    """It has units of an object that is none."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        yield from super().say(session, message)
        if isinstance(message, m.Map):
            (watch,) = (w for w in self.told(m.Watch) if w.request == message.request)
            units = m.UnitMap(watch.objects, b"\xff"), m.UnitMap(0, b"\xff")
            session.shout(m.Units(message.request, units))


@pytest.mark.parametrize("kind", [LongMap, HugeMap, HasTooMuch, HasTooManyUnits])
async def test_a_map_of_more_than_there_is_bans_its_sender(
    scene: Scene, kind: type[Villain]
) -> None:
    villain = kind()
    neighbours, bye = await scene.pull_past(villain)
    assert list(neighbours.banned) == [villain.device]
    assert bye.reason is m.Farewell.PROTOCOL
