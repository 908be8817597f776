"""A neighbour that breaks the protocol is thrown out and banned; the pull goes on."""

from collections.abc import Iterable
from dataclasses import replace

import msgpack
import pytest

from p2p.net.target import Target
from p2p.wire import layout
from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead, Head, UnitHead
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.limits import MAX_COMMIT_BYTES, UNIT_BYTES
from tests.agent.devices import sharing
from tests.hostile.scene import Scene
from tests.hostile.villain import BentSession, Villain


async def assert_banned(scene: Scene, villain: Villain, reason: str = "") -> None:
    """Both sides know why the session ended, and nobody else is blamed."""
    neighbours, bye = await scene.pull_past(villain)
    assert list(neighbours.banned) == [villain.device]
    assert neighbours.endings == {"RemoteProtocolError": 1}
    assert reason in neighbours.banned[villain.device]
    assert bye.reason is m.Farewell.PROTOCOL
    assert bye.text
    assert reason in bye.text


class Shouter(Villain):
    """Sends frames of its own when it is asked for objects."""

    def __init__(self, *frames: bytes) -> None:
        super().__init__()
        self.frames = frames

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Want):
            for frame in self.frames:
                session.write(frame)
        return False


EMOJI = "\N{PILE OF POO}"
FRAMES = {
    "a frame of an unknown kind": (b"\x02\x00\x00\x01x", "kind 2"),
    "an oversized control frame": (b"\x00\x01\x00\x01", "65537 bytes"),
    "an oversized slice": (b"\x01\x01\x00\x01\0\0\0\x01", "65537 bytes"),
    "an empty frame": (bytes(4), "with 0 bytes"),
    "what is no MessagePack": (control_frame(b"\xc1"), ""),
    "a deeply nested array": (control_frame(b"\x91" * 60_000), ""),
    "a huge array": (control_frame(b"\xdd\xff\xff\xff\xff"), ""),
    "an unknown message": (control_frame(b"\x91\x3f"), ""),
    "a second HELLO": (
        control_frame(
            layout.encode(
                m.Hello(software="", site="", instance=bytes(16), epoch=1, dial=0)
            )
        ),
        "",
    ),
    "an answer to what was not asked": (
        control_frame(layout.encode(m.NotHave(m.RequestId(99_999)))),
        "not open",
    ),
    "bulk that was not asked for": (slice_header(99_999, 1) + b"x", "not open"),
    # Quoted in the farewell, which holds 200 bytes.
    "a number made of emoji": (
        control_frame(msgpack.packb([2, EMOJI * 40])),
        "no integer",
    ),
    "control characters among emoji": (
        control_frame(msgpack.packb([1, 0, "\x1b" + EMOJI * 40])),
        "control characters",
    ),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_broken_frame_bans_its_sender(scene: Scene, what: str) -> None:
    frame, reason = FRAMES[what]
    await assert_banned(scene, Shouter(frame), reason)


class LyingHead(Villain):
    """Announces an answer that does not fit what it was asked."""

    def head(self, asked: m.Request) -> Head | None:
        """Return what to say instead of the answer."""
        raise NotImplementedError

    def hear(self, session: BentSession, message: m.Message) -> bool:
        head = self.head(message) if isinstance(message, m.Request) else None
        if head is not None:
            session.shout(head)
        return head is not None


class MoreThanAsked(LyingHead):
    """A batch of so much that it passes what was asked for."""

    def head(self, asked: m.Request) -> Head | None:
        if isinstance(asked, m.Want) and len(asked.names) > 1:
            return BatchHead(asked.request, (asked.max_bytes,) * len(asked.names))
        return None


class FewerThanAsked(LyingHead):
    """A batch for none of the objects but one."""

    def head(self, asked: m.Request) -> Head | None:
        if isinstance(asked, m.Want):
            return BatchHead(asked.request, (1,) * (len(asked.names) - 1))
        return None


class AnotherKind(LyingHead):
    """A unit for a batch."""

    def head(self, asked: m.Request) -> Head | None:
        if isinstance(asked, m.Want):
            return UnitHead(asked.request, UNIT_BYTES)
        return None


@pytest.mark.parametrize("kind", [MoreThanAsked, FewerThanAsked, AnotherKind])
async def test_an_answer_of_the_wrong_shape_bans_its_sender(
    scene: Scene, kind: type[LyingHead]
) -> None:
    await assert_banned(scene, kind())


class AnswersTwice(Villain):
    """Says of what it has just given that it has it not."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        yield message
        if isinstance(message, m.Batch):
            session.shout(m.NotHave(message.request))


async def test_a_second_answer_bans_its_sender(scene: Scene) -> None:
    await assert_banned(scene, AnswersTwice())


class HugeCommit(Villain):
    """Offers a head one byte larger than any commit may be."""

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.GetHead):
            head = [0x20, message.request, bytes(32), MAX_COMMIT_BYTES + 1, -1]
            session.write(control_frame(msgpack.packb(head)))
            return True
        return False


async def test_a_commit_past_the_limit_is_not_even_received(scene: Scene) -> None:
    await assert_banned(scene, HugeCommit(), str(MAX_COMMIT_BYTES))


class NoHello(Villain):
    """Speaks before it has introduced itself."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Hello):
            session.shout(m.Ping(1))
        yield message


class SaysItDialled(Villain):
    """Both sides say that they dialled."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Hello):
            session.shout(replace(message, dial=7))
            return
        yield message


class LongName(Villain):
    """Its HELLO has a field past its bound."""

    def say(self, session: BentSession, message: m.Message) -> Iterable[m.Message]:
        if isinstance(message, m.Hello):
            body = msgpack.unpackb(layout.encode(message))
            body[3] = "x" * 65
            session.write(control_frame(msgpack.packb(body)))
            return
        yield message


@pytest.mark.parametrize("kind", [NoHello, SaysItDialled, LongName])
async def test_a_bad_hello_is_no_neighbour(scene: Scene, kind: type[Villain]) -> None:
    async with scene.villains(kind()) as ports, sharing(scene.device()) as meeting:
        targets = [Target("127.0.0.1", port) for port in ports]
        assert not (await meeting.neighbours.dial(targets)).was_up
        assert len(meeting.neighbours.banned) == 1
        assert not len(meeting.neighbours)


FLOODS = {
    "HOLDINGS": control_frame(layout.encode(m.Holdings())),
    "RECORD": control_frame(
        layout.encode(m.Record(m.DeviceId("a" * 64), 1, 2, b"\xc0"))
    ),
}


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_of_what_nobody_asked_for_bans_its_sender(
    scene: Scene, what: str
) -> None:
    villain = Shouter(*[FLOODS[what]] * 2000)
    neighbours, _ = await scene.pull_past(villain)
    assert list(neighbours.banned) == [villain.device]
    (ended,) = (
        each
        for each in neighbours.describe()["ended"]
        if each["device"] == villain.device
    )
    assert what in ended["reason"]


# -- what is legal and false -------------------------------------------------------


class Recorder(Villain):
    """Tells what no member would tell, in its own name or another's."""

    def __init__(self, body: bytes, member: m.DeviceId | None = None) -> None:
        super().__init__()
        self.body = body
        self.member = member

    def hear(self, session: BentSession, message: m.Message) -> bool:
        if isinstance(message, m.Request):
            member = self.member or self.device
            session.speak(m.Record(member, 1, 2, self.body))
        return False


RECORDS = {
    "what is no MessagePack": b"\xc1",
    "no array": msgpack.packb("ok"),
    "an unknown state": msgpack.packb(["fine", []]),
    "a state that is no text": msgpack.packb([[], []]),
    "fetches that are a map": msgpack.packb(["ok", {1: 2}]),
    "a checksum that asks for a terabyte": msgpack.packb(["ok", [[1, 1 << 40, 1]]]),
    "endless bytes": msgpack.packb(["ok", [[1, bytes(32), float("inf")]]]),
    "less than nothing": msgpack.packb(["ok", [[1, bytes(32), -1]]]),
    "an object of no kind": msgpack.packb(["ok", [[99, bytes(32), 1]]]),
    "a short checksum": msgpack.packb(["ok", [[1, bytes(31), 1]]]),
    "too many": msgpack.packb(["ok", [[1, bytes(32), 1]] * 9]),
}


@pytest.mark.parametrize("what", RECORDS)
async def test_a_record_of_nonsense_is_ignored(scene: Scene, what: str) -> None:
    """Its format may be another version's, so nobody is blamed."""
    villain = Recorder(RECORDS[what])
    _, neighbours = await scene.pull_beside(villain)
    assert not neighbours.banned
    assert not neighbours.endings


async def test_a_record_in_anothers_name_is_ignored(scene: Scene) -> None:
    """It would say that the origin is nobody's to use."""
    victim = Villain()
    liar = Recorder(msgpack.packb(["no", []]), victim.device)
    _, neighbours = await scene.pull_beside(victim, liar)
    assert not neighbours.banned
