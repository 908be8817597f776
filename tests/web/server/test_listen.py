"""Addresses a server listens on, and the sockets they become."""

import os
import socket
from pathlib import Path

import pytest
import trio

from p2p.errors import ConfigError
from p2p.web.server.http1 import Server
from p2p.web.server.listen import name_of, open_listeners, parse_address
from tests.web.server.talk import GET, echo


@pytest.mark.parametrize(
    "text,expected",
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8084", ("::1", 8084)),
        (":0", ("", 0)),
        ("host.example:65535", ("host.example", 65535)),
    ],
)
def test_host_and_port_are_told_apart(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "80", "host", "host:", "host:x", "h:65536", "::1:80", "h:-1", "h:٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_address(text)


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def test_all_addresses_of_a_name_share_one_port() -> None:
    listeners = open_listeners("localhost:0")
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    close(listeners)


def test_no_host_means_every_address() -> None:
    (listener,) = open_listeners(":0")
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        pass
    listener.close()


def test_without_ipv6_no_host_means_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    (listener,) = open_listeners(":0")
    assert listener.family is socket.AF_INET
    listener.close()


def test_what_is_open_already_is_closed_when_the_next_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [
        (socket.AF_INET, 1, 6, "", (host, 0)) for host in ("127.0.0.1", "192.0.2.7")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ConfigError):
        open_listeners("two.example:0")


def test_a_taken_port_is_named_with_a_remedy() -> None:
    (listener,) = open_listeners("127.0.0.1:0")
    port = listener.getsockname()[1]
    with pytest.raises(ConfigError, match=f":{port}: Address already in use") as caught:
        open_listeners(f"127.0.0.1:{port}")
    assert "choose another port" in caught.value.hint
    listener.close()


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid", "a" * 70])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="listen address"):
        open_listeners(f"{host}:0")


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(Server(echo).serve, open_listeners(path))
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(GET)
            assert b"GET|/||" in await stream.receive_some(1000)
        with pytest.raises(ConfigError, match="in use"):
            open_listeners(path)
        nursery.cancel_scope.cancel()
    # The file stays; a new server takes its place.
    close(open_listeners(path))
    os.unlink(path)


def test_a_unix_socket_cannot_take_the_place_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ConfigError):
        open_listeners(str(path))
    assert path.read_text() == "precious"


def test_addresses_are_named_as_in_a_url() -> None:
    assert name_of(("::1", 80, 0, 0)) == "[::1]:80"
    assert name_of(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert name_of("/run/x") == "/run/x"
    assert name_of("") == "local"
