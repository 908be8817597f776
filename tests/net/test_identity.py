import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from p2p.errors import ConfigError
from p2p.net.identity import (
    DEVICE_FILE,
    MAX_FILE_BYTES,
    OPEN_AUTHORITY,
    Identity,
    Membership,
    fleet_identity,
    open_identity,
)
from p2p.net.issue import issue_authority, issue_device
from tests.net.pki import BOTH_ENDS, Authority, key_pem, make_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_device_keeps_its_identity(tmp_path: Path) -> None:
    state = tmp_path / "var" / "lib" / "p2p"
    first = open_identity(str(state))
    again = open_identity(str(state))
    assert first == again
    assert first.membership is Membership.OPEN
    assert len(first.device_id) == 64
    assert first.replaced == ""
    assert open_identity(str(tmp_path / "other")).device_id != first.device_id


def test_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    state = tmp_path / "state"
    old = os.umask(0)
    try:
        open_identity(str(state))
    finally:
        os.umask(old)
    assert mode(state) == 0o700
    assert mode(state / DEVICE_FILE) == 0o600
    (state / DEVICE_FILE).chmod(0o644)
    open_identity(str(state))
    assert mode(state / DEVICE_FILE) == 0o600


def test_nothing_else_is_left_in_the_state_directory(tmp_path: Path) -> None:
    open_identity(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [DEVICE_FILE]


def test_issued_certificates_say_nothing_about_the_device(tmp_path: Path) -> None:
    certificate = open_identity(str(tmp_path)).certificate
    assert certificate.name == "ostree-p2p device"
    assert (certificate.not_before, certificate.not_after) == (0, 253402300799)


def test_the_open_authority_is_what_its_phrase_makes() -> None:
    assert issue_authority().decode() == OPEN_AUTHORITY


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff" * 500,
        OPEN_AUTHORITY.encode(),
        issue_device()[:300],
        issue_device().partition(b"-----BEGIN CERT")[0],
        issue_device().partition(b"-----BEGIN CERT")[0] + OPEN_AUTHORITY.encode(),
    ],
    ids=["empty", "noise", "no key", "cut in the key", "no certificate", "mismatch"],
)
def test_a_damaged_key_is_set_aside_and_a_new_one_made(
    tmp_path: Path, damage: bytes
) -> None:
    path = tmp_path / DEVICE_FILE
    before = open_identity(str(tmp_path)).device_id
    path.write_bytes(damage)
    healed = open_identity(str(tmp_path))
    assert str(path) in healed.replaced
    assert healed.device_id != before
    assert path.with_name(DEVICE_FILE + ".damaged").read_bytes() == damage
    assert open_identity(str(tmp_path)).replaced == ""


def test_processes_that_come_at_once_get_one_identity(tmp_path: Path) -> None:
    program = (
        "import sys; from p2p.net.identity import open_identity; "
        "print(open_identity(sys.argv[1]).device_id)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "state")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    told = {process.communicate()[0] for process in running}
    assert len(told) == 1
    assert told == {open_identity(str(tmp_path / "state")).device_id + "\n"}


def test_what_is_issued_reads_the_same_to_another_library() -> None:
    pem = issue_device()
    certificate = x509.load_pem_x509_certificate(pem)
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    assert certificate.public_key() == key.public_key()
    authority = x509.load_pem_x509_certificate(OPEN_AUTHORITY.encode())
    certificate.verify_directly_issued_by(authority)
    known = {
        extension.value: extension.critical for extension in certificate.extensions
    }
    assert known[x509.BasicConstraints(ca=False, path_length=None)]
    assert not known[x509.ExtendedKeyUsage(BOTH_ENDS)]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    serials = {x509.load_pem_x509_certificate(issue_device()).serial_number}
    assert certificate.serial_number not in serials


def test_an_agent_never_loads_cryptography(tmp_path: Path) -> None:
    program = (
        "import sys; from p2p.net.identity import open_identity; "
        "import p2p.net.listener; open_identity(sys.argv[1]); "
        "print('cryptography' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.check_output(command, text=True) == "False\n"


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*(Not a directory|File exists)"):
        open_identity(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="file"):
        open_identity(str(tmp_path / "file" / "state"))


# -- fleets -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_fleet_brings_its_own_keys_of_any_kind(tmp_path: Path, kind: str) -> None:
    identity = Authority(tmp_path).device("robot-7", make_key(kind))
    assert identity.membership is Membership.FLEET
    assert identity.certificate.name == "robot-7"
    assert OPEN_AUTHORITY not in identity.authority


def test_key_and_certificate_may_share_a_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.write("robot-7")
    both = tmp_path / "both.pem"
    both.write_bytes(b"Subject: robot-7\n" + key.read_bytes() + chain.read_bytes())
    apart = _fleet(authority.file, chain, key)
    assert _fleet(authority.file, both, both).device_id == apart.device_id


def test_a_renewed_certificate_keeps_the_device_id(tmp_path: Path) -> None:
    authority, key = Authority(tmp_path), make_key()
    before = authority.device("robot-7", key)
    assert authority.device("robot-7", key).device_id == before.device_id


def _fleet(authority: Path, certificate: Path, key: Path) -> Identity:
    return fleet_identity(
        authority=str(authority), certificate=str(certificate), key=str(key)
    )


def test_files_that_do_not_do_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.write("robot-7")
    _, other = authority.write("robot-8")
    empty, big, locked = (tmp_path / name for name in ("empty", "big", "locked"))
    empty.write_text("")
    big.write_bytes(bytes(MAX_FILE_BYTES + 1))
    locked.write_bytes(key_pem(make_key(), b"password"))
    missing = tmp_path / "missing"
    for files, what in (
        ((missing, chain, key), "missing: No such file"),
        ((empty, chain, key), "empty: it holds no certificate"),
        ((big, chain, key), "big: it is larger than"),
        ((tmp_path, chain, key), "Is a directory"),
        ((authority.file, missing, key), "missing: No such file"),
        ((authority.file, empty, key), "no certificate and key in PEM form"),
        ((authority.file, chain, missing), "missing: No such file|No such file"),
        ((authority.file, chain, empty), "empty: no certificate and key"),
        ((authority.file, chain, other), r"robot-8\.key: it is not the key of"),
        ((authority.file, chain, locked), "locked: the key is encrypted"),
    ):
        with pytest.raises(ConfigError, match=what):
            _fleet(*files)


def test_a_certificate_that_openssl_reads_and_we_do_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.net.x509.MAX_BYTES", 100)
    with pytest.raises(ConfigError, match=r"robot-7\.pem: a certificate of \d+ bytes"):
        Authority(tmp_path).device("robot-7")
