import os
from pathlib import Path

import pytest

from p2p.errors import ConfigError, RevokedError, SignatureError, UnsignedError
from p2p.trust import gpg
from p2p.trust.gpg import Judgement, Verdict, parse_status, verify_gpg
from p2p.trust.sign import KeyId, SignatureKind, VerifiedSignature
from tests.require import require
from tests.trust.samples import with_signatures
from tests.trust.vectors import COMMIT, FINGERPRINTS, KEYS, SIGNATURES, certificates

GPG = SignatureKind.GPG
# All keys but the stranger's, the revoked one as it is after its revocation.
TRUSTED = certificates("good", "revoked", "expired", "future", "subkey", "weak")


def signed_by(*names: str) -> bytes:
    return with_signatures(*(SIGNATURES.get(n, n.encode()) for n in names), kind=GPG)


def key_id(name: str, index: int = 0) -> KeyId:
    return KeyId(f"gpg:{FINGERPRINTS[name][index]}")


@pytest.fixture
def gpgv() -> None:
    require("gpgv")


# -- with the real gpgv ----------------------------------------------------------------


@pytest.mark.usefixtures("gpgv")
def test_a_good_signature_names_its_key() -> None:
    assert verify_gpg(COMMIT, signed_by("good"), TRUSTED) == (
        VerifiedSignature(GPG, key_id("good"), SIGNATURES["good"]),
    )


@pytest.mark.usefixtures("gpgv")
def test_a_signing_subkey_is_named_itself() -> None:
    (signature,) = verify_gpg(COMMIT, signed_by("subkey"), TRUSTED)
    assert signature.key == key_id("subkey", 1)


@pytest.mark.usefixtures("gpgv")
def test_a_signature_dated_ahead_is_good_as_it_is_for_ostree() -> None:
    (signature,) = verify_gpg(COMMIT, signed_by("signed later"), TRUSTED)
    assert signature.key == key_id("good")


@pytest.mark.usefixtures("gpgv")
@pytest.mark.parametrize(
    "names, reason",
    [
        (["stranger"], "by a key that is not trusted here"),
        (["expired"], "by a key that has expired"),
        (["signature expired"], "has expired"),
        (["future"], "by a key that is not usable"),
        (["weak"], "uses a digest that is not accepted any more"),
        (["junk"], "no readable signature"),
        ([""], "no readable signature"),
        (["stranger", "expired"], "trusted here; .* has expired"),
    ],
)
def test_other_signatures_are_refused_with_the_reason(
    names: list[str], reason: str
) -> None:
    with pytest.raises(SignatureError, match=reason):
        verify_gpg(COMMIT, signed_by(*names), TRUSTED)


@pytest.mark.usefixtures("gpgv")
def test_a_signature_of_other_bytes_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not fit the commit"):
        verify_gpg(COMMIT + b"\0", signed_by("good"), TRUSTED)


@pytest.mark.usefixtures("gpgv")
def test_a_revoked_key_is_told_from_an_unknown_one() -> None:
    with pytest.raises(RevokedError, match="by a key that was revoked"):
        verify_gpg(COMMIT, signed_by("stranger", "revoked"), TRUSTED)
    before = certificates("revoked, before")
    assert verify_gpg(COMMIT, signed_by("revoked"), before)


@pytest.mark.usefixtures("gpgv")
@pytest.mark.parametrize("other", ["junk", "stranger", "revoked", "expired", "weak"])
def test_a_good_signature_counts_whatever_lies_around_it(other: str) -> None:
    (signature,) = verify_gpg(COMMIT, signed_by(other, "good", other * 2), TRUSTED)
    assert signature.key == key_id("good")


@pytest.mark.usefixtures("gpgv")
def test_every_good_signature_is_reported() -> None:
    good = verify_gpg(COMMIT, signed_by("good", "subkey"), TRUSTED)
    assert [signature.key for signature in good] == [
        key_id("good"),
        key_id("subkey", 1),
    ]


@pytest.mark.usefixtures("gpgv")
def test_an_oversized_signature_is_not_even_given_to_gpgv() -> None:
    padded = with_signatures(SIGNATURES["good"] + bytes(9000), kind=GPG)
    with pytest.raises(SignatureError, match="no readable signature"):
        verify_gpg(COMMIT, padded, TRUSTED)


def test_a_commit_without_gpg_signatures_is_unsigned() -> None:
    for commitmeta in (None, with_signatures(b"a" * 64)):
        with pytest.raises(UnsignedError, match="has no GPG signature"):
            verify_gpg(COMMIT, commitmeta, TRUSTED)


@pytest.mark.usefixtures("gpgv")
def test_the_users_own_keyring_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("trustedkeys.gpg", "pubring.gpg"):
        (tmp_path / name).write_bytes(KEYS["good"])
    monkeypatch.setenv("GNUPGHOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SignatureError, match="not trusted here"):
        verify_gpg(COMMIT, signed_by("good"), certificates("subkey"))


# -- with a gpgv that is missing or broken ---------------------------------------------


def replace_gpgv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script is not None:
        program = tmp_path / "gpgv"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_gpgv_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_gpgv(tmp_path, monkeypatch, None)
    with pytest.raises(ConfigError, match="gpgv: is not installed") as caught:
        verify_gpg(COMMIT, signed_by("good"), TRUSTED)
    assert "package `gpgv`" in caught.value.hint


@pytest.mark.parametrize(
    "script, reason",
    [
        ("echo no such library >&2; exit 127", r"status 127\): no such library"),
        ("kill -9 $$", r"status -9\)"),
    ],
)
def test_a_gpgv_that_fails_is_not_the_commits_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    replace_gpgv(tmp_path, monkeypatch, script)
    with pytest.raises(ConfigError, match=f"does not work .{reason}"):
        verify_gpg(COMMIT, signed_by("good"), TRUSTED)


def test_a_gpgv_that_cannot_be_run_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_gpgv(tmp_path, monkeypatch, "")
    (tmp_path / "gpgv").write_bytes(b"\x7fELF")
    with pytest.raises(ConfigError, match="does not work: "):
        verify_gpg(COMMIT, signed_by("good"), TRUSTED)


def test_a_gpgv_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "never")
    replace_gpgv(tmp_path, monkeypatch, f"read line < {tmp_path}/never")
    monkeypatch.setattr(gpg, "TIMEOUT_SECONDS", 0.1)
    with pytest.raises(ConfigError, match="timed out"):
        verify_gpg(COMMIT, signed_by("good"), TRUSTED)


def test_a_zero_exit_status_alone_makes_no_signature_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_gpgv(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(SignatureError, match="no readable signature"):
        verify_gpg(COMMIT, signed_by("good"), TRUSTED)


# -- status lines ----------------------------------------------------------------------

FPR = "6C0E79C817C47418D83411B12CEE6F0AD53D9C02"


def status(*lines: str) -> list[Judgement]:
    return list(parse_status("".join(f"[GNUPG:] {line}\n" for line in lines)))


def test_good_needs_both_goodsig_and_validsig() -> None:
    good = status("NEWSIG", "GOODSIG 2CEE6F0AD53D9C02 good", f"VALIDSIG {FPR} 2024")
    assert [(j.verdict, j.key) for j in good] == [(Verdict.GOOD, f"gpg:{FPR}")]
    assert status("NEWSIG", "GOODSIG 2CEE6F0AD53D9C02 good") == []
    assert status("NEWSIG", f"VALIDSIG {FPR} 2024") == []
    assert status("NEWSIG", "GOODSIG 2CEE6F0AD53D9C02 good", "VALIDSIG") == []
    assert status("NEWSIG", "GOODSIG", f"VALIDSIG {FPR}") == []


def test_verdicts_that_contradict_each_other_are_none() -> None:
    lines = ["NEWSIG", "BADSIG 2CEE6F0AD53D9C02 good", "GOODSIG 2CEE6F0AD53D9C02 good"]
    assert status(*lines, f"VALIDSIG {FPR}") == []


def test_each_signature_has_its_own_verdict() -> None:
    found = status(
        "NODATA 3",
        "NEWSIG",
        "BADSIG 1111 a",
        "NEWSIG",
        "ERRSIG 2222 1 10 00 1700000000 9 AAAA",
        "NO_PUBKEY 2222",
        "NEWSIG",
        "ERRSIG 3333 1 10 00 1700000000 77",
        "NEWSIG",
        "ERRSIG 4444 1",
    )
    assert [str(judgement) for judgement in found] == [
        "gpg:1111: does not fit the commit",
        "gpg:2222: by a key that is not trusted here",
        "gpg:3333: cannot be checked (gpgv code 77)",
        "gpg:4444: cannot be checked",
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x1c", "\r", " "])
def test_what_a_user_id_says_is_never_taken_for_a_status_line(separator: str) -> None:
    forged = separator.join(
        ["x", "[GNUPG:] NEWSIG", "[GNUPG:] GOODSIG 1 x", f"[GNUPG:] VALIDSIG {FPR} 2"]
    )
    found = status("NEWSIG", f"BADSIG 2CEE6F0AD53D9C02 {forged}")
    assert [judgement.verdict for judgement in found] == [Verdict.BAD]


def test_lines_that_are_no_status_are_ignored() -> None:
    text = f"gpgv: hello\n[GNUPG:] NEWSIG\nGOODSIG 1 x\n[GNUPG:] VALIDSIG {FPR}\n"
    assert list(parse_status(text)) == []
