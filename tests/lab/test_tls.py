"""TLS sessions between real hosts: link-local addresses, killed and vanished peers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conversation import Conversation
from tests.lab.namespaces import Host, Lab, open_lab

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab() as made:
        yield made


def end(host: Host, state: Path) -> tuple[Conversation, int]:
    """A process on a host that is ready, and its port."""
    conversation = Conversation(host.python("tests.lab.tls_end", str(state)))
    return conversation, conversation.until("ready")["port"]


def test_a_session_over_ipv6_link_local_addresses(lab: Lab, tmp_path: Path) -> None:
    left, right = lab.host("left"), lab.host("right")
    one, _ = end(left, tmp_path / "one")
    two, port = end(right, tmp_path / "two")
    shown = right.run("ip", "-6", "-brief", "address", "show", "dev", "eth0")
    address = shown.split()[2].partition("/")[0]
    assert address.startswith("fe80::")
    one.say(dial=[f"{address}%eth0", port])
    met = one.until("met")
    assert met["address"] == f"[{address}%eth0]:{port}"
    accepted = two.until("met")
    assert accepted["address"].startswith("fe80::")
    assert accepted["address"].endswith("%eth0")
    one.say(send="hello")
    assert two.until("received")["text"] == "hello"


def test_a_peer_that_is_killed_is_lost_at_once(lab: Lab, tmp_path: Path) -> None:
    right = lab.host("right")
    one, _ = end(lab.host("left"), tmp_path / "one")
    two, port = end(right, tmp_path / "two")
    one.say(dial=[right.address, port])
    two.until("met")
    one.until("met")
    two.kill()
    lost = one.until("lost")
    assert lost["kind"] == "TransportClosedError"
    assert "without a goodbye" in lost["text"]


@pytest.mark.slow
@pytest.mark.parametrize("talking", [True, False], ids=["talking", "idle"])
def test_a_peer_that_loses_power_is_missed_within_half_a_minute(
    lab: Lab, tmp_path: Path, talking: bool
) -> None:
    right = lab.host("right")
    one, _ = end(lab.host("left"), tmp_path / "one")
    two, port = end(right, tmp_path / "two")
    one.say(dial=[right.address, port])
    two.until("met")
    one.until("met")
    right.unplug()
    if talking:
        one.say(send="are you there?")
    lost = one.until("lost")
    assert lost["kind"] == "TransportTimeoutError"
    assert "stopped answering" in lost["text"]
