"""Passwords, tokens and TLS in front of a server."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from p2p.errors import ConfigError
from p2p.web.server.exchange import RefusedError, Request
from p2p.web.server.guard import Guard, load_credentials, server_context
from p2p.web.server.limits import Limits
from tests.servers import Certificates, make_certificates
from tests.web.server.talk import GET, Running, Talk, echo, serving

CREDENTIALS = ("Basic dXNlcjpwYXNz", "Bearer t0ken")
GUARD = Guard(echo, CREDENTIALS, open_paths=frozenset({"/health"}))


async def ask(authorization: str | None, path: str = "/x") -> int:
    headers = {} if authorization is None else {"authorization": authorization}
    return (await GUARD(Request("GET", path, headers=headers))).status


@pytest.mark.parametrize(
    "value", ["Basic dXNlcjpwYXNz", "basic  dXNlcjpwYXNz", "Bearer t0ken"]
)
async def test_known_credentials_come_in(value: str) -> None:
    assert await ask(value) == 200


@pytest.mark.parametrize(
    "value",
    [None, "", "Basic", "Basic t0ken", "Bearer dXNlcjpwYXNz", "Bearer t0ken2", "é x"],
)
async def test_others_are_told_what_is_wanted(value: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        await ask(value)
    assert caught.value.status == 401
    challenge = dict(caught.value.headers)["WWW-Authenticate"]
    assert challenge == 'Basic realm="treehub", Bearer realm="treehub"'
    assert await ask(value, "/health") == 200


def test_a_file_of_credentials_is_read(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("# people\nbasic user:pass\n\n  bearer t0ken \nbasic ü:a:b\n")
    assert load_credentials(str(path)) == (*CREDENTIALS, "Basic w7w6YTpi")


@pytest.mark.parametrize(
    "content,complaint",
    [
        (b"basic user", ":1: is not understood"),
        (b"basic a:b\nbearer\n", ":2: is not understood"),
        (b"password\n", ":1: is not understood"),
        (b"# nobody\n", "holds no credentials"),
        (b"\xff\n", "decode"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "credentials"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        load_credentials(str(path))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match="/nowhere: No such file"):
        load_credentials("/nowhere")


# -- TLS -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def connected(
    server: Running, files: Certificates, *, identified: bool = False
) -> AsyncIterator[Talk]:
    context = ssl.create_default_context(cafile=files.authority)
    if identified:
        context.load_cert_chain(files.certificate, files.key)
    stream = trio.SSLStream(
        await server.connect(),
        context,
        server_hostname="localhost",
        https_compatible=True,
    )
    async with stream:
        yield Talk(stream)


async def test_requests_work_over_tls(files: Certificates) -> None:
    tls = server_context(files.certificate, files.key)
    big = b"x" * 3_000_000
    async with serving(echo, tls=tls) as server:
        async with connected(server, files) as talk:
            assert (await talk.ask("GET", "/a")).body == b"GET|/a||"
            assert (await talk.ask("POST", "/a", body=big[:999_999])).status == 200
            assert (await talk.ask("GET", "/a")).status == 200
        async with connected(server, files) as talk:
            # Not wanted, so the connection ends, but the answer arrives.
            assert (await talk.ask("POST", "/a", body=big)).status == 413
            assert await talk.is_closed()


async def test_a_client_certificate_is_demanded(files: Certificates) -> None:
    tls = server_context(files.certificate, files.key, client_ca=files.authority)
    async with serving(echo, tls=tls) as server:
        async with connected(server, files, identified=True) as talk:
            assert (await talk.ask("GET", "/")).status == 200
        with pytest.raises((trio.BrokenResourceError, h11.RemoteProtocolError)):
            async with connected(server, files) as talk:
                await talk.ask("GET", "/")


async def test_who_does_not_shake_hands_is_cut_off(files: Certificates) -> None:
    tls = server_context(files.certificate, files.key)
    limits = Limits(head_seconds=0.1)
    async with serving(echo, tls=tls, limits=limits) as server:
        assert b"HTTP" not in await server.raw(GET)
        async with await server.connect() as stream:
            assert await stream.receive_some(100) == b""


def test_unusable_tls_files_are_named(files: Certificates, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/nowhere"):
        server_context("/nowhere", files.key)
    with pytest.raises(ConfigError, match=r"server\.key"):
        server_context(files.authority, files.key)
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="empty"):
        server_context(files.certificate, files.key, client_ca=tmp_path / "empty")


def test_an_encrypted_key_is_refused_without_a_question(
    files: Certificates, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="encrypted"):
        server_context(files.certificate, key)
