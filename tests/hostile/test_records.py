"""What hostile members say of themselves and of others, and what comes of it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey

from p2p.agent.meeting import Meeting
from p2p.net.device_key import encode_public_key
from p2p.net.x509 import device_id_of
from p2p.swarm.gossip import Pace
from p2p.wire import messages as m
from p2p.wire.record import (
    Address,
    Claim,
    OriginState,
    Signed,
    encode_body,
    encode_claim,
    statement,
)
from tests.agent.test_members import Site, meets

LOCALHOST = ip_address("127.0.0.1")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


def record(
    key: SigningKey, seq: int, claim: Claim, *, member: m.DeviceId | None = None
) -> m.Record:
    """A record as the member with this key would sign it, or in another's name."""
    public = encode_public_key(key.verify_key)
    name = member or device_id_of(public)
    data = encode_claim(claim)
    signature = key.sign(statement(name, 1, seq, data)).signature
    return m.Record(name, 1, seq, encode_body(Signed(data, public, signature)))


def speak(liar: Meeting, victim: Meeting, message: m.Message) -> None:
    met = liar.neighbours.get(victim.neighbours.me)
    assert met is not None
    met.session.send(message)


def seen(by: Meeting, member: m.DeviceId) -> int:
    """Which record of a member counts for somebody."""
    return by.neighbours.members.gossip.seen(member)[1]


def counts(of: Meeting) -> dict[str, int]:
    return dict(of.neighbours.members.counts)


@asynccontextmanager
async def pair(site: Site) -> AsyncIterator[tuple[Meeting, Meeting]]:
    """A victim, and somebody who has a session with it."""
    async with site.device("victim") as victim, site.device("liar", victim) as liar:
        await until(lambda: meets(victim, liar) and meets(liar, victim))
        yield victim, liar


def bent(what: str, key: SigningKey) -> m.Record:
    honest = record(key, 1, Claim())
    match what:
        case "in another's name":
            return record(key, 1, Claim(), member=m.DeviceId("ab" * 32))
        case "of another time":
            return m.Record(honest.member, 1, 2, honest.body)
        case "of another epoch":
            return m.Record(honest.member, 2, 1, honest.body)
        case "without a signature":
            body = encode_body(Signed(encode_claim(Claim())))
            return m.Record(honest.member, 1, 1, body)
        case "with a short signature":
            public = encode_public_key(key.verify_key)
            body = encode_body(Signed(encode_claim(Claim()), public, b"\0"))
            return m.Record(honest.member, 1, 1, body)
    other = Signed(encode_claim(Claim()), b"no key", bytes(64))
    return m.Record(honest.member, 1, 1, encode_body(other))


@pytest.mark.parametrize(
    "what",
    [
        "in another's name",
        "of another time",
        "of another epoch",
        "without a signature",
        "with a short signature",
        "with a key that is none",
    ],
)
async def test_who_passes_on_what_nobody_said_is_banned(site: Site, what: str) -> None:
    async with pair(site) as (victim, liar):
        forged = bent(what, SigningKey.generate())
        speak(liar, victim, forged)
        await until(lambda: liar.neighbours.me in victim.neighbours.banned)
        assert counts(victim)["forged"] == 1
        known = {member.id for member in victim.neighbours.members.all()}
        assert forged.member not in known


async def test_what_was_said_before_counts_no_more(site: Site) -> None:
    key = SigningKey.generate()
    old = record(key, 1, Claim(origin=OriginState.NO))
    new = record(key, 2, Claim(origin=OriginState.METERED))
    async with pair(site) as (victim, liar):
        speak(liar, victim, new)
        await until(lambda: seen(victim, new.member) == 2)
        before = counts(victim).get("known", 0)
        for _ in range(20):
            speak(liar, victim, old)
            await trio.testing.wait_all_tasks_blocked(0.001)
        await until(lambda: counts(victim).get("known", 0) > before)
        member = next(
            each for each in victim.neighbours.members.all() if each.id == new.member
        )
        assert member.claim.origin is OriginState.METERED
        assert not victim.neighbours.banned


async def test_a_member_that_never_stops_is_not_passed_on(site: Site) -> None:
    key = SigningKey.generate()
    async with (
        pair(site) as (victim, liar),
        site.device("witness", victim) as witness,
    ):
        await until(lambda: meets(victim, witness))
        for seq in range(1, 101):
            speak(liar, victim, record(key, seq, Claim()))
            await trio.testing.wait_all_tasks_blocked(0.001)
        await until(lambda: counts(victim).get("useless", 0) > 40)
        member = record(key, 1, Claim()).member
        await until(lambda: seen(witness, member) > 0)
        assert counts(witness)["news"] <= Pace().burst + 30


@contextmanager
def strangers(
    nursery: trio.Nursery, count: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Ports on which somebody listens who knows nothing of us, and who came."""
    came: list[int] = []
    ports: list[int] = []
    for _ in range(count):
        sock = trio.socket.socket()
        nursery.start_soon(_listen, sock, came, ports)
    yield ports, came


async def _listen(
    sock: trio.socket.SocketType, came: list[int], ports: list[int]
) -> None:
    await sock.bind(("127.0.0.1", 0))
    sock.listen()
    port = sock.getsockname()[1]
    ports.append(port)
    with sock:
        while True:
            other, _ = await sock.accept()
            came.append(port)
            other.close()


async def test_who_points_at_strangers_does_not_have_them_dialled_much(
    site: Site,
) -> None:
    key = SigningKey.generate()
    async with pair(site) as (victim, liar), trio.open_nursery() as nursery:
        with strangers(nursery, 6) as (ports, came):
            await until(lambda: len(ports) == 6)
            member = record(key, 1, Claim()).member

            def point(seq: int, *addresses: Address) -> None:
                speak(liar, victim, record(key, seq, Claim(addresses=addresses)))

            # What is on no link of ours is not dialled at all.
            point(1, Address(ip_address("192.0.2.1"), 9))
            await until(lambda: seen(victim, member) == 1)
            known = {each["device"] for each in victim.describe()["known"]}
            assert member not in known
            point(2, Address(LOCALHOST, ports[0]))
            await until(lambda: len(came) > 0)
            for seq, port in enumerate(ports[1:], 3):
                point(seq, Address(LOCALHOST, port))
                await trio.testing.wait_all_tasks_blocked(0.01)
            await until(lambda: seen(victim, member) == 7)
            assert len(came) <= 2
        nursery.cancel_scope.cancel()
