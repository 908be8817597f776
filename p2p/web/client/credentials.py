"""Reads `treehub.json` and `credentials.zip`, as the garage tools of TreeHub take them.

`credentials.zip` holds `treehub.json` and perhaps `client_auth.p12` (a TLS client
certificate under an empty password). Which way to authenticate is chosen in the
order of those tools: client certificate, OAuth2, basic, none.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p.errors import ConfigError
from p2p.web.url import server_of

MAX_FILE_BYTES = 4 << 20
MAX_MEMBER_BYTES = 256 << 10
_ZIP_MAGIC = b"PK\x03\x04"
_JSON = "treehub.json"
_P12 = "client_auth.p12"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2Client:
    """OAuth2 client credentials (RFC 6749, 4.4); `scope` is sent if it is not empty."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicUser:
    """User and password of HTTP's Basic scheme."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to reach and convince an origin.

    `url` is the repository's, None if the file names none. At most one of the others
    is set; `client_pem` is a certificate and its key.
    """

    url: str | None = None
    oauth2: OAuth2Client | None = None
    basic: BasicUser | None = None
    client_pem: bytes | None = field(default=None, repr=False)

    @property
    def needed(self) -> bool:
        """Tell whether the origin is not open to everyone."""
        return bool(self.oauth2 or self.basic or self.client_pem)


def load_credentials(path: Path) -> Credentials:
    """Return what a `credentials.zip` or `treehub.json` says.

    Raises ConfigError, which names the file, the member and the key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error)) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(str(path), f"larger than {MAX_FILE_BYTES} bytes")
    if not data.startswith(_ZIP_MAGIC):
        return _parse(data, str(path))
    members = _read_zip(data, str(path))
    where = f"{path}: {_JSON}"
    if _JSON not in members:
        raise ConfigError(where, "is not in the archive")
    found = _parse(members[_JSON], where)
    if _P12 not in members:
        return found
    pem = _read_p12(members[_P12], f"{path}: {_P12}")
    return Credentials(url=found.url, client_pem=pem)


# -- credentials.zip ---------------------------------------------------------------


def _read_zip(data: bytes, where: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                info.filename: _read_member(archive, info, where)
                for info in archive.infolist()
                if info.filename in (_JSON, _P12)
            }
    # What zipfile raises for an encrypted member is a RuntimeError, and for a kind of
    # compression that it does not know one of its subclasses.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ConfigError(where, f"is not a readable zip archive: {error}") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    # Not by `info.file_size`: the archive may lie about it.
    with archive.open(info) as member:
        data = member.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise ConfigError(
            f"{where}: {info.filename}", f"larger than {MAX_MEMBER_BYTES} bytes"
        )
    return data


def _read_p12(data: bytes, where: str) -> bytes:
    # 8 MB of memory and 100 ms, so only here.
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - large, see above
        Encoding,
        NoEncryption,
        PrivateFormat,
        pkcs12,
    )

    key = certificate = None
    problem = "holds no certificate with a private key"
    # Tools disagree on whether "no password" is an empty one.
    for password in (b"", None):
        try:
            key, certificate, chain = pkcs12.load_key_and_certificates(data, password)
        except ValueError as error:
            problem = f"cannot be read with an empty password: {error}"
            continue
        if key is not None and certificate is not None:
            certificates = [certificate, *chain]
            return b"".join(c.public_bytes(Encoding.PEM) for c in certificates) + (
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
    raise ConfigError(where, problem)


# -- treehub.json --------------------------------------------------------------------


def _parse(data: bytes, where: str) -> Credentials:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError(
            where,
            "is neither a zip archive nor JSON",
            hint="Give the credentials.zip or treehub.json that the server's "
            "operator hands out.",
        ) from None
    if not isinstance(fields, dict):
        raise ConfigError(where, "is not a JSON object")
    url = _string(_section(fields, "ostree", where), "server", where)
    if url is not None:
        _check_url(url, f"{where}: ostree.server")
        url = url.rstrip("/")
    oauth2 = _parse_oauth2(_section(fields, "oauth2", where), where)
    if oauth2 is not None:
        return Credentials(url=url, oauth2=oauth2)
    return Credentials(
        url=url, basic=_parse_basic(_section(fields, "basic_auth", where), where)
    )


def _parse_oauth2(fields: dict[str, Any], where: str) -> OAuth2Client | None:
    client_id = _string(fields, "client_id", where)
    if not client_id:  # empty: the garage tools authenticate nowhere then
        return None
    server = _string(fields, "server", where)
    secret = _string(fields, "client_secret", where)
    if server is None or secret is None:
        raise ConfigError(f"{where}: oauth2", "lacks server or client_secret")
    _check_url(server, f"{where}: oauth2.server")
    # A scope goes only with a server that is the token's own URL.
    if server.endswith("/token"):
        scope = _string(fields, "scope", where) or ""
    else:
        server, scope = server.rstrip("/") + "/token", ""
    return OAuth2Client(
        token_url=server, client_id=client_id, client_secret=secret, scope=scope
    )


def _parse_basic(fields: dict[str, Any], where: str) -> BasicUser | None:
    user = _string(fields, "user", where)
    if user is None:
        return None
    password = _string(fields, "password", where)
    if password is None:
        raise ConfigError(f"{where}: basic_auth", "lacks password")
    return BasicUser(user=user, password=password)


def _section(fields: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    section = fields.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: {name}", "is not an object")
    return section


def _string(fields: dict[str, Any], name: str, where: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: {name}", "is not a string")
    return value


def _check_url(url: str, where: str) -> None:
    try:
        server_of(url)
    except ConfigError as error:
        raise ConfigError(where, str(error)) from None
