import errno
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from p2p.errors import ConfigError, TransportError
from p2p.net.admission import ListenLimits, Refusal
from p2p.net.identity import open_identity
from p2p.net.listener import Admit, Listener
from p2p.net.target import Target
from p2p.net.tls import Contact, Endpoint, dial
from tests.net.pki import Authority, right_clock

GENEROUS = ListenLimits()


@pytest.fixture
def us(tmp_path: Path) -> Endpoint:
    return Endpoint(open_identity(str(tmp_path / "us")), right_clock)


@pytest.fixture
def them(tmp_path: Path) -> Endpoint:
    return Endpoint(open_identity(str(tmp_path / "them")), right_clock)


async def echo(contact: Contact) -> None:
    try:
        while data := await contact.stream.receive_some():
            await contact.stream.send_all(data)
    except TransportError:
        pass  # the client left


class Watched(Counter[str]):
    """Counts that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = trio.Event()

    def __setitem__(self, key: str, value: int) -> None:
        super().__setitem__(key, value)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, why: str) -> None:
        while not self[why]:
            await self._changed.wait()


def watched(listener: Listener) -> Watched:
    assert isinstance(listener.counts, Watched)
    return listener.counts


@asynccontextmanager
async def served(
    endpoint: Endpoint,
    limits: ListenLimits = GENEROUS,
    *,
    host: str | None = "127.0.0.1",
    admit: Admit = lambda _: True,
) -> AsyncIterator[Listener]:
    listener = await Listener.open(0, host=host, limits=limits)
    listener.counts = Watched()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: listener.serve(endpoint, echo, admit=admit))
            yield listener
            nursery.cancel_scope.cancel()


async def says(endpoint: Endpoint, target: Target, text: bytes) -> bytes:
    contact = await dial(endpoint, [target])
    async with contact.stream:
        await contact.stream.send_all(text)
        return await contact.stream.receive_some()


async def silent(port: int) -> trio.SocketStream:
    """A client that connects and never says a word."""
    return await trio.open_tcp_stream("127.0.0.1", port)


async def test_one_port_serves_both_families(us: Endpoint, them: Endpoint) -> None:
    async with served(us, host=None) as listener:
        for host in ("127.0.0.1", "::1"):
            assert await says(them, Target(host, listener.port), b"hi") == b"hi"
        assert listener.counts["accepted"] == 2


async def test_a_listener_may_be_kept_to_one_address(
    us: Endpoint, them: Endpoint
) -> None:
    async with served(us, host="::1") as listener:
        assert await says(them, Target("::1", listener.port), b"hi") == b"hi"
        with pytest.raises(TransportError, match="nothing listens there"):
            await says(them, Target("127.0.0.1", listener.port), b"hi")


async def test_a_handler_is_told_who_comes(us: Endpoint, them: Endpoint) -> None:
    listener = await Listener.open(0)
    seen: list[Contact] = []

    async def handler(contact: Contact) -> None:
        seen.append(contact)
        await contact.stream.send_all(b"seen")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, us, handler)
        contact = await dial(them, [Target("127.0.0.1", listener.port)])
        async with contact.stream:
            assert await contact.stream.receive_some() == b"seen"
            # The handler has returned, so its end is closed for it.
            assert await contact.stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert seen[0].peer == them.identity.device_id
    assert seen[0].address == "127.0.0.1"


async def test_a_taken_port_is_named(us: Endpoint) -> None:
    async with served(us) as listener:
        with pytest.raises(
            ConfigError, match=f"listen 127.0.0.1:{listener.port}: "
        ) as e:
            await Listener.open(listener.port, host="127.0.0.1")
        assert "another agent" in e.value.hint
        with pytest.raises(ConfigError, match=r"listen \*:"):
            await Listener.open(listener.port)


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"listen 192\.0\.2\.1:0: cannot assign"):
        await Listener.open(0, host="192.0.2.1")


async def test_without_ipv6_in_the_kernel_ipv4_is_served(
    us: Endpoint, them: Endpoint
) -> None:
    class OnlyIPv4(trio.abc.SocketFactory):
        def socket(self, *args: int) -> trio.socket.SocketType:
            if args[0] == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
            return trio.socket.from_stdlib_socket(socket.socket(*args))

    trio.socket.set_custom_socket_factory(OnlyIPv4())
    async with served(us, host=None) as listener:
        assert await says(them, Target("127.0.0.1", listener.port), b"hi") == b"hi"


async def test_who_comes_from_elsewhere_is_not_heard(
    us: Endpoint, them: Endpoint
) -> None:
    async with served(us, admit=lambda address: address == "192.0.2.1") as listener:
        with pytest.raises(TransportError):
            await says(them, Target("127.0.0.1", listener.port), b"hi")
        await watched(listener).until(Refusal.NOT_HERE)


async def test_a_stranger_is_counted_and_others_are_served(
    us: Endpoint, them: Endpoint, tmp_path: Path
) -> None:
    stranger = Endpoint(Authority(tmp_path).device("robot-7"), right_clock)
    async with served(us) as listener:
        target = Target("127.0.0.1", listener.port)
        with pytest.raises(TransportError, match="stranger"):
            await says(stranger, target, b"hi")
        assert await says(them, target, b"hi") == b"hi"
        why = "this device's certificate comes from another authority"
        await watched(listener).until(f"the other side refused: {why}")


async def test_who_never_finishes_the_handshake_is_dropped(us: Endpoint) -> None:
    async with served(us, ListenLimits(handshake=0.05)) as listener:
        client = await silent(listener.port)
        async with client:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        await watched(listener).until("the handshake took too long")


async def test_silent_clients_cannot_keep_others_away(
    us: Endpoint, them: Endpoint
) -> None:
    limits = ListenLimits(half_open=3, handshake=60)
    async with served(us, limits) as listener:
        target = Target("127.0.0.1", listener.port)
        crowd = [await silent(listener.port) for _ in range(3)]
        assert await says(them, target, b"hi") == b"hi"
        with pytest.raises(trio.BrokenResourceError):
            await crowd[0].receive_some()
        for client in crowd:
            await client.aclose()


async def test_one_address_has_only_so_many_handshakes_and_connections(
    us: Endpoint, them: Endpoint
) -> None:
    limits = ListenLimits(half_open_each=1, contacts_each=1, handshake=60)
    async with (
        served(us, limits) as listener,
        await silent(listener.port),
        await silent(listener.port) as second,
    ):
        await watched(listener).until(Refusal.HALF_OPEN)
        assert await second.receive_some() == b""


async def test_a_connection_in_use_counts_until_it_ends(
    us: Endpoint, them: Endpoint
) -> None:
    async with served(us, ListenLimits(contacts=1)) as listener:
        target = Target("127.0.0.1", listener.port)
        contact = await dial(them, [target])
        async with contact.stream:
            await watched(listener).until("accepted")
            with pytest.raises(TransportError):
                await says(them, target, b"hi")
            await watched(listener).until(Refusal.CONTACTS)
        while True:
            try:
                assert await says(them, target, b"hi") == b"hi"
                break
            except TransportError:
                continue  # our end of the first is not over yet


async def test_a_handler_that_fails_ends_the_listener(
    us: Endpoint, them: Endpoint
) -> None:
    async def handler(contact: Contact) -> None:
        raise RuntimeError("a bug")

    listener = await Listener.open(0)
    bug = pytest.RaisesExc(RuntimeError, match="a bug")
    with pytest.RaisesGroup(bug, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.serve, us, handler)
            contact = await dial(them, [Target("127.0.0.1", listener.port)])
            async with contact.stream:
                await trio.sleep_forever()


async def test_running_out_of_descriptors_is_survived(
    us: Endpoint, them: Endpoint
) -> None:
    real = (await Listener.open(0, host="127.0.0.1"))._socket
    failures = [OSError(errno.ECONNABORTED, "aborted"), OSError(errno.EMFILE, "full")]

    class Socket:
        """Fails as accept(2) does, then goes on."""

        async def accept(self) -> tuple[trio.socket.SocketType, object]:
            if failures:
                raise failures.pop(0)
            return await real.accept()

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            real.close()

        def getsockname(self) -> object:
            return real.getsockname()

    listener = Listener(cast("trio.socket.SocketType", Socket()), GENEROUS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, us, echo)
        assert await says(them, Target("127.0.0.1", listener.port), b"hi") == b"hi"
        nursery.cancel_scope.cancel()
    assert listener.counts["accept: aborted"] == 1
    assert listener.counts["accept: full"] == 1
