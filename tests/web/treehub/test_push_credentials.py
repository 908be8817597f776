"""Pushes with the credential files of TreeHub's own tools, against real checks."""

import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    NoEncryption,
    load_pem_private_key,
    pkcs12,
)

from p2p.errors import CredentialsError, TransportError
from p2p.ostree.refs import head
from p2p.web.client.credentials import load_credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.request import Access
from p2p.web.server.exchange import Request, Response, as_json
from p2p.web.server.guard import Guard, server_context
from p2p.web.treehub.client import PUSH_LIMITS, TreeHubClient
from p2p.web.treehub.push import PushRequest, PushResult, push
from tests.servers import Certificates, make_certificates
from tests.web.server.talk import serving
from tests.web.treehub.hub import make_repo, treehub
from tests.web.treehub.pushing import EAGER, FIRST


class TokenServer:
    """An OAuth2 token endpoint (RFC 6749, 4.4) whose tokens a guard can know."""

    def __init__(self) -> None:
        self.issued = 0
        self.scopes: list[str] = []

    async def __call__(self, request: Request) -> Response:
        form = parse_qs((await request.read(1000)).decode())
        client = request.headers.get("authorization")
        if client != "Basic Y2xpZW50OnNlY3JldA==":
            return as_json(401, {"error": "invalid_client"})
        if form["grant_type"] != ["client_credentials"] or request.path != "/token":
            return as_json(400, {"error": "unsupported_grant_type"})
        self.scopes += form.get("scope", [])
        self.issued += 1
        token = {"access_token": f"token{self.issued}", "token_type": "bearer"}
        return as_json(200, token | {"expires_in": 3600})


def write_zip(path: Path, treehub_json: dict[str, Any], **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("treehub.json", json.dumps(treehub_json))
        for name, data in members.items():
            archive.writestr(name.replace("_p12", ".p12"), data)
    return path


async def go(
    tmp_path: Path, credentials: Path, *, access: Access | None = None
) -> PushResult:
    loaded = load_credentials(credentials)
    assert loaded.url is not None
    async with Fetcher(PUSH_LIMITS) as fetcher:
        client = TreeHubClient(
            fetcher,
            loaded.url,
            credentials=loaded,
            access=access or Access(),
            retry=EAGER,
        )
        local = make_repo(tmp_path / "local", FIRST)
        return await push(local, client, PushRequest(ref="main"))


def oauth2(server: str, **more: str) -> dict[str, str]:
    secret = {"client_secret": "secret"}
    return {"server": server, "client_id": "client", "scope": "write"} | secret | more


async def test_credentials_zip_with_oauth2_pushes_with_a_token(tmp_path: Path) -> None:
    tokens = TokenServer()
    known = ("Bearer token1",)
    async with (
        serving(tokens) as server,
        treehub(tmp_path / "store", credentials=known) as hub,
    ):
        issuer = f"http://127.0.0.1:{server.port}"
        ostree = {"server": f"{hub.url}/api/v3"}
        content = {"oauth2": oauth2(f"{issuer}/token"), "ostree": ostree}
        path = write_zip(tmp_path / "credentials.zip", content)
        result = await go(tmp_path, path)
        assert result.sent_objects == len(FIRST.stored)
        assert (tokens.issued, tokens.scopes) == (1, ["write"])
        wrong = {"oauth2": oauth2(issuer, client_id="guest"), "ostree": ostree}
        path = write_zip(tmp_path / "wrong.zip", wrong)
        with pytest.raises(CredentialsError):
            await go(tmp_path, path)


async def test_a_token_that_expires_during_the_push_is_renewed(tmp_path: Path) -> None:
    tokens = TokenServer()
    async with serving(tokens) as issuer, treehub(tmp_path / "store") as hub:
        asked = 0

        async def forward(request: Request) -> Response:
            nonlocal asked
            asked += 1
            body = await request.read(1 << 22)
            method, target = request.method, request.path
            answer = await hub.ask(method, target, body=body or None)
            length = int(answer.headers.get("content-length", 0))
            return Response(answer.status, (), answer.body, length=length)

        async def gate(request: Request) -> Response:
            known = "Bearer token1" if asked < 40 else "Bearer token2"
            return await Guard(forward, (known,))(request)

        async with serving(gate) as front:
            content = {
                "oauth2": oauth2(f"http://127.0.0.1:{issuer.port}"),
                "ostree": {"server": f"http://127.0.0.1:{front.port}"},
            }
            path = write_zip(tmp_path / "credentials.zip", content)
            result = await go(tmp_path, path)
        assert result.sent_objects == len(FIRST.stored)
        assert (tokens.issued, tokens.scopes) == (2, [])
        assert hub.repo.refs.get(head("main")) == FIRST.commit


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def client_p12(files: Certificates) -> bytes:
    """`client_auth.p12`, under an empty password as the tools write it."""
    key = load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return pkcs12.serialize_key_and_certificates(
        b"client",
        key,
        certificate,
        None,
        NoEncryption(),
    )


async def test_credentials_zip_with_a_client_certificate_pushes(
    tmp_path: Path, files: Certificates
) -> None:
    tls = server_context(files.certificate, files.key, client_ca=files.authority)
    access = Access(ca_path=str(files.authority))
    async with treehub(tmp_path / "store", tls=tls) as hub:
        content = {"ostree": {"server": f"https://localhost:{hub.port}/api/v3"}}
        path = write_zip(
            tmp_path / "credentials.zip", content, client_auth_p12=client_p12(files)
        )
        result = await go(tmp_path, path, access=access)
        assert result.sent_objects == len(FIRST.stored)
        bare = write_zip(tmp_path / "bare.zip", content)
        with pytest.raises((TransportError, CredentialsError)):
            await go(tmp_path, bare, access=access)
