import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2p.errors import (
    ConfigError,
    ConnectError,
    TransportClosedError,
    TransportError,
    TransportTimeoutError,
)
from p2p.net.identity import Identity, open_identity
from p2p.net.target import Target
from p2p.net.tls import ALPN, Contact, DialLimits, Endpoint, dial
from p2p.net.x509 import Validity
from p2p.trust.policy import Clock
from tests.net.pairs import tcp_pair
from tests.net.pki import NOW, Authority, make_key, right_clock

Outcome = Contact | TransportError


def endpoint(identity: Identity, clock: Callable[[], Clock] = right_clock) -> Endpoint:
    return Endpoint(identity, clock)


async def meet(dialler: Endpoint, accepter: Endpoint) -> tuple[Outcome, Outcome]:
    """What each of the two gets of the other, the dialler's first word included."""
    outcomes: dict[str, Outcome] = {}

    async def one(name: str, side: Endpoint, sock: trio.SocketStream) -> None:
        try:
            contact = await side.meet(sock, name, server_side=name == "dialler")
            # Who accepts talks first here, so that the dialler hears a refusal.
            if name == "dialler":
                await contact.stream.send_all(b"!")
            else:
                assert await contact.stream.receive_some() == b"!"
        except TransportError as error:
            outcomes[name] = error
        else:
            outcomes[name] = contact

    with trio.fail_after(10):
        async with tcp_pair() as (left, right), trio.open_nursery() as nursery:
            nursery.start_soon(one, "accepter", dialler, left)
            nursery.start_soon(one, "dialler", accepter, right)
    # Each is named after whom it was talking to.
    return outcomes["accepter"], outcomes["dialler"]


def told(outcome: Outcome) -> str:
    assert isinstance(outcome, TransportError), outcome
    return str(outcome)


async def test_open_members_know_each_other_by_device_id(tmp_path: Path) -> None:
    one = endpoint(open_identity(str(tmp_path / "one")))
    two = endpoint(open_identity(str(tmp_path / "two")))
    dialled, accepted = await meet(one, two)
    assert isinstance(dialled, Contact)
    assert isinstance(accepted, Contact)
    assert dialled.peer == two.identity.device_id
    assert accepted.peer == one.identity.device_id
    assert dialled.certificate == two.identity.certificate
    assert dialled.validity is Validity.CURRENT
    assert (dialled.address, accepted.address) == ("accepter", "dialler")
    assert repr(one) == f"<Endpoint open {one.identity.device_id[:12]}>"


async def test_fleet_members_with_every_kind_of_key_meet(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    devices = [
        endpoint(authority.device(kind, make_key(kind)))
        for kind in ("ec", "rsa", "ed25519")
    ]
    for one in devices:
        for two in devices:
            if one is not two:
                dialled, accepted = await meet(one, two)
                assert isinstance(dialled, Contact)
                assert isinstance(accepted, Contact)
                assert dialled.peer == two.identity.device_id
                assert dialled.certificate.name == two.identity.certificate.name


async def test_an_authority_between_is_followed_to_the_root(tmp_path: Path) -> None:
    root = Authority(tmp_path, "root")
    plant, depot = (Authority(tmp_path, name, parent=root) for name in ("a", "b"))
    one, two = endpoint(plant.device("one")), endpoint(depot.device("two"))
    dialled, accepted = await meet(one, two)
    assert isinstance(dialled, Contact)
    assert isinstance(accepted, Contact)


async def test_the_authority_in_the_file_need_not_be_a_root(tmp_path: Path) -> None:
    plant = Authority(tmp_path, "plant", parent=Authority(tmp_path, "root"))
    one = plant.device("one")
    with_plant = Path(one.certificate_file).with_name("plant.ca.pem").read_text()
    only_plant = Identity(
        membership=one.membership,
        authority=with_plant,
        certificate_file=one.certificate_file,
        key_file=one.key_file,
        certificate=one.certificate,
    )
    dialled, accepted = await meet(endpoint(only_plant), endpoint(plant.device("two")))
    assert isinstance(dialled, Contact)
    assert isinstance(accepted, Contact)


async def test_a_fleet_and_an_open_device_are_strangers_and_both_hear_it(
    tmp_path: Path,
) -> None:
    member = endpoint(Authority(tmp_path).device("robot-7"))
    stranger = endpoint(open_identity(str(tmp_path / "open")))
    for dialler, accepter in ((member, stranger), (stranger, member)):
        dialled, accepted = await meet(dialler, accepter)
        # The dialler sees the accepter's certificate first and says no.
        assert told(dialled) == (
            "accepter: a stranger: its certificate comes from another authority"
        )
        assert isinstance(dialled, ConnectError)
        assert "same membership" in dialled.hint
        assert told(accepted) == (
            "dialler: the other side refused: this device's certificate comes from "
            "another authority"
        )
        assert isinstance(accepted, ConnectError)


async def test_a_dialler_that_trusts_us_hears_late_that_we_do_not_trust_it(
    tmp_path: Path,
) -> None:
    ours, theirs = (Authority(tmp_path, name) for name in ("ours", "theirs"))
    device = theirs.device("robot-7")
    both = Identity(
        membership=device.membership,
        authority=device.authority + ours.file.read_text(),
        certificate_file=device.certificate_file,
        key_file=device.key_file,
        certificate=device.certificate,
    )
    dialled, accepted = await meet(endpoint(both), endpoint(ours.device("one")))
    assert told(accepted) == (
        "dialler: a stranger: its certificate comes from another authority"
    )
    assert told(dialled) == (
        "the other side refused: this device's certificate comes from another authority"
    )


async def test_an_authority_that_only_has_the_same_name_makes_strangers(
    tmp_path: Path,
) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    ours = endpoint(Authority(tmp_path / "ours").device("one"))
    theirs = endpoint(Authority(tmp_path / "theirs").device("two"))
    dialled, accepted = await meet(ours, theirs)
    assert "a stranger" in told(dialled)
    assert "refused: this device's certificate was signed by another" in told(accepted)


async def test_an_ended_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ended = endpoint(authority.device("old", end=datetime(2024, 5, 1, tzinfo=UTC)))
    good = endpoint(authority.device("good"))
    dialled, accepted = await meet(ended, good)
    assert told(accepted) == "dialler: the certificate ended 2024-05-01 00:00:00+00:00"
    assert isinstance(dialled, TransportClosedError)
    dialled, _ = await meet(good, ended)
    assert "the certificate ended 2024-05-01" in told(dialled)


async def test_a_certificate_of_the_future_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    early = endpoint(authority.device("early", begin=NOW + timedelta(days=9)))
    dialled, _ = await meet(endpoint(authority.device("good")), early)
    assert "the certificate begins 2026-12-02" in told(dialled)


async def test_a_device_with_its_clock_at_1970_joins(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    lost = Endpoint(authority.device("lost"), lambda: Clock(now=60.0, trusted=False))
    dialled, accepted = await meet(lost, endpoint(authority.device("good")))
    assert isinstance(dialled, Contact)
    assert isinstance(accepted, Contact)
    assert dialled.validity is Validity.UNJUDGED
    assert accepted.validity is Validity.CURRENT


async def test_the_clock_is_asked_at_each_handshake(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    times = [NOW.timestamp(), datetime(2041, 1, 1, tzinfo=UTC).timestamp()]
    one = Endpoint(
        authority.device("one"), lambda: Clock(now=times.pop(0), trusted=True)
    )
    two = endpoint(authority.device("two"))
    dialled, _ = await meet(one, two)
    assert isinstance(dialled, Contact)
    dialled, _ = await meet(one, two)
    assert "ended 2040" in told(dialled)


async def test_a_device_that_meets_its_own_key_says_what_happened(
    tmp_path: Path,
) -> None:
    one = endpoint(open_identity(str(tmp_path)))
    clone = endpoint(open_identity(str(tmp_path)))
    dialled, accepted = await meet(one, clone)
    for outcome in (dialled, accepted):
        assert isinstance(outcome, ConnectError)
        assert "this device's own key" in str(outcome)
        assert "copied" in outcome.hint


@pytest.mark.parametrize(
    "usage", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
def test_a_certificate_for_one_end_only_is_refused_at_start(
    tmp_path: Path, usage: x509.ObjectIdentifier
) -> None:
    identity = Authority(tmp_path).device("half", usages=(usage,))
    with pytest.raises(ConfigError, match="not made for both ends") as caught:
        endpoint(identity)
    assert "half.pem" in caught.value.where
    assert "both extended key usages" in caught.value.hint


async def test_a_certificate_without_key_usages_does(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, two = (endpoint(authority.device(name, usages=())) for name in "12")
    dialled, accepted = await meet(one, two)
    assert isinstance(dialled, Contact)
    assert isinstance(accepted, Contact)


def test_a_certificate_of_another_authority_is_refused_at_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    device = Authority(tmp_path).device("robot-7")
    other = Authority(tmp_path / "other")
    mixed = Identity(
        membership=device.membership,
        authority=other.file.read_text(),
        certificate_file=device.certificate_file,
        key_file=device.key_file,
        certificate=device.certificate,
    )
    with pytest.raises(ConfigError, match="neighbours would refuse this certificate"):
        endpoint(mixed)


def test_an_authority_file_of_nonsense_is_refused_at_start(tmp_path: Path) -> None:
    device = Authority(tmp_path).device("robot-7")
    broken = Identity(
        membership=device.membership,
        authority="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        certificate_file=device.certificate_file,
        key_file=device.key_file,
        certificate=device.certificate,
    )
    with pytest.raises(ConfigError, match="its certificates cannot be read"):
        endpoint(broken)


def test_an_ended_certificate_of_our_own_does_not_keep_us_from_starting(
    tmp_path: Path,
) -> None:
    old = datetime(2024, 5, 1, tzinfo=UTC)
    endpoint(Authority(tmp_path).device("old", end=old))


# -- peers that speak something else ------------------------------------------------


def foreign(identity: Identity, *, server: bool) -> ssl.SSLContext:
    """A context as another program with a good certificate would have it."""
    context = ssl.SSLContext(
        ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
    )
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context


async def refused(
    accepter: Endpoint, context: ssl.SSLContext, send: bytes = b""
) -> TransportError:
    """What the accepter says of a client that comes with this context."""
    caught: list[TransportError] = []

    async def accept(sock: trio.SocketStream) -> None:
        with pytest.raises(TransportError) as info:
            await accepter.meet(sock, "peer", server_side=True)
        caught.append(info.value)

    async def come(sock: trio.SocketStream) -> None:
        if send:
            await sock.send_all(send)
            return
        stream = trio.SSLStream(sock, context)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    with trio.fail_after(10):
        async with tcp_pair() as (left, right), trio.open_nursery() as nursery:
            nursery.start_soon(accept, right)
            nursery.start_soon(come, left)
    return caught[0]


async def test_peers_that_speak_something_else_are_told_apart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    us, them = endpoint(authority.device("us")), authority.device("them")
    no_alpn = foreign(them, server=False)
    other_alpn = foreign(them, server=False)
    other_alpn.set_alpn_protocols(["h2"])
    old_tls = foreign(them, server=False)
    old_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.verify_mode = ssl.CERT_NONE
    for context, send, what in (
        (no_alpn, b"", f"it does not speak {ALPN}"),
        (other_alpn, b"", f"it does not speak {ALPN}"),
        (old_tls, b"", "unsupported protocol"),
        (anonymous, b"", "showed no certificate"),
        (anonymous, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "http request"),
        (anonymous, bytes(500), "does not speak TLS as expected"),
    ):
        error = await refused(us, context, send)
        assert isinstance(error, ConnectError), error
        assert what in str(error)


async def test_a_server_of_old_tls_is_refused_by_the_dialler(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    us, context = (
        endpoint(authority.device("us")),
        foreign(authority.device("them"), server=True),
    )
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def serve(sock: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(sock, context, server_side=True).do_handshake()
        await sock.aclose()

    async with tcp_pair() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(serve, right)
        with pytest.raises(TransportError):
            await us.meet(left, "peer", server_side=False)


async def test_who_hangs_up_in_the_handshake_is_gone(tmp_path: Path) -> None:
    us = endpoint(open_identity(str(tmp_path)))
    async with tcp_pair() as (left, right):
        await left.aclose()
        with pytest.raises(TransportClosedError, match="vanished"):
            await us.meet(right, "peer", server_side=True)
    async with tcp_pair() as (left, right):
        await left.aclose()
        with pytest.raises(TransportClosedError):
            await us.meet(right, "peer", server_side=False)


async def test_a_changed_byte_ends_the_session(tmp_path: Path) -> None:
    one = endpoint(open_identity(str(tmp_path / "one")))
    two = endpoint(open_identity(str(tmp_path / "two")))
    contacts: dict[bool, Contact] = {}

    async def shake(side: Endpoint, sock: trio.SocketStream, server: bool) -> None:
        contacts[server] = await side.meet(sock, "peer", server_side=server)

    async with tcp_pair() as (left, right):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake, one, left, False)
            nursery.start_soon(shake, two, right, True)
        # A record of application data that no key has sealed.
        await contacts[False].stream.send_all(b"true")
        assert await contacts[True].stream.receive_some() == b"true"
        await left.send_all(bytes.fromhex("1703030020") + bytes(32))
        with pytest.raises(ConnectError, match="does not speak TLS as expected"):
            await contacts[True].stream.receive_some()
        contacts[False].stream.abort()


async def test_good_bytes_before_a_broken_record_are_still_delivered(
    tmp_path: Path,
) -> None:
    one = endpoint(open_identity(str(tmp_path / "one")))
    two = endpoint(open_identity(str(tmp_path / "two")))
    contacts: dict[bool, Contact] = {}

    async def shake(side: Endpoint, sock: trio.SocketStream, server: bool) -> None:
        contacts[server] = await side.meet(sock, "peer", server_side=server)

    async with tcp_pair() as (left, right):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake, one, left, False)
            nursery.start_soon(shake, two, right, True)
        await contacts[False].stream.send_all(b"true")
        await left.send_all(bytes.fromhex("1703030020") + bytes(32))
        assert await contacts[True].stream.receive_some() == b"true"
        with pytest.raises(TransportError):
            await contacts[True].stream.receive_some()
        contacts[False].stream.abort()


# -- dialling -----------------------------------------------------------------------

QUICK = DialLimits(connect=5, handshake=0.2, stagger=0.01)


async def deaf_port() -> tuple[trio.SocketListener, Target]:
    """A port that accepts connections and says nothing."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    return listener, Target("127.0.0.1", listener.socket.getsockname()[1])


def closed_port() -> Target:
    """A port where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Target("127.0.0.1", sock.getsockname()[1])


async def test_dialling_reaches_the_peer_at_one_of_its_targets(tmp_path: Path) -> None:
    one = endpoint(open_identity(str(tmp_path / "one")))
    two = endpoint(open_identity(str(tmp_path / "two")))
    listener, target = await deaf_port()

    async def accept() -> None:
        contact = await two.meet(await listener.accept(), "peer", server_side=True)
        await contact.stream.aclose()

    with trio.fail_after(10):
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            contact = await dial(one, [closed_port(), target, closed_port()])
            async with contact.stream:
                assert contact.peer == two.identity.device_id
                assert contact.address == str(target)


async def test_a_dial_that_fails_says_why_for_each_target(tmp_path: Path) -> None:
    us = endpoint(open_identity(str(tmp_path)))
    closed = closed_port()
    with pytest.raises(ConnectError) as caught:
        await dial(us, [closed, Target("name.invalid", 1)])
    assert f"{closed}: nothing listens there" in str(caught.value)
    assert "name.invalid:1: " in str(caught.value)
    with pytest.raises(ConnectError, match="no address to dial"):
        await dial(us, [])


async def test_a_peer_that_never_shakes_hands_is_given_up(tmp_path: Path) -> None:
    us = endpoint(open_identity(str(tmp_path)))
    listener, target = await deaf_port()
    async with listener:
        with pytest.raises(TransportTimeoutError, match="handshake took too long"):
            await dial(us, [target], QUICK)


async def test_an_address_that_never_answers_is_given_up(tmp_path: Path) -> None:
    us = endpoint(open_identity(str(tmp_path)))
    # A port whose queue is full answers no more; what is refused is listed too.
    with socket.socket() as full, socket.socket() as taken:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        taken.connect(full.getsockname())
        closed = closed_port()
        with pytest.raises(ConnectError) as caught:
            await dial(
                us,
                [closed, Target(*full.getsockname())],
                DialLimits(connect=0.3, stagger=0.01),
            )
    assert f"{closed}: nothing listens there" in str(caught.value)
    assert "no answer within 0.3 s" in str(caught.value)
