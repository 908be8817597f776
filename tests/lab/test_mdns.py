"""Discovery between real hosts: network namespaces on a bridge."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from tests.lab.conversation import Conversation, Fact
from tests.lab.namespaces import Host, Lab, open_lab
from tests.require import require

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab() as made:
        yield made


def name(number: int) -> str:
    return f"{number:032x}"


def agent(host: Host, number: int, *options: str) -> Conversation:
    """An agent that is ready; its instance is the number."""
    process = host.python("tests.lab.mdns_agent", name(number), *options)
    conversation = Conversation(process)
    conversation.until("ready")
    return conversation


def publish(who: Conversation, port: int = 4711, held: int = 0) -> None:
    who.say(publish={"port": port, "complete": [f"{n:064x}" for n in range(held)]})


def sees(who: Conversation, number: int) -> Fact:
    return who.until("PeerAppeared", lambda fact: fact["instance"] == name(number))


def misses(who: Conversation, number: int) -> Fact:
    return who.until("PeerGone", lambda fact: fact["instance"] == name(number))


def throw(host: Host, *packets: str) -> None:
    """Multicast packets from a host, each an expression over `tests.net.dns`."""
    program = f"""
        from p2p.net.advert import InstanceId
        from tests.net import dns
        who = lambda number: InstanceId(number.to_bytes(16))
        dns.throw({host.address!r}, {", ".join(packets)})
    """
    process = host.start(
        *("/usr/bin/env", f"PYTHONPATH={Path(__file__).parents[2]}"),
        *(sys.executable, "-c", textwrap.dedent(program)),
    )
    assert process.wait(60) == 0


def counts(who: Conversation) -> Fact:
    who.say(counts=True)
    return who.until("counts")


def test_two_hosts_find_each_other_see_changes_and_goodbyes(lab: Lab) -> None:
    left, right = lab.host("left"), lab.host("right")
    one, two = agent(left, 1), agent(right, 2)
    publish(one)
    publish(two)
    seen = sees(one, 2)
    assert seen["targets"][0] == [right.address, 4711]
    assert seen["targets"][1][0].startswith("fe80::")
    assert seen["targets"][1][0].endswith("%eth0")
    sees(two, 1)
    publish(two, held=3)
    changed = one.until("PeerChanged")
    assert (changed["instance"], changed["epoch"]) == (name(2), 3)
    two.leave()
    misses(one, 2)
    assert counts(one)["ignored"].keys() == {"it is our own"}


def test_five_hosts_find_each_other_whoever_comes_when(lab: Lab) -> None:
    hosts = [lab.host(f"host{n}") for n in range(5)]
    agents = []
    for number, host in enumerate(hosts):
        agents.append(agent(host, number))
        publish(agents[-1])
    met = {
        (number, fact["instance"])
        for number, who in enumerate(agents)
        for fact in (who.until("PeerAppeared") for _ in range(4))
    }
    assert met == {(a, name(b)) for a, b in permutations(range(5), 2)}


def test_a_killed_agent_is_forgotten_once_it_is_missed(lab: Lab) -> None:
    one, two = agent(lab.host("left"), 1), agent(lab.host("right"), 2)
    publish(two)
    sees(one, 2)
    one.say(unreachable=name(2))
    two.kill()
    one.say(unreachable=name(2))  # within 30 s, so not asked again
    assert counts(one)["peers"] == 1
    assert not [fact for fact in one.heard if fact["event"] == "PeerGone"]


def test_a_killed_agent_that_does_not_answer_is_gone(lab: Lab) -> None:
    one, two = agent(lab.host("left"), 1), agent(lab.host("right"), 2)
    publish(two)
    sees(one, 2)
    two.kill()
    one.say(unreachable=name(2))
    misses(one, 2)


def test_an_agent_that_restarts_after_being_killed_replaces_itself(lab: Lab) -> None:
    right = lab.host("right")
    one, two = agent(lab.host("left"), 1), agent(right, 2)
    publish(two)
    sees(one, 2)
    two.kill()
    again = agent(right, 3)
    publish(again)
    misses(one, 2)
    sees(one, 3)


def test_two_agents_on_one_host_find_each_other_and_others(lab: Lab) -> None:
    both = lab.host("both")
    one, two = agent(both, 1), agent(both, 2)
    other = agent(lab.host("other"), 3)
    publish(one, 1001)
    publish(two, 1002)
    publish(other, 1003)
    assert sees(one, 2)["targets"][0] == [both.address, 1002]
    assert sees(two, 1)["targets"][0] == [both.address, 1001]
    assert {sees(other, 1)["targets"][0][1], sees(other, 2)["targets"][0][1]} == {
        1001,
        1002,
    }


def test_hostile_answers_are_ignored_and_counted(lab: Lab) -> None:
    one = agent(lab.host("left"), 1)
    two = lab.host("right")
    throw(
        two,
        "dns.announce(who(2), '203.0.113.7')",  # off the link
        "dns.announce(who(3), '127.0.0.1', '224.0.0.1', '::1')",
        f"dns.announce(who(4), {two.address!r}, txt=b'\\xff')",  # malformed
        f"dns.announce(who(5), {two.address!r}, txt=b'')",
        f"dns.announce(who(6), {two.address!r}, first='printer')",
        f"dns.announce(who(7), {two.address!r}, first='p2p-' + '0' * 32)",
        f"dns.announce(who(1), {two.address!r})",  # its own
        "b'_ostree-p2p' + bytes(range(256)) * 20",
        f"dns.announce(who(9), {two.address!r}, port=1009)",  # good
    )
    assert sees(one, 9)["targets"] == [[two.address, 1009]]
    told = counts(one)
    assert told["peers"] == 1
    assert told["ignored"].keys() == {
        "no address of it is on the link",
        "it is malformed",
        "it is our own",
    }
    assert len({reason.split(":")[0] for reason in told["reasons"]}) == 7


def test_a_goodbye_from_anybody_only_hides_a_neighbour_for_a_while(lab: Lab) -> None:
    # mDNS proves nothing, so a liar can say goodbye for others; the next word of the
    # neighbour itself brings it back.
    one, two = agent(lab.host("left"), 1), agent(lab.host("right"), 2)
    publish(two)
    sees(one, 2)
    liar = lab.host("liar")
    # What the neighbour says of itself in the same moment undoes the lie.
    for _ in range(50):
        throw(liar, f"dns.announce(who(2), {liar.address!r}, ttl=0)")
        counts(one)
        if any(fact["event"] == "PeerGone" for fact in one.heard):
            break
    misses(one, 2)
    publish(two, held=1)
    sees(one, 2)


def test_a_flood_does_not_keep_a_neighbour_away(lab: Lab) -> None:
    one = agent(lab.host("left"), 1)
    liar = lab.host("liar")
    throw(
        liar,
        "*(dns.announce(who(n), f'10.9.0.{n % 200 + 40}') for n in range(100, 4100))",
    )
    two = agent(lab.host("right"), 2)
    publish(two)
    sees(one, 2)
    told = counts(one)
    assert told["packets"]["a flood"] > 0
    assert told["peers"] <= 1024


def test_hosts_on_other_links_stay_unseen(lab: Lab) -> None:
    # One host has a leg on each of two links; those behind the legs do not meet.
    left = lab.host("left")
    right = lab.host("right", bridge="br1", network="10.8.0")
    middle = lab.host("middle")
    lab.attach(middle, "eth1", "middle1", "br1")
    middle.run("ip", "address", "add", "10.8.0.99/24", "dev", "eth1", "brd", "+")
    one, two, three = agent(left, 1), agent(right, 2), agent(middle, 3)
    for who in (one, two, three):
        publish(who)
    assert sees(three, 1)["targets"][0] == [left.address, 4711]
    assert sees(three, 2)["targets"][0] == [right.address, 4711]
    # Each link is told only the address that is on it.
    assert sees(one, 3)["targets"][0][0] == middle.address
    assert sees(two, 3)["targets"][0][0] == "10.8.0.99"
    assert counts(one)["peers"] == 1
    assert counts(two)["peers"] == 1


def test_an_interface_that_comes_later_is_used_and_one_that_goes_is_left(
    lab: Lab,
) -> None:
    left, right = lab.host("left"), lab.host("right")
    one, two = agent(left, 1), agent(right, 2)
    publish(one)
    publish(two)
    sees(one, 2)
    right.unplug()
    one.say(unreachable=name(2))
    misses(one, 2)
    misses(two, 1)
    right.plug()
    sees(two, 1)
    sees(one, 2)
    left.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    left.run("ip", "address", "add", "10.9.0.77/24", "dev", "eth0", "brd", "+")
    moved = two.until(
        "PeerAppeared PeerChanged",
        lambda fact: [target[0] for target in fact["targets"]][:-1] == ["10.9.0.77"],
    )
    assert moved["instance"] == name(1)


def test_a_link_with_ipv6_alone_works(lab: Lab) -> None:
    hosts = [lab.host("left"), lab.host("right")]
    for host in hosts:
        host.run("ip", "-4", "address", "flush", "dev", "eth0")
    one, two = (agent(host, number) for number, host in enumerate(hosts, 1))
    publish(two)
    ((host, port),) = sees(one, 2)["targets"]
    assert host.startswith("fe80::")
    assert host.endswith("%eth0")
    assert port == 4711


@pytest.mark.parametrize("alone_first", [True, False])
def test_a_host_with_ipv6_alone_and_one_with_both_find_each_other(
    lab: Lab, alone_first: bool
) -> None:
    alone, both = lab.host("alone"), lab.host("both")
    alone.run("ip", "-4", "address", "flush", "dev", "eth0")
    hosts = [(1, alone), (2, both)] if alone_first else [(2, both), (1, alone)]
    agents: dict[int, Conversation] = {}
    for number, host in hosts:
        agents[number] = agent(host, number)
        publish(agents[number])
    assert sees(agents[1], 2)["targets"][-1][0].startswith("fe80::")
    if not alone_first:
        ((address, _),) = sees(agents[2], 1)["targets"]
        assert address.startswith("fe80::")
        agents[1].leave()
        misses(agents[2], 1)


def test_a_host_with_ipv4_alone_and_one_with_both_find_each_other(lab: Lab) -> None:
    alone, both = lab.host("alone"), lab.host("both")
    alone.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
    one, two = agent(alone, 1), agent(both, 2)
    publish(one)
    publish(two)
    assert sees(one, 2)["targets"] == [[both.address, 4711]]
    assert sees(two, 1)["targets"] == [[alone.address, 4711]]


def test_tunnels_are_left_alone_unless_they_are_named(lab: Lab) -> None:
    host = lab.host("left")
    host.run("ip", "tuntap", "add", "tun0", "mode", "tun")
    host.run("ip", "address", "add", "10.7.0.1/24", "dev", "tun0")
    host.run("ip", "link", "set", "tun0", "up")
    process = host.python("tests.lab.mdns_agent", name(1))
    assert Conversation(process).until("ready")["interfaces"] == ["eth0"]


def test_isolated_wi_fi_clients_meet_nobody_but_the_uplink(lab: Lab) -> None:
    clients = [lab.host("left"), lab.host("right")]
    for client in clients:
        client.isolate()
    one, two = (agent(host, number) for number, host in enumerate(clients, 1))
    uplink = agent(lab.host("uplink"), 3)
    for who in (one, two, uplink):
        publish(who)
    sees(uplink, 1)
    sees(uplink, 2)
    sees(one, 3)
    sees(two, 3)
    assert counts(one)["peers"] == 1
    assert counts(two)["peers"] == 1


AVAHI = """
[server]
use-ipv6=no
enable-dbus=no
[wide-area]
enable-wide-area=no
[publish]
publish-workstation=yes
"""
AVAHI_SERVICE = """<?xml version="1.0"?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>Printer in hall 3</name>
<service><type>_ipp._tcp</type><port>631</port></service>
</service-group>
"""


def start_avahi(host: Host, work: Path) -> "subprocess.Popen[str]":
    """avahi-daemon on a host, with /run and its services of its own."""
    (work / "avahi.conf").write_text(AVAHI)
    (work / "services").mkdir()
    (work / "services" / "printer.service").write_text(AVAHI_SERVICE)
    script = (
        "mount -t tmpfs none /run && mkdir /run/avahi-daemon && "
        f"mount --bind {work}/services /etc/avahi/services && "
        f"exec avahi-daemon -f {work}/avahi.conf "
        "--no-drop-root --no-chroot --no-rlimits"
    )
    process = host.start("sh", "-c", script, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    for line in process.stdout:
        if "Server startup complete" in line:
            return process
    raise AssertionError("avahi-daemon did not start")


@pytest.mark.parametrize("avahi_first", [True, False])
def test_avahi_on_the_same_host_is_no_hindrance_to_either(
    lab: Lab, tmp_path: Path, avahi_first: bool
) -> None:
    require("avahi-daemon")
    shared, other = lab.host("shared"), lab.host("other")
    two = agent(other, 2)
    publish(two)
    if avahi_first:
        start_avahi(shared, tmp_path)
    one = agent(shared, 1)
    publish(one)
    if not avahi_first:
        start_avahi(shared, tmp_path)
    sees(one, 2)
    sees(two, 1)
    # Avahi still answers others, with our agent at its side.
    question = """
        import asyncio
        from zeroconf.asyncio import AsyncZeroconf
        async def main():
            async with AsyncZeroconf() as mdns:
                kind = "_ipp._tcp.local."
                name = f"Printer in hall 3.{kind}"
                info = await mdns.async_get_service_info(kind, name, 20000)
                print(info.port)
        asyncio.run(main())
    """
    third = lab.host("third")
    told = third.run(sys.executable, "-c", textwrap.dedent(question))
    assert told.strip() == "631"
    two.leave()
    misses(one, 2)
