"""TLS: whom the fetcher believes, and how it shows who it is."""

import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p2p.errors import CredentialsError
from p2p.web.client.certificates import system_authorities
from p2p.web.client.failure import TlsError
from p2p.web.client.fetch import Fetcher
from p2p.web.client.lane import Done
from p2p.web.client.request import Access, Request, Response
from tests.servers import StartNginx
from tests.web.client.servers import answer, make_identity, make_tls, serving

ACCESS = Access(connect_seconds=2, low_speed_seconds=2)


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def get(url: str, access: Access) -> Request:
    return Request(url=url, max_bytes=1000, access=access)


async def test_a_server_that_the_named_authority_signed_is_believed(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    tls = make_tls(tmp_path)
    async with serving(answer(200, b"x"), tls=tls.context) as server:
        access = replace(ACCESS, ca_path=str(tls.authority))
        assert (await fetcher.fetch(get(server.url, access))).body == b"x"


async def test_a_server_of_an_unknown_authority_is_not_believed(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    tls = make_tls(tmp_path / "theirs")
    other = make_tls(tmp_path / "ours")
    async with serving(answer(200, b"x"), tls=tls.context) as server:
        for access in (ACCESS, replace(ACCESS, ca_path=str(other.authority))):
            with pytest.raises(TlsError, match=server.url) as caught:
                await fetcher.fetch(get(server.url, access))
            assert "tls-ca-path" in caught.value.hint
    assert not server.asked


async def test_a_certificate_for_another_name_is_not_believed(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    tls = make_tls(tmp_path)
    tls_server = serving(answer(200, b"x"), tls=tls.context, host="127.0.0.2")
    async with tls_server as server:
        access = replace(ACCESS, ca_path=str(tls.authority))
        with pytest.raises(TlsError, match=r"127\.0\.0\.2"):
            await fetcher.fetch(get(server.url, access))
    assert not server.asked


async def test_tls_permissive_believes_anyone(fetcher: Fetcher, tmp_path: Path) -> None:
    tls = make_tls(tmp_path)
    async with serving(answer(200, b"x"), tls=tls.context) as server:
        access = replace(ACCESS, permissive=True)
        assert (await fetcher.fetch(get(server.url, access))).body == b"x"


async def test_an_authority_file_that_is_not_there_is_named(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    tls = make_tls(tmp_path)
    async with serving(answer(200, b"x"), tls=tls.context) as server:
        access = replace(ACCESS, ca_path=str(tmp_path / "absent.pem"))
        # With GnuTLS libcurl does not say which file.
        with pytest.raises(TlsError, match=r"absent\.pem|CA certificates|ca cert"):
            await fetcher.fetch(get(server.url, access))


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_client_certificate_is_shown_to_who_asks_for_it(
    fetcher: Fetcher, tmp_path: Path, in_memory: bool
) -> None:
    identity = make_identity(tmp_path)
    tls = make_tls(tmp_path / "tls", client=identity.certificate_path)
    access = replace(ACCESS, ca_path=str(tls.authority))
    if in_memory:
        access = replace(access, client_pem=identity.pem)
    else:
        access = replace(
            access,
            client_cert_path=str(identity.certificate_path),
            client_key_path=str(identity.key_path),
        )
    async with serving(answer(200, b"x"), tls=tls.context) as server:
        response = await fetcher.fetch(get(server.url, access))
    assert response.body == b"x"
    assert response.trusted is False  # said of answers of failure only


def refuse_one_client(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Shake hands with a client that lacks a certificate, and say so in an alert."""
    connection, _ = listener.accept()
    tls = context.wrap_socket(
        connection, server_side=True, do_handshake_on_connect=False
    )
    with tls:
        with contextlib.suppress(ssl.SSLError):
            tls.do_handshake()
        # Closed with bytes unread, the alert might be lost to a reset.
        with contextlib.suppress(ConnectionError):
            while os.read(tls.fileno(), 4096):
                pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_told_from_a_lost_connection(
    fetcher: Fetcher, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    identity = make_identity(tmp_path)
    tls = make_tls(tmp_path / "tls", client=identity.certificate_path)
    tls.context.maximum_version = version
    access = replace(ACCESS, ca_path=str(tls.authority))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                trio.to_thread.run_sync, refuse_one_client, listener, tls.context
            )
            with pytest.raises(TlsError) as caught:
                await fetcher.fetch(get(url, access))
    assert "client certificate" in caught.value.hint


async def test_nginx_that_misses_a_client_certificate_is_understood(
    fetcher: Fetcher, nginx: StartNginx, tmp_path: Path
) -> None:
    identity = make_identity(tmp_path)
    server = nginx(
        tmp_path,
        tls=True,
        extra="ssl_verify_client on;"
        f"ssl_client_certificate {identity.certificate_path};",
    )
    assert server.certificates is not None
    access = replace(ACCESS, ca_path=str(server.certificates.authority))
    response = await fetcher.fetch(get(f"{server.url}/client.pem", access))
    with pytest.raises(CredentialsError) as caught:
        response.check()
    assert "client_auth.p12" in caught.value.hint
    known = replace(access, client_pem=identity.pem)
    response = await fetcher.fetch(get(f"{server.url}/client.pem", known))
    assert response.body == identity.certificate_path.read_bytes()


async def test_many_requests_share_one_connection_where_the_server_talks_http2(
    fetcher: Fetcher, nginx: StartNginx, tmp_path: Path
) -> None:
    for number in range(40):
        (tmp_path / str(number)).write_bytes(os.urandom(1000))
    server = nginx(
        tmp_path,
        tls=True,
        http2=True,
        extra="add_header X-Version $server_protocol;"
        "add_header X-Connection $connection;",
    )
    assert server.certificates is not None
    access = replace(ACCESS, ca_path=str(server.certificates.authority))
    inbox = fetcher.inbox()
    for number in range(40):
        inbox.start(get(f"{server.url}/{number}", access))
    responses: list[Response] = []
    while len(responses) < 40:
        for event in await inbox.next_events():
            assert isinstance(event, Done)
            responses.append(event.response)
    assert {len(response.body) for response in responses} == {1000}
    assert {response.headers["x-version"] for response in responses} == {"HTTP/2.0"}
    assert len({response.headers["x-connection"] for response in responses}) == 1


def test_the_authorities_of_the_system_are_found_where_distributions_keep_them() -> (
    None
):
    def found(*there: str, **environment: str) -> tuple[str | None, str | None]:
        return system_authorities(environment, lambda path: path in there)

    debian = "/etc/ssl/certs/ca-certificates.crt"
    fedora = "/etc/pki/tls/certs/ca-bundle.crt"
    assert found(debian, "/etc/ssl/certs") == (debian, None)
    assert found(fedora) == (fedora, None)
    assert found("/etc/ssl/certs") == (None, "/etc/ssl/certs")
    assert found() == (None, None)
    assert found(debian, SSL_CERT_FILE="/mine.pem") == ("/mine.pem", None)
    assert found(debian, CURL_CA_BUNDLE="/mine.pem") == ("/mine.pem", None)
    assert found(debian, SSL_CERT_DIR="/mine") == (None, "/mine")


@pytest.mark.parametrize("directory", [True, False])
async def test_a_directory_of_authorities_and_none_at_all_are_understood(
    fetcher: Fetcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: bool,
) -> None:
    for variable in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path) if directory else "")
    tls = make_tls(tmp_path / "tls")
    async with serving(answer(200, b"x"), tls=tls.context) as server:
        with pytest.raises(TlsError):
            await fetcher.fetch(get(server.url, ACCESS))
