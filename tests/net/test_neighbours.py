import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2p.net.advert import AdvertKey, InstanceId, encode
from p2p.net.interfaces import Interface
from p2p.net.neighbours import (
    Heard,
    Ignored,
    Lost,
    Neighbours,
    PeerAppeared,
    PeerChanged,
    PeerEvent,
    PeerGone,
    label,
)
from p2p.net.target import Target

KEY = AdvertKey.open()
UP_AND_RUNNING = 0x1043


def instance(number: int) -> InstanceId:
    return InstanceId(number.to_bytes(16))


OWN = instance(999_999)


def link(index: int, *networks: str) -> Interface:
    return Interface(
        name=f"eth{index}",
        index=index,
        flags=UP_AND_RUNNING,
        hardware=1,
        networks=tuple(ipaddress.ip_interface(text) for text in networks),
    )


ETH1 = link(1, "192.0.2.1/24", "fe80::1/64")
ETH2 = link(2, "198.51.100.1/24", "fe80::1/64", "fd00::1/64")


def heard(
    who: InstanceId, *addresses: str, on: int = 1, port: int = 28727, epoch: int = 0
) -> Heard:
    return Heard(
        link=on,
        label=label(who),
        port=port,
        addresses=addresses or ("192.0.2.7",),
        txt=encode(KEY.make(who, epoch=epoch)),
    )


def lost(who: InstanceId, on: int = 1) -> Lost:
    return Lost(link=on, label=label(who))


def neighbours(**options: Any) -> Neighbours:
    made = Neighbours(OWN, **options)
    made.set_links([ETH1, ETH2])
    return made


def events(of: Neighbours) -> list[PeerEvent]:
    return list(iter(of.next_event, None))


def shown(of: Neighbours) -> list[tuple[str, int]]:
    """Events in short: the kind's first letter and the instance's number."""
    return [(type(e).__name__[4], int.from_bytes(_instance(e))) for e in events(of)]


def _instance(event: PeerEvent) -> InstanceId:
    if isinstance(event, PeerGone):
        return event.instance
    return event.neighbour.instance


def test_a_neighbour_comes_changes_and_goes() -> None:
    told = neighbours()
    told.hear(heard(instance(1)))
    (came,) = events(told)
    assert isinstance(came, PeerAppeared)
    assert came.neighbour.instance == instance(1)
    assert came.neighbour.targets == (Target("192.0.2.7", 28727),)
    told.hear(heard(instance(1), epoch=5))
    (changed,) = events(told)
    assert isinstance(changed, PeerChanged)
    assert changed.neighbour.advert.epoch == 5
    told.hear(lost(instance(1)))
    assert events(told) == [PeerGone(instance(1))]
    assert repr(told) == "<Neighbours 0 on 2 links>"


def test_what_says_nothing_new_is_no_event() -> None:
    told = neighbours()
    told.hear(heard(instance(1)))
    events(told)
    told.hear(heard(instance(1)))
    told.hear(lost(instance(2)))
    told.hear(Lost(link=1, label="printer"))
    assert events(told) == []


def test_a_slow_reader_gets_one_event_a_neighbour() -> None:
    told = neighbours()
    for epoch in range(5):
        told.hear(heard(instance(1), epoch=epoch))
        told.hear(heard(instance(2), "192.0.2.8", epoch=epoch))
    told.hear(heard(instance(3), "192.0.2.9"))
    told.hear(lost(instance(3)))
    assert shown(told) == [("A", 1), ("A", 2)]
    told.hear(lost(instance(1)))
    told.hear(heard(instance(1)))
    assert shown(told) == [("C", 1)]


def test_news_wake_whoever_waits() -> None:
    told, woken = neighbours(), []
    told.on_news = lambda: woken.append(True)
    told.hear(heard(instance(1)))
    told.set_links([])
    assert len(woken) == 2


@pytest.mark.parametrize(
    "addresses, targets",
    [
        (("192.0.2.7", "198.51.100.7"), ["192.0.2.7"]),
        (("fe80::7",), ["fe80::7%eth1"]),
        (("fe80::7", "192.0.2.7"), ["192.0.2.7", "fe80::7%eth1"]),
        (("192.0.2.9", "192.0.2.9", "nonsense"), ["192.0.2.9"]),
        (
            tuple(f"192.0.2.{n}" for n in range(10, 30)),
            ["192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13"],
        ),
    ],
)
def test_only_addresses_on_the_link_are_dialled(
    addresses: tuple[str, ...], targets: list[str]
) -> None:
    told = neighbours()
    told.hear(heard(instance(1), *addresses))
    (came,) = events(told)
    assert isinstance(came, PeerAppeared)
    assert [target.host for target in came.neighbour.targets] == targets


@pytest.mark.parametrize(
    "address",
    [
        "203.0.113.7",
        "198.51.100.7",
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104  an answer, not a bind
        "192.0.2.0",
        "192.0.2.255",
        "224.0.0.251",
        "fd00::7",
        "ff02::1",
        "::1",
        "::",
        "2001:db8::7",
        "nonsense",
    ],
)
def test_answers_that_point_off_the_link_are_ignored(address: str) -> None:
    told = neighbours()
    told.hear(heard(instance(1), address))
    assert events(told) == []
    assert told.ignored == {Ignored.OFF_LINK: 1}
    assert told.reasons[0] == (
        f"'{label(instance(1))}': no address of it is on the link: {address}"
    )


def test_what_is_our_own_is_ignored() -> None:
    told = neighbours()
    told.hear(heard(OWN))
    assert events(told) == []
    assert told.ignored == {Ignored.OWN: 1}


def test_what_was_heard_elsewhere_is_ignored() -> None:
    told = neighbours()
    told.hear(heard(instance(1), on=3))
    assert told.ignored == {Ignored.NOT_CHOSEN: 1}


@pytest.mark.parametrize(
    "name, txt, port",
    [
        ("printer", None, 1),
        ("p2p-zz", None, 1),
        ("p2p-" + "0" * 31, None, 1),
        ("p2p-" + " 0" * 16, None, 1),
        (label(instance(2)), None, 1),
        (label(instance(1)), b"", 1),
        (label(instance(1)), b"\x03v=1", 1),
        (label(instance(1)), b"\xff", 1),
        (label(instance(1)), None, 0),
        (label(instance(1)), None, 65536),
    ],
)
def test_what_is_malformed_is_ignored(name: str, txt: bytes | None, port: int) -> None:
    told = neighbours()
    good = heard(instance(1))
    told.hear(
        Heard(
            link=1,
            label=name,
            port=port,
            addresses=good.addresses,
            txt=good.txt if txt is None else txt,
        )
    )
    assert events(told) == []
    assert told.ignored == {Ignored.MALFORMED: 1}


def test_capitals_in_a_name_make_no_difference() -> None:
    told = neighbours()
    who = InstanceId(bytes(range(0xA0, 0xB0)))
    said = heard(who)
    told.hear(
        Heard(
            link=1,
            label=said.label.upper(),
            port=1,
            addresses=said.addresses,
            txt=said.txt,
        )
    )
    assert [e.instance for e in told] == [who]


def test_a_neighbour_on_two_links_is_one() -> None:
    told = neighbours()
    told.hear(heard(instance(1), "198.51.100.7", "fe80::7", on=2))
    told.hear(heard(instance(1), "192.0.2.7", on=1))
    (came,) = events(told)
    assert isinstance(came, PeerAppeared)
    hosts = [target.host for target in came.neighbour.targets]
    assert hosts == ["192.0.2.7", "198.51.100.7", "fe80::7%eth2"]
    assert told.links_of(instance(1)) == (2, 1)
    told.hear(lost(instance(1), on=2))
    (changed,) = events(told)
    assert isinstance(changed, PeerChanged)
    assert changed.neighbour.targets == (Target("192.0.2.7", 28727),)
    told.hear(lost(instance(1), on=2))
    assert events(told) == []
    told.hear(lost(instance(1)))
    assert shown(told) == [("G", 1)]
    assert told.links_of(instance(1)) == ()


def test_an_interface_that_goes_takes_its_neighbours_along() -> None:
    told = neighbours()
    told.hear(heard(instance(1)))
    told.hear(heard(instance(2), "198.51.100.7", on=2))
    told.hear(heard(instance(3), "198.51.100.8", on=2))
    told.hear(heard(instance(3), "192.0.2.8"))
    events(told)
    told.set_links([ETH1])
    assert shown(told) == [("G", 2), ("C", 3)]


def test_an_agent_that_restarted_without_goodbye_replaces_itself() -> None:
    told = neighbours()
    told.hear(heard(instance(1)))
    told.confirm(instance(1))
    events(told)
    told.hear(heard(instance(2)))
    assert shown(told) == [("G", 1), ("A", 2)]


def test_several_agents_on_one_machine_are_several() -> None:
    told = neighbours()
    for n in range(3):
        told.hear(heard(instance(n), port=1000 + n))
    assert shown(told) == [("A", 0), ("A", 1), ("A", 2)]


def test_a_flood_pushes_out_nobody_who_proved_real() -> None:
    told = neighbours(most=3, most_each=99)
    told.hear(heard(instance(1)))
    told.confirm(instance(1))
    told.confirm(instance(77))
    for n in range(100, 300):
        told.hear(heard(instance(n), f"192.0.2.{n % 200 + 10}", port=n))
    assert len(list(told)) == 3
    assert shown(told) == [("A", 1), ("A", 298), ("A", 299)]


def test_one_address_cannot_push_out_others() -> None:
    told = neighbours(most=100, most_each=2)
    told.hear(heard(instance(1), "192.0.2.8"))
    for n in range(100, 300):
        told.hear(heard(instance(n), port=n))
    assert shown(told) == [("A", 1), ("A", 298), ("A", 299)]


def test_where_all_are_proved_nobody_new_is_taken() -> None:
    told = neighbours(most=1)
    told.hear(heard(instance(1)))
    told.confirm(instance(1))
    told.hear(heard(instance(2), "192.0.2.8"))
    assert shown(told) == [("A", 1)]
    assert told.ignored == {Ignored.FULL: 1}
    told = neighbours(most_each=1)
    told.hear(heard(instance(1), port=1))
    told.confirm(instance(1))
    told.hear(heard(instance(2), port=2))
    assert told.ignored == {Ignored.FULL: 1}


def test_who_is_pushed_out_is_gone_and_may_come_back() -> None:
    told = neighbours(most=1)
    told.hear(heard(instance(1)))
    events(told)
    told.hear(heard(instance(2), "192.0.2.8"))
    assert shown(told) == [("G", 1), ("A", 2)]
    told.hear(heard(instance(1)))
    assert shown(told) == [("G", 2), ("A", 1)]


def test_reasons_do_not_grow_for_ever() -> None:
    told = neighbours()
    for _ in range(500):
        told.hear(heard(instance(1), "203.0.113.7"))
    assert len(told.reasons) < 100
    assert told.ignored[Ignored.OFF_LINK] == 500


class Anybody(RuleBasedStateMachine):
    """Whatever is said, the events tell the same story as the state."""

    def __init__(self) -> None:
        super().__init__()
        self.told = neighbours(most=4, most_each=2)
        self.seen: dict[InstanceId, Any] = {}

    @rule(
        who=st.integers(0, 6),
        on=st.integers(1, 3),
        host=st.sampled_from(["192.0.2.7", "192.0.2.8", "198.51.100.7", "fe80::7"]),
        port=st.integers(0, 2),
        epoch=st.integers(0, 1),
    )
    def hear(self, who: int, on: int, host: str, port: int, epoch: int) -> None:
        self.told.hear(heard(instance(who), host, on=on, port=port, epoch=epoch))

    @rule(who=st.integers(0, 6), on=st.integers(1, 3))
    def lose(self, who: int, on: int) -> None:
        self.told.hear(lost(instance(who), on))

    @rule(who=st.integers(0, 6))
    def confirm(self, who: int) -> None:
        self.told.confirm(instance(who))

    @rule(links=st.sets(st.sampled_from([ETH1, ETH2])))
    def choose(self, links: set[Interface]) -> None:
        self.told.set_links(links)

    @rule(count=st.integers(1, 3))
    def read(self, count: int) -> None:
        for _ in range(count):
            event = self.told.next_event()
            if event is not None:
                self.follow(event)

    @rule()
    def read_all(self) -> None:
        for event in events(self.told):
            self.follow(event)
        assert self.seen == {n.instance: n for n in self.told}

    def follow(self, event: PeerEvent) -> None:
        if isinstance(event, PeerGone):
            del self.seen[event.instance]
            return
        known = event.neighbour.instance in self.seen
        assert known == isinstance(event, PeerChanged)
        assert self.seen.get(event.neighbour.instance) != event.neighbour
        self.seen[event.neighbour.instance] = event.neighbour

    @invariant()
    def memory_is_bounded(self) -> None:
        there = list(self.told)
        assert len(there) <= 4
        assert self.told._confirmed <= {n.instance for n in there}
        assert set(self.told._adverts) == {n.instance for n in there}
        at = {(t.host, n.instance) for n in there for t in n.targets}
        assert at == {(h, i) for h, who in self.told._at.items() for i in who}
        assert len(self.told._dirty) <= 4 + len(self.seen)


TestAnybody = Anybody.TestCase
TestAnybody.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    st.builds(
        Heard,
        link=st.integers(0, 3),
        label=st.text(max_size=70),
        port=st.integers(-1, 70000),
        addresses=st.lists(st.text(max_size=40), max_size=5).map(tuple),
        txt=st.binary(max_size=400),
    )
)
def test_anything_heard_is_taken_or_counted(said: Heard) -> None:
    told = neighbours()
    told.hear(said)
    assert len(list(told)) + told.ignored.total() == 1
