"""Which of two sessions with the same peer stays."""

from dataclasses import replace

from p2p.ostree.objects import Checksum
from p2p.wire.dial import Contender, replaces
from p2p.wire.messages import DeviceId
from tests.wire.samples import HELLO

LOW, HIGH = DeviceId(Checksum("1" * 64)), DeviceId(Checksum("2" * 64))
PEER = (bytes(16), 1)
BY_LOW = Contender(dialler=LOW, dial=1, peer=PEER)
BY_HIGH = Contender(dialler=HIGH, dial=5, peer=PEER)


def test_the_session_dialled_by_the_smaller_id_stays() -> None:
    assert replaces(BY_LOW, BY_HIGH)
    assert not replaces(BY_HIGH, BY_LOW)


def test_of_two_dials_by_the_same_end_the_later_stays() -> None:
    assert replaces(replace(BY_LOW, dial=2), BY_LOW)
    assert not replaces(BY_LOW, replace(BY_LOW, dial=2))


def test_a_restarted_peer_replaces_its_old_session() -> None:
    assert replaces(replace(BY_HIGH, peer=(bytes(16), 2)), BY_LOW)
    assert replaces(replace(BY_HIGH, peer=(b"x" * 16, 1)), BY_LOW)


def test_a_silent_session_is_replaced() -> None:
    assert replaces(BY_HIGH, replace(BY_LOW, silent=True))


def test_contenders_are_made_of_both_hellos() -> None:
    accepted = replace(HELLO, dial=0, epoch=9)
    assert Contender.of(LOW, HIGH, ours=HELLO, theirs=accepted) == Contender(
        dialler=LOW, dial=1, peer=(HELLO.instance, 9)
    )
    assert Contender.of(LOW, HIGH, ours=accepted, theirs=HELLO) == Contender(
        dialler=HIGH, dial=1, peer=(HELLO.instance, HELLO.epoch)
    )
