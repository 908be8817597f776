import errno
import ipaddress
import os
import socket
import struct

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import FormatError, TransportError
from p2p.net import netlink
from p2p.net.netlink import (
    KernelInterfaces,
    Message,
    parse_interfaces,
    parse_messages,
    read_interfaces,
)

NEW_LINK, NEW_ADDRESS, DONE = 16, 20, 3


def attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def link(index: int = 2, name: bytes = b"eth0\0", more: bytes = b"") -> Message:
    body = struct.pack("=BxHiII", 0, 1, index, 0x1043, 0) + attribute(3, name) + more
    return Message(NEW_LINK, 0, body)


def address(
    family: int, raw: bytes, prefix: int, *, flags: int = 0, more: bytes = b""
) -> Message:
    body = struct.pack("=BBBBI", family, prefix, flags & 0xFF, 0, 2)
    return Message(NEW_ADDRESS, 0, body + attribute(1, raw) + more)


def datagram(*messages: Message) -> bytes:
    return b"".join(
        struct.pack("=IHHII", 16 + len(m.body), m.kind, m.flags, 0, 0)
        + m.body
        + bytes(-len(m.body) % 4)
        for m in messages
    )


V4 = address(socket.AF_INET, bytes([192, 0, 2, 1]), 24)


def test_the_kernel_s_own_answer_is_understood() -> None:
    found = {interface.name: interface for interface in read_interfaces()}
    lo = found["lo"]
    assert lo.is_loopback
    assert lo.index == socket.if_nametoindex("lo")
    assert lo.hardware == 772
    assert set(found) == {name for _, name in socket.if_nameindex()}


def test_links_and_addresses_are_put_together() -> None:
    wireguard = attribute(18, attribute(1, b"wireguard\0"))
    v6 = ipaddress.ip_address("fe80::1").packed
    links = [link(7, b"wg0\0", wireguard), link(), Message(99, 0, b"")]
    addresses = [V4, address(socket.AF_INET6, v6, 64), Message(99, 0, b"")]
    eth, wg = parse_interfaces(links, addresses)
    assert (eth.name, eth.index, eth.hardware, eth.kind) == ("eth0", 2, 1, "")
    assert [str(network) for network in eth.networks] == ["192.0.2.1/24", "fe80::1/64"]
    assert (wg.name, wg.kind, wg.networks) == ("wg0", "wireguard", ())


@pytest.mark.parametrize(
    "message",
    [
        address(socket.AF_INET6, bytes(16), 64, flags=0x40),  # tentative
        address(socket.AF_INET6, bytes(16), 64, flags=0x08),  # a duplicate
        address(socket.AF_INET6, bytes(16), 64, flags=0x01),  # of a day
        address(
            socket.AF_INET6, bytes(16), 64, more=attribute(8, struct.pack("=I", 0x40))
        ),
        address(socket.AF_PACKET, bytes(6), 0),
        address(socket.AF_INET, b"abc", 24),
        address(socket.AF_INET, bytes(4), 77),
    ],
)
def test_addresses_that_are_not_ours_to_use_are_left_out(message: Message) -> None:
    (eth,) = parse_interfaces([link()], [message])
    assert eth.networks == ()


def test_a_second_ipv4_address_is_used_too() -> None:
    second = address(socket.AF_INET, bytes([192, 0, 2, 9]), 24, flags=0x01)
    (eth,) = parse_interfaces([link()], [V4, second])
    assert len(eth.networks) == 2


def test_the_other_end_of_a_point_to_point_link_is_not_ours() -> None:
    ours = attribute(2, bytes([192, 0, 2, 1]))
    theirs = address(socket.AF_INET, bytes([192, 0, 2, 99]), 32, more=ours)
    (ppp,) = parse_interfaces([link()], [theirs])
    assert ppp.networks == (ipaddress.ip_interface("192.0.2.1/32"),)


@pytest.mark.parametrize(
    "data",
    [
        b"short",
        struct.pack("=IHHII", 15, 3, 0, 0, 0),
        struct.pack("=IHHII", 99, 3, 0, 0, 0),
    ],
)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        list(parse_messages(data))


@pytest.mark.parametrize(
    "links, addresses",
    [
        ([Message(NEW_LINK, 0, b"x")], []),
        ([], [Message(NEW_ADDRESS, 0, b"x")]),
        ([link(more=struct.pack("=HH", 3, 1))], []),
        ([link(more=struct.pack("=HH", 99, 1))], []),
    ],
)
def test_broken_dumps_are_refused(
    links: list[Message], addresses: list[Message]
) -> None:
    with pytest.raises(FormatError):
        parse_interfaces(links, addresses)


messages = st.builds(
    Message,
    st.sampled_from([NEW_LINK, NEW_ADDRESS, DONE, 99]),
    st.integers(0, 0xFFFF),
    st.binary(max_size=80),
)


@given(st.lists(messages), st.lists(messages))
def test_any_dump_is_interfaces_or_a_format_error(
    links: list[Message], addresses: list[Message]
) -> None:
    assert list(parse_messages(datagram(*links))) == links
    try:
        parse_interfaces(links, addresses)
    except FormatError:
        return


@given(st.binary(max_size=100))
def test_any_datagram_is_messages_or_a_format_error(data: bytes) -> None:
    try:
        list(parse_messages(data))
    except FormatError:
        return


# -- a kernel that answers otherwise ---------------------------------------------


class Kernel:
    """Answers dumps as told, in turn."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def send(self, data: bytes) -> None:
        pass

    def recv(self, _: int) -> bytes:
        return self.answers.pop(0)


def dump(kernel: Kernel) -> list[Message]:
    return netlink._dump(kernel, 18)  # type: ignore[arg-type]  # all it uses


def test_a_dump_comes_in_several_datagrams() -> None:
    parts = (datagram(link()), datagram(link(3), Message(DONE, 2, bytes(4))))
    assert len(dump(Kernel(*parts))) == 2


def test_a_torn_dump_is_read_again() -> None:
    torn = datagram(Message(NEW_LINK, 0x12, link().body), Message(DONE, 2, b""))
    whole = datagram(link(), Message(DONE, 2, b""))
    assert dump(Kernel(torn, torn, whole)) == [link()]
    with pytest.raises(FormatError, match="change faster"):
        dump(Kernel(*[torn] * 20))


def test_an_error_of_the_kernel_is_one_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = datagram(Message(2, 0, struct.pack("=i", -errno.EPERM)))
    with pytest.raises(PermissionError):
        dump(Kernel(refused))

    def no_netlink(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", no_netlink)
    with pytest.raises(TransportError, match="cannot be read") as caught:
        read_interfaces()
    assert "RestrictAddressFamilies" in caught.value.hint


async def test_without_netlink_there_is_no_word_of_changes() -> None:
    class Forbidden(trio.abc.SocketFactory):
        def socket(self, *_: int) -> trio.socket.SocketType:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported")

    trio.socket.set_custom_socket_factory(Forbidden())
    with pytest.raises(TransportError, match="cannot be read"):
        await KernelInterfaces.open()


# -- changes -------------------------------------------------------------------------


class Changes:
    """A netlink socket that has changes at given times."""

    def __init__(self, *moments: float, error: int = 0) -> None:
        self._moments = list(moments)
        self._error = error

    async def recv(self, _: int) -> bytes:
        if not self._moments:
            await trio.sleep_forever()
        await trio.sleep_until(self._moments[0])
        self._moments.pop(0)
        if self._error:
            raise OSError(self._error, os.strerror(self._error))
        return b""


def kernel(changes: Changes) -> KernelInterfaces:
    return KernelInterfaces(changes)  # type: ignore[arg-type]  # all it uses


async def test_a_burst_of_changes_is_told_once_it_is_quiet(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    it = kernel(Changes(*(began + t for t in (1.0, 1.1, 1.2, 9.0))))
    await it.wait()
    assert trio.current_time() - began == pytest.approx(1.5)
    await it.wait()
    assert trio.current_time() - began == pytest.approx(9.3)


async def test_changes_without_end_are_told_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    it = kernel(Changes(*(began + n / 10 for n in range(1000))))
    await it.wait()
    assert trio.current_time() - began == pytest.approx(2.0, abs=0.11)


async def test_more_changes_than_fit_are_a_change(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await kernel(Changes(trio.current_time() + 1, error=errno.ENOBUFS)).wait()
    with pytest.raises(TransportError):
        await kernel(Changes(trio.current_time() + 1, error=errno.EBADF)).wait()


async def test_the_kernel_s_socket_opens_and_closes() -> None:
    source = await KernelInterfaces.open()
    assert {i.name for i in source.read()} == {n for _, n in socket.if_nameindex()}
    source.close()
