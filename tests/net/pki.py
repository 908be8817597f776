"""A fleet's certificates, made for a test as an operator's PKI would make them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2p.net.identity import Identity, fleet_identity
from p2p.trust.policy import Clock

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2040, 1, 1, tzinfo=UTC)
BOTH_ENDS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class Options(TypedDict, total=False):
    """What may be unusual about a certificate."""

    begin: datetime
    end: datetime
    usages: tuple[x509.ObjectIdentifier, ...]


def right_clock() -> Clock:
    return Clock(now=NOW.timestamp(), trusted=True)


def make_key(kind: str = "ec") -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Works"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Key, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@dataclass
class Authority:
    """A certificate authority that writes what it issues into a directory."""

    directory: Path
    name: str = "Example Works devices"
    key: Key = field(default_factory=make_key)
    parent: "Authority | None" = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_named(self.name))
            .issuer_name((self.parent or self).issuer_name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(LONG_AGO)
            .not_valid_after(FAR_AHEAD)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign((self.parent or self).key, _hash((self.parent or self).key))
        )
        self.file.write_bytes(_pem(self.certificate))

    @property
    def issuer_name(self) -> x509.Name:
        return _named(self.name)

    @property
    def file(self) -> Path:
        return self.directory / f"{self.name}.ca.pem"

    def sign(self, name: str, key: Key, **options: Unpack[Options]) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(self.issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(options.get("begin", LONG_AGO))
            .not_valid_after(options.get("end", FAR_AHEAD))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        )
        usages = options.get("usages", BOTH_ENDS)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        return builder.sign(self.key, _hash(self.key))

    def write(
        self, name: str, key: Key | None = None, **options: Unpack[Options]
    ) -> tuple[Path, Path]:
        """Issue a device's certificate; the paths of it and its key."""
        key = key or make_key()
        certificate = self.sign(name, key, **options)
        chain = self.directory / f"{name}.pem"
        middle = _pem(self.certificate) if self.parent else b""
        chain.write_bytes(_pem(certificate) + middle)
        secret = self.directory / f"{name}.key"
        secret.write_bytes(key_pem(key))
        return chain, secret

    def device(
        self, name: str, key: Key | None = None, **options: Unpack[Options]
    ) -> Identity:
        """Issue a device's certificate and load it as that device would."""
        chain, secret = self.write(name, key, **options)
        root = self
        while root.parent:
            root = root.parent
        return fleet_identity(
            authority=str(root.file), certificate=str(chain), key=str(secret)
        )


def _hash(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
