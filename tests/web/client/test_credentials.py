"""treehub.json and credentials.zip: good, broken and hostile."""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    KeySerializationEncryption,
    NoEncryption,
    pkcs12,
)

from p2p.errors import ConfigError
from p2p.web.client.credentials import (
    MAX_FILE_BYTES,
    MAX_MEMBER_BYTES,
    Credentials,
    load_credentials,
)
from tests.web.client.servers import Identity, make_identity

SERVER = {"server": "https://treehub.example/api/v3/"}
OAUTH2 = {
    "server": "https://auth.example/oauth2",
    "client_id": "me",
    "client_secret": "secret",
    "scope": "a b",
}


def load(tmp_path: Path, content: bytes | dict[str, Any]) -> Credentials:
    path = tmp_path / "credentials"
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )
    return load_credentials(path)


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


def p12(identity: Identity, encryption: KeySerializationEncryption) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"device", identity.key, identity.certificate, None, encryption
    )


# -- treehub.json --------------------------------------------------------------------


def test_an_open_origin_needs_only_its_url(tmp_path: Path) -> None:
    found = load(tmp_path, {"ostree": SERVER})
    assert found == Credentials(url="https://treehub.example/api/v3")
    assert not found.needed


def test_oauth2_gets_its_token_below_the_servers_url(tmp_path: Path) -> None:
    found = load(tmp_path, {"ostree": SERVER, "oauth2": OAUTH2})
    assert found.needed
    assert found.oauth2 is not None
    url = "https://auth.example/oauth2/token"
    assert found.oauth2.token_url == url
    assert found.oauth2.scope == ""
    assert (found.oauth2.client_id, found.oauth2.client_secret) == ("me", "secret")


def test_oauth2_whose_server_is_the_tokens_url_sends_the_scope(tmp_path: Path) -> None:
    url = "https://auth.example/token"
    fields = {**OAUTH2, "server": url}
    found = load(tmp_path, {"ostree": SERVER, "oauth2": fields})
    assert found.oauth2 is not None
    assert found.oauth2.token_url == url
    assert found.oauth2.scope == "a b"


def test_basic_is_used_where_there_is_no_oauth2(tmp_path: Path) -> None:
    basic = {"user": "me", "password": "secret"}
    found = load(tmp_path, {"ostree": SERVER, "basic_auth": basic})
    assert found.needed
    assert found.basic is not None
    assert (found.basic.user, found.basic.password) == ("me", "secret")
    both = load(tmp_path, {"ostree": SERVER, "basic_auth": basic, "oauth2": OAUTH2})
    assert both.basic is None
    assert both.oauth2 is not None


def test_an_empty_client_id_means_no_oauth2(tmp_path: Path) -> None:
    found = load(tmp_path, {"ostree": SERVER, "oauth2": {**OAUTH2, "client_id": ""}})
    assert not found.needed


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    assert "secret" not in repr(load(tmp_path, {"oauth2": OAUTH2}))
    basic = {"user": "me", "password": "secret"}
    assert "secret" not in repr(load(tmp_path, {"basic_auth": basic}))


@pytest.mark.parametrize(
    "content, where",
    [
        (b"", "credentials"),
        (b"not json", "credentials"),
        (b"[" * 100_000, "credentials"),
        (b"[]", "credentials"),
        (b'"\\ud800', "credentials"),
        ({"ostree": []}, "credentials: ostree"),
        ({"ostree": {"server": 1}}, "credentials: server"),
        ({"ostree": {"server": "treehub"}}, "credentials: ostree.server"),
        ({"oauth2": {"client_id": "x"}}, "credentials: oauth2"),
        ({"oauth2": {**OAUTH2, "server": "x"}}, "credentials: oauth2.server"),
        ({"oauth2": {**OAUTH2, "client_id": 5}}, "credentials: client_id"),
        ({"basic_auth": {"user": "x"}}, "credentials: basic_auth"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(
    tmp_path: Path, content: bytes | dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert caught.value.where == str(tmp_path / where)


def test_a_file_that_is_not_there_or_huge_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_credentials(tmp_path / "absent")
    (tmp_path / "huge").write_bytes(bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load_credentials(tmp_path / "huge")


# -- credentials.zip -------------------------------------------------------------------


def test_an_archive_holds_treehub_json(tmp_path: Path) -> None:
    data = json.dumps({"ostree": SERVER, "oauth2": OAUTH2}).encode()
    found = load(tmp_path, archive({"treehub.json": data, "tufrepo.url": b"x"}))
    assert found.url == "https://treehub.example/api/v3"
    assert found.oauth2 is not None


def test_a_client_certificate_goes_before_all_else(tmp_path: Path) -> None:
    identity = make_identity(tmp_path)
    members = {
        "treehub.json": json.dumps({"ostree": SERVER, "oauth2": OAUTH2}).encode(),
        "client_auth.p12": p12(identity, NoEncryption()),
    }
    found = load(tmp_path, archive(members))
    assert found.needed
    assert found.oauth2 is None
    assert found.client_pem is not None
    assert found.client_pem.startswith(identity.certificate_path.read_bytes())
    assert b"BEGIN PRIVATE KEY" in found.client_pem
    assert "PRIVATE" not in repr(found)


def encrypted(data: bytes) -> bytes:
    """Set the flag of an encrypted member in both of a zip's headers."""
    broken = bytearray(data)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = broken.index(magic) + offset
        struct.pack_into("<H", broken, at, 1)
    return bytes(broken)


GOOD = archive({"treehub.json": b"{}"})


@pytest.mark.parametrize(
    "content, reason",
    [
        (archive({"other": b"{}"}), "not in the archive"),
        (GOOD[:-10], "not a readable zip"),
        (GOOD[:40] + bytes(20) + GOOD[60:], "not a readable zip"),
        (encrypted(GOOD), "not a readable zip"),
        (archive({"treehub.json": bytes(MAX_MEMBER_BYTES + 1)}), "larger than"),
        (archive({"treehub.json": b"nonsense"}), "neither"),
        (
            archive({"treehub.json": b"{}", "client_auth.p12": b"nonsense"}),
            "client_auth.p12: cannot be read",
        ),
    ],
)
def test_a_broken_archive_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path, content)


def test_an_archive_that_lies_about_sizes_is_inflated_no_further(
    tmp_path: Path,
) -> None:
    bomb = archive({"treehub.json": bytes(64 << 20)})
    assert len(bomb) < MAX_FILE_BYTES
    # The central directory claims 10 bytes for what inflates to 64 MiB.
    central = bomb.index(b"PK\x01\x02")
    lying = bytearray(bomb)
    struct.pack_into("<I", lying, central + 24, 10)
    for content in (bomb, bytes(lying)):
        with pytest.raises(ConfigError):
            load(tmp_path, content)


def test_a_client_certificate_under_another_password_is_refused(
    tmp_path: Path,
) -> None:
    data = p12(make_identity(tmp_path), BestAvailableEncryption(b"other"))
    with pytest.raises(ConfigError, match="empty password"):
        load(tmp_path, archive({"treehub.json": b"{}", "client_auth.p12": data}))


def test_a_client_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    identity = make_identity(tmp_path)
    data = pkcs12.serialize_key_and_certificates(
        b"device", None, identity.certificate, None, NoEncryption()
    )
    with pytest.raises(ConfigError, match="no certificate with a private key"):
        load(tmp_path, archive({"treehub.json": b"{}", "client_auth.p12": data}))
