"""Who is not listened to, and for how long."""

from p2p.agent.bans import BAN_SECONDS, MAX_BANNED, Bans
from p2p.wire.messages import DeviceId

ANNA, BERT = DeviceId("a" * 64), DeviceId("b" * 64)


def test_a_ban_has_a_reason_and_ends() -> None:
    bans = Bans()
    assert bans.add(ANNA, "wrong bytes", 100.0)
    assert bans.reason(ANNA, 100.0 + BAN_SECONDS - 1) == "wrong bytes"
    assert bans.reason(BERT, 100.0) == ""
    assert bans.all(100.0) == {ANNA: "wrong bytes"}
    assert bans.reason(ANNA, 100.0 + BAN_SECONDS) == ""
    assert bans.all(100.0 + BAN_SECONDS) == {}


def test_the_first_reason_stays_while_it_lasts() -> None:
    bans = Bans()
    bans.add(ANNA, "wrong bytes", 0.0)
    assert not bans.add(ANNA, "silent", BAN_SECONDS / 2)
    assert bans.reason(ANNA, BAN_SECONDS / 2) == "wrong bytes"
    assert bans.add(ANNA, "again", BAN_SECONDS + 1)
    assert bans.reason(ANNA, BAN_SECONDS + 2) == "again"


def test_new_names_push_out_the_oldest() -> None:
    bans = Bans()
    devices = [DeviceId(f"{number:064x}") for number in range(MAX_BANNED + 1)]
    for device in devices:
        bans.add(device, "x", 0.0)
    assert list(bans.all(1.0)) == devices[1:]
    assert repr(bans) == f"<Bans {MAX_BANNED} devices>"
