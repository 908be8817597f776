"""Links take the time they should, and sessions end as they should."""

from dataclasses import dataclass, field

import pytest

from p2p.sim.host import Host
from p2p.sim.link import GOODPUT, Loss
from p2p.sim.network import Network
from p2p.sim.site import device_id
from p2p.sim.timeline import Timeline
from tests.trees import MIB

A, B, C = (device_id(name) for name in "abc")
RATE = 1e6
LATENCY = 0.01


@dataclass
class Ear:
    """Notes when what came."""

    timeline: Timeline
    heard: list[tuple[float, object]] = field(default_factory=list)
    content: int = 0
    gone: list[str] = field(default_factory=list)

    def joined(self, peer: str) -> None:
        """Nothing is done about it."""

    def left(self, peer: str) -> None:
        self.gone.append(peer)

    def progressed(self, _peer: str, _message: object, size: int) -> None:
        self.content += size

    def received(self, _peer: str, message: object) -> None:
        self.heard.append((self.timeline.now, message))

    def sent(self, peer: str, message: object) -> None:
        """Nothing is done about it."""

    def resumed(self) -> None:
        """Nothing is done about it."""

    def when(self, message: object) -> float:
        return next(time for time, what in self.heard if what == message)


class Lan:
    """Three hosts, each in session with the others."""

    def __init__(self, loss: Loss | None = None) -> None:
        self.timeline = Timeline()
        self.network = Network(
            self.timeline, latency=LATENCY, weigh=lambda _: None, loss=loss
        )
        self.ears = {id_: Ear(self.timeline) for id_ in (A, B, C)}
        for id_, ear in self.ears.items():
            self.network.add(Host(id_, ear, RATE, RATE))
        for one, other in ((A, B), (A, C), (B, C)):
            self.network.connect(one, other)


def test_content_takes_the_time_of_its_bytes_and_their_headers() -> None:
    lan = Lan()
    lan.network.send(A, B, "unit", MIB, is_bulk=True)
    lan.timeline.run(10)
    slice_ = (64 << 10) / GOODPUT / RATE
    expected = MIB / GOODPUT / RATE + LATENCY + slice_
    assert lan.ears[B].when("unit") == pytest.approx(expected)
    assert lan.ears[B].content == lan.network.hosts[A].content == MIB
    assert lan.network.hosts[A].control == 0


def test_a_message_of_a_session_goes_before_its_content() -> None:
    lan = Lan()
    lan.network.send(A, B, "unit", MIB, is_bulk=True)
    lan.network.send(A, B, "have", 100)
    lan.timeline.run(10)
    assert lan.ears[B].when("have") < 0.2
    assert lan.network.hosts[A].control == 100 + 22 + 66


def test_sessions_take_turns_at_an_uplink() -> None:
    lan = Lan()
    for peer in (B, C):
        lan.network.send(A, peer, "unit", MIB, is_bulk=True)
    lan.timeline.run(10)
    both = 2 * MIB / GOODPUT / RATE
    for peer in (B, C):
        assert lan.ears[peer].when("unit") == pytest.approx(both, rel=0.1)


def test_two_that_send_to_one_share_its_downlink() -> None:
    lan = Lan()
    for peer in (B, C):
        lan.network.send(peer, A, peer, MIB, is_bulk=True)
    lan.timeline.run(10)
    both = 2 * MIB / GOODPUT / RATE
    assert lan.ears[A].heard[-1][0] == pytest.approx(both, rel=0.1)


def test_what_is_lost_comes_late_and_in_order() -> None:
    lan = Lan(Loss(0.5, seed=3))
    for number in range(20):
        lan.timeline.at(0.01 * number, lan.network.send, A, B, number, 100)
    lan.timeline.run(60)
    came = [message for _, message in lan.ears[B].heard]
    assert came == list(range(20))
    assert lan.ears[B].when(19) > 0.2 + 19 * 0.01


def test_a_silent_host_takes_nothing_until_it_is_resumed() -> None:
    lan = Lan()
    lan.network.send(A, B, "unit", MIB, is_bulk=True)
    lan.timeline.at(0.5, lan.network.silence, B)
    lan.timeline.at(1.5, lan.network.resume, B)
    lan.timeline.run(1.4)
    assert lan.ears[B].content < MIB / 2
    lan.timeline.run(10)
    assert lan.ears[B].when("unit") > 1.5
    assert not lan.ears[A].gone


def test_a_silent_host_is_missed_after_a_while() -> None:
    lan = Lan()
    lan.network.silence(B)
    lan.timeline.run(1.9)
    assert not lan.ears[A].gone
    lan.timeline.run(3)
    assert lan.ears[A].gone == [B]


def test_halves_that_are_healed_in_time_keep_their_sessions() -> None:
    lan = Lan()
    lan.network.cut([A], [B])
    lan.network.send(A, B, "have", 100)
    lan.network.send(A, C, "have", 100)
    lan.timeline.run(1)
    assert lan.ears[C].heard
    assert not lan.ears[B].heard
    lan.network.heal()
    lan.timeline.run(2)
    assert lan.ears[B].when("have") > 1
    assert not lan.ears[A].gone


def test_halves_that_stay_cut_lose_their_sessions_and_meet_again() -> None:
    lan = Lan()
    lan.network.cut([A], [B])
    lan.timeline.run(5)
    assert lan.ears[A].gone == [B]
    assert B not in lan.network.hosts[A].pipes
    lan.network.heal()
    lan.timeline.run(10)
    assert B in lan.network.hosts[A].pipes
