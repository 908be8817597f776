from pathlib import Path

import pytest

from p2p.errors import (
    BindingError,
    ConfigError,
    FormatError,
    FutureError,
    IntegrityError,
    LimitError,
    RevokedError,
    RollbackError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.config import RemoteConfig
from p2p.ostree.objects import MAX_METADATA_BYTES, Checksum, Commit, checksum_of
from p2p.trust.keys import Ed25519Keys, keyring_path
from p2p.trust.policy import Clock, ClockCheck, Head, Source
from p2p.trust.sign import MAX_COMMITMETA_BYTES, SignatureKind, add_signature
from p2p.trust.verify import VerifiedCommit, Verifier
from tests.require import require
from tests.trust import vectors
from tests.trust.samples import (
    ALICE,
    BOB,
    CHECKSUM,
    CLOCK,
    COMMIT,
    TIME,
    make_commit,
    signed,
    with_signatures,
)

VERIFIER = Verifier(
    remote="os", ed25519=Ed25519Keys((ALICE.public,), frozenset({BOB.public}))
)
UNSIGNED = Verifier(remote="os")
OTHER = Checksum("f" * 64)


def verify(
    commit: bytes,
    commitmeta: bytes | None = None,
    *,
    verifier: Verifier = VERIFIER,
    ref: str | None = "main",
    source: Source = Source.ORIGIN,
    current: Head | None = None,
    clock: Clock = CLOCK,
) -> VerifiedCommit:
    return verifier.verify_commit(
        commit,
        signed(commit, ALICE) if commitmeta is None else commitmeta,
        checksum=checksum_of(commit),
        clock=clock,
        ref=ref,
        source=source,
        current=current,
    )


@pytest.mark.parametrize("source", Source)
def test_a_good_commit_tells_who_signed_it(source: Source) -> None:
    verified = verify(COMMIT, source=source, current=Head(OTHER, TIME - 1))
    assert verified.commit == Commit.parse(COMMIT)
    assert verified.signed_by == (ALICE.public.id,)
    assert verified.clock_check is ClockCheck.PASSED
    assert verified.head == Head(CHECKSUM, TIME)


def test_bytes_of_another_name_are_damaged() -> None:
    with pytest.raises(IntegrityError):
        VERIFIER.verify_commit(
            COMMIT, signed(COMMIT, ALICE), checksum=OTHER, clock=CLOCK
        )


def test_sizes_are_checked_first() -> None:
    with pytest.raises(LimitError, match="bytes of metadata"):
        VERIFIER.verify_commit(
            bytes(MAX_METADATA_BYTES + 1), None, checksum=OTHER, clock=CLOCK
        )
    for verifier in (VERIFIER, UNSIGNED):
        with pytest.raises(LimitError, match="detached metadata of 65537 bytes"):
            verify(COMMIT, bytes(MAX_COMMITMETA_BYTES + 1), verifier=verifier)


def test_nothing_is_parsed_before_its_signature_was_verified() -> None:
    not_a_commit = b"\xff" * 100
    with pytest.raises(UnsignedError):
        verify(not_a_commit, b"")
    with pytest.raises(SignatureError):
        verify(not_a_commit, with_signatures(b"a" * 64))
    with pytest.raises(FormatError):
        verify(not_a_commit)


def test_the_signature_is_checked_before_what_the_commit_says() -> None:
    wrong_in_all = make_commit(refs=("other",), timestamp=2**64 - 1)
    with pytest.raises(UnsignedError):
        verify(wrong_in_all, b"")
    with pytest.raises(RevokedError):
        verify(wrong_in_all, signed(wrong_in_all, BOB))
    with pytest.raises(BindingError):
        verify(wrong_in_all)
    with pytest.raises(FutureError):
        verify(wrong_in_all, ref=None)


def test_a_withdrawn_commit_is_refused_however_well_signed() -> None:
    withdrawing = Verifier(
        remote="os", ed25519=VERIFIER.ed25519, withdrawn=frozenset({CHECKSUM})
    )
    with pytest.raises(RevokedError, match="was withdrawn"):
        verify(COMMIT, verifier=withdrawing)
    assert verify(make_commit(subject="next"), verifier=withdrawing)


def test_an_older_commit_is_refused_unless_nothing_is_compared() -> None:
    current = Head(OTHER, TIME + 1)
    with pytest.raises(RollbackError):
        verify(COMMIT, current=current)
    assert verify(COMMIT, current=None)


def test_a_neighbour_may_not_bring_a_commit_of_the_same_second() -> None:
    current = Head(OTHER, TIME)
    assert verify(COMMIT, current=current)
    with pytest.raises(RollbackError):
        verify(COMMIT, current=current, source=Source.NEIGHBOUR)


def test_an_untrusted_clock_is_reported() -> None:
    future = make_commit(timestamp=TIME * 2)
    clock = Clock(now=0.0, trusted=False)
    verified = verify(future, clock=clock)
    assert verified.clock_check is ClockCheck.CLOCK_UNTRUSTED


def test_the_collection_of_the_remote_binds() -> None:
    bound = Verifier(
        remote="os", ed25519=VERIFIER.ed25519, collection_id="org.example.Os"
    )
    good = make_commit(collection="org.example.Os")
    assert verify(good, verifier=bound)
    with pytest.raises(BindingError):
        verify(COMMIT, verifier=bound)


def test_a_remote_that_checks_no_signature_says_that_nobody_signed() -> None:
    assert not UNSIGNED.demands_signatures
    assert verify(COMMIT, verifier=UNSIGNED).signed_by == ()
    assert verify(COMMIT, b"\xffjunk", verifier=UNSIGNED).signed_by == ()


def test_without_signatures_a_neighbour_cannot_name_a_head() -> None:
    with pytest.raises(UnsignedError, match="anybody could have made it"):
        verify(COMMIT, verifier=UNSIGNED, source=Source.NEIGHBOUR)
    by_checksum = verify(COMMIT, verifier=UNSIGNED, source=Source.NEIGHBOUR, ref=None)
    assert by_checksum.head.checksum == CHECKSUM


# -- both kinds of signature -----------------------------------------------------------

GPG = SignatureKind.GPG


def test_with_both_kinds_demanded_both_must_be_there() -> None:
    require("gpgv")
    both = Verifier(
        remote="os", ed25519=VERIFIER.ed25519, gpg=vectors.certificates("good")
    )
    ed25519 = signed(vectors.COMMIT, ALICE)
    gpg = with_signatures(vectors.SIGNATURES["good"], kind=GPG)
    with pytest.raises(UnsignedError, match="no GPG signature"):
        verify(vectors.COMMIT, ed25519, verifier=both)
    with pytest.raises(UnsignedError, match="no ed25519 signature"):
        verify(vectors.COMMIT, gpg, verifier=both)
    together = add_signature(ed25519, vectors.SIGNATURES["good"], GPG)
    assert verify(vectors.COMMIT, together, verifier=both).signed_by == (
        ALICE.public.id,
        f"gpg:{vectors.FINGERPRINTS['good'][0]}",
    )


# -- from a configuration --------------------------------------------------------------


def remote(tmp_path: Path, *, gpg: bool, ed25519: bool) -> RemoteConfig:
    keyring_path("os", tmp_path).write_bytes(vectors.KEYS["good"])
    return RemoteConfig(
        name="os",
        url="http://localhost",
        gpg_verify=gpg,
        sign_verify=("ed25519",) if ed25519 else (),
        collection_id="org.example.Os",
        options={"verification-ed25519-key": str(ALICE.public)},
    )


@pytest.mark.parametrize("gpg", [True, False])
@pytest.mark.parametrize("ed25519", [True, False])
def test_the_configuration_says_what_is_demanded(
    tmp_path: Path, gpg: bool, ed25519: bool
) -> None:
    taken_back = tmp_path / "etc/ostree-p2p/withdrawn-commits"
    taken_back.parent.mkdir(parents=True)
    taken_back.write_text(OTHER)
    verifier = Verifier.for_remote(
        remote(tmp_path, gpg=gpg, ed25519=ed25519),
        directories=[tmp_path],
        root=tmp_path,
    )
    keys = Ed25519Keys((ALICE.public,), frozenset())
    assert verifier == Verifier(
        remote="os",
        ed25519=keys if ed25519 else None,
        gpg=vectors.certificates("good") if gpg else None,
        collection_id="org.example.Os",
        withdrawn=frozenset({OTHER}),
    )
    assert verifier.demands_signatures == (gpg or ed25519)


def test_a_remote_as_ostree_adds_it_demands_gpg_keys(tmp_path: Path) -> None:
    plain = RemoteConfig(name="os", url="http://localhost")
    with pytest.raises(ConfigError, match="no trusted GPG key"):
        Verifier.for_remote(plain, directories=[tmp_path], root=tmp_path)
