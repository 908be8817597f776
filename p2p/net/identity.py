"""Who this device is to its neighbours: its key, certificate and membership.

A device is named by its device id, the SHA-256 of its DER SubjectPublicKeyInfo: the
same for every kind of key, and what stays when a certificate is renewed for the key.
In open membership the device makes its own Ed25519 key and certificate and keeps
both in one file, so that a power cut leaves all or nothing. In a fleet all three
files are the operator's, and the open authority is never loaded. The key a device
has for TreeHub or aktualizr is not used here: a key has one purpose.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from p2p.errors import ConfigError, FormatError
from p2p.net.issue import issue_device
from p2p.net.x509 import Certificate, parse_certificate
from p2p.ostree.disk import write_file
from p2p.wire.messages import DeviceId

DEVICE_FILE: Final = "device-1.pem"
"""Key and certificate of open membership; the number is the authority's."""
MAX_FILE_BYTES: Final = 1 << 20
_DAMAGED: Final = ".damaged"
_END = "-----END CERTIFICATE-----"

OPEN_AUTHORITY: Final = """\
-----BEGIN CERTIFICATE-----
MIIBJDCB16ADAgECAgEBMAUGAytlcDAnMSUwIwYDVQQDDBxvc3RyZWUtcDJwIG9w
ZW4gbWVtYmVyc2hpcCAxMCAXDTcwMDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5
WjAnMSUwIwYDVQQDDBxvc3RyZWUtcDJwIG9wZW4gbWVtYmVyc2hpcCAxMCowBQYD
K2VwAyEAFp8zABKmtqcjMG2CTigNG3wCWPfMhThZp9kwddz1CVmjJjAkMBIGA1Ud
EwEB/wQIMAYBAf8CAQAwDgYDVR0PAQH/BAQDAgIEMAUGAytlcANBAAVcSBSUQVyA
34kaeRzEHypJ9gOo52kgRGfjv+IXZXV1QKhPdsVm7rRHw1/TFDetRg/FaFsDTZ1j
sGt9p37JNQY=
-----END CERTIFICATE-----
"""
"""What `p2p.net.issue.issue_authority` returns; here to be copied and compared."""


class Membership(StrEnum):
    """Who may be a neighbour: everybody, or the holders of a fleet's certificates."""

    OPEN = "open"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True)
class Identity:
    """This device towards its neighbours.

    Attributes:
        membership: whom it talks to.
        authority: certificates that sign the members', as PEM.
        certificate_file: path of its certificate, and of those between it and the
            authority, as PEM.
        key_file: path of its private key as PEM, not encrypted.
        certificate: what its certificate says.
        replaced: why a new key had to be made though there was one; else "".

    """

    membership: Membership
    authority: str
    certificate_file: str
    key_file: str
    certificate: Certificate
    replaced: str = ""

    @property
    def device_id(self) -> DeviceId:
        """What neighbours know this device by."""
        return self.certificate.device_id


def open_identity(directory: str) -> Identity:
    """Return the identity of open membership kept in a state directory.

    Made on first use, also when several processes come at once. A damaged file is
    set aside as `*.damaged` and a new key made, because a device that refused to
    start would cost more than its name; `Identity.replaced` says so.

    Raises:
        ConfigError: the directory cannot be written or read.

    """
    path = os.path.join(directory, DEVICE_FILE)
    with _disk(path):
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory) or ".", exist_ok=True)
            os.makedirs(directory, mode=0o700, exist_ok=True)
        with _locked(directory):
            replaced = ""
            if os.path.exists(path):
                try:
                    return _device(path, replaced)
                except (FormatError, ConfigError) as error:
                    replaced = str(error)
                    os.rename(path, path + _DAMAGED)
            write_file(path, issue_device(), fsync=True, mode=0o600)
            return _device(path, replaced)


def fleet_identity(*, authority: str, certificate: str, key: str) -> Identity:
    """Return the identity of a fleet's device from the paths of three PEM files.

    Args:
        authority: certificates of the fleet's authority, one or more.
        certificate: the device's, then those between it and the authority.
        key: its private key, of any kind that TLS 1.3 knows (Ed25519, EC, RSA); may
            be the same file.

    Raises:
        ConfigError: a file is missing or unreadable, or holds something else.

    """
    with _disk(authority):
        trusted = _read(authority)
    if _END not in trusted:
        raise ConfigError(authority, "it holds no certificate in PEM form")
    return Identity(
        membership=Membership.FLEET,
        authority=trusted,
        certificate_file=certificate,
        key_file=key,
        certificate=read_certificate(certificate, key),
    )


def load_chain(context: ssl.SSLContext, certificate_file: str, key_file: str) -> None:
    """Give a context this device's certificate and key; ConfigError if they do not do.

    An encrypted key is refused: nobody is there to type a password.
    """

    def refuse() -> NoReturn:
        raise ConfigError(
            key_file, "the key is encrypted", hint="Store the key without a password."
        )

    try:
        with _disk(certificate_file):
            context.load_cert_chain(certificate_file, key_file, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"it is not the key of {certificate_file}"
        else:
            what = f"no certificate and key in PEM form: {error.reason or error}"
        raise ConfigError(key_file, what) from error


def _device(path: str, replaced: str) -> Identity:
    """Read the file of open membership."""
    os.chmod(path, 0o600)
    return Identity(
        membership=Membership.OPEN,
        authority=OPEN_AUTHORITY,
        certificate_file=path,
        key_file=path,
        certificate=read_certificate(path, path),
        replaced=replaced,
    )


def read_certificate(certificate_file: str, key_file: str) -> Certificate:
    """Return what the first certificate of a file says, once it fits its key.

    Raises:
        ConfigError: a file is missing or unreadable, or holds something else.

    """
    load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate_file, key_file)
    with _disk(certificate_file):
        text = _read(certificate_file)
    begin = text.index("-----BEGIN CERTIFICATE-----")
    end = text.index(_END, begin) + len(_END)
    try:
        return parse_certificate(ssl.PEM_cert_to_DER_cert(text[begin:end]))
    except FormatError as error:
        raise ConfigError(certificate_file, str(error)) from error


def read_pem(path: str) -> str:
    """Return a file of PEM blocks; ConfigError if it cannot be read."""
    with _disk(path):
        return _read(path)


def _read(path: str) -> str:
    """Return a small file of PEM blocks; what stands between them may be anything."""
    with open(path, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(path, f"it is larger than {MAX_FILE_BYTES} bytes")
    return data.decode("ascii", "replace")


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _disk(path: str) -> Iterator[None]:
    """Turn what the disk says in the block into a ConfigError that names the file."""
    try:
        yield
    except ssl.SSLError:
        raise  # an OSError by inheritance only
    except OSError as error:
        raise ConfigError(
            error.filename or path, error.strerror or str(error)
        ) from error
