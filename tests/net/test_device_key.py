"""The key a device signs with is the one that it is named by."""

from dataclasses import replace
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from p2p.errors import ConfigError
from p2p.net.device_key import decode_public_key, encode_public_key, load_device_key
from p2p.net.identity import open_identity
from p2p.net.x509 import device_id_of


def test_the_key_of_open_membership_is_that_of_its_certificate(tmp_path: Path) -> None:
    identity = open_identity(str(tmp_path))
    key = load_device_key(identity)
    assert key is not None
    public = encode_public_key(key.verify_key)
    assert device_id_of(public) == identity.device_id
    assert decode_public_key(public) == key.verify_key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMDAwMDAw\n-----END PRIVATE KEY-----\n",
    ],
)
def test_another_kind_of_key_signs_nothing(tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(key)
    identity = open_identity(str(tmp_path))
    other = replace(identity, key_file=str(tmp_path / "key"))
    assert load_device_key(other) is None


def test_a_key_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    identity = open_identity(str(tmp_path))
    with pytest.raises(ConfigError):
        load_device_key(replace(identity, key_file=str(tmp_path / "none")))


def test_what_is_no_ed25519_key_is_none() -> None:
    public = encode_public_key(SigningKey.generate().verify_key)
    for wrong in (b"", public[:-1], public + b"\0", b"\0" + public[1:]):
        assert decode_public_key(wrong) is None
