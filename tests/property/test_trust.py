"""Trust under any input: a value or our error, and no bit that does not count."""

from collections.abc import Iterator
from contextlib import suppress
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2p.errors import Error, FormatError, FutureError, RollbackError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Checksum, parse_metadata
from p2p.trust.gpg import Verdict, parse_status
from p2p.trust.openpgp import (
    MAX_KEYRING_BYTES,
    Certificate,
    merge_keyrings,
    parse_keyring,
    serialize_keyring,
)
from p2p.trust.policy import (
    Clock,
    Head,
    Source,
    check_clock,
    check_not_older,
    format_time,
)
from p2p.trust.sign import (
    MAX_COMMITMETA_BYTES,
    MAX_SIGNATURES,
    KeyId,
    PublicKey,
    SecretKey,
    SignatureKind,
    VerifiedSignature,
    add_signature,
    merge_signatures,
    parse_signatures,
    verify_ed25519,
)
from tests.trust.samples import ALICE, BOB, CAROL, COMMIT, metadata_of, signed
from tests.trust.vectors import ARMOURED_GOOD, KEYBOX, KEYS, certificates

TRUSTED = [ALICE.public, BOB.public]
GOOD_META = signed(COMMIT, ALICE)
SECRETS = st.binary(min_size=32, max_size=32).map(SecretKey.from_seed)
KINDS = st.sampled_from(SignatureKind)
ENTRIES = st.tuples(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
    st.one_of(
        st.builds(Variant, st.just("ay"), st.binary(max_size=30)),
        st.builds(Variant, st.just("t"), st.integers(0, 2**64 - 1)),
        st.builds(Variant, st.just("b"), st.booleans()),
    ),
)
SIGNATURES = st.builds(
    VerifiedSignature,
    KINDS,
    st.sampled_from(["a", "b", "c", "d"]).map(KeyId),
    st.binary(max_size=100),
)


def flips(data: bytes) -> Iterator[bytes]:
    """The data with each of its bits inverted in turn."""
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


# -- signatures ------------------------------------------------------------------------


def test_no_commit_with_a_changed_bit_verifies() -> None:
    assert verify_ed25519(COMMIT, GOOD_META, trusted=TRUSTED)
    for changed in flips(COMMIT):
        with pytest.raises(Error):
            verify_ed25519(changed, GOOD_META, trusted=TRUSTED)


def test_no_detached_metadata_with_a_changed_bit_verifies() -> None:
    for changed in flips(GOOD_META):
        with pytest.raises(Error):
            verify_ed25519(COMMIT, changed, trusted=TRUSTED)


def test_no_trusted_key_with_a_changed_bit_verifies() -> None:
    for changed in flips(ALICE.public.raw):
        with pytest.raises(Error):
            verify_ed25519(COMMIT, GOOD_META, trusted=[PublicKey(changed)])


@given(st.binary(min_size=1, max_size=400))
def test_a_commit_cut_or_continued_does_not_verify(tail: bytes) -> None:
    for changed in (COMMIT + tail, tail + COMMIT, COMMIT[: -len(tail)]):
        with pytest.raises(Error):
            verify_ed25519(changed, GOOD_META, trusted=TRUSTED)


@given(st.binary(max_size=2000), SECRETS)
def test_what_a_key_signed_verifies_with_it_alone(data: bytes, key: SecretKey) -> None:
    commitmeta = signed(data, CAROL, key)
    (good,) = verify_ed25519(data, commitmeta, trusted=[key.public])
    assert good.key == key.public.id
    with pytest.raises(Error):
        verify_ed25519(data, commitmeta, trusted=TRUSTED)


@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_as_detached_metadata_give_our_error(data: bytes) -> None:
    with pytest.raises(Error):
        verify_ed25519(COMMIT, data, trusted=TRUSTED)


@given(st.one_of(st.text(), st.binary(max_size=70).map(bytes.hex)))
def test_any_text_is_a_key_or_a_format_error(text: str) -> None:
    for parse in (PublicKey.parse, SecretKey.parse):
        with suppress(FormatError):
            parse(text)


@given(SECRETS)
def test_keys_come_back_from_their_text(key: SecretKey) -> None:
    assert SecretKey.parse(key.to_text()) == key
    assert PublicKey.parse(str(key.public)) == key.public


# -- detached metadata -----------------------------------------------------------------


@given(st.lists(ENTRIES, max_size=5), st.binary(max_size=80), KINDS)
def test_adding_a_signature_leaves_every_other_entry(
    entries: list[tuple[str, Variant]], signature: bytes, kind: SignatureKind
) -> None:
    entries = [entry for entry in entries if entry[0] != kind.metadata_key]
    after = add_signature(metadata_of(*entries), signature, kind)
    assert parse_metadata(after)[:-1] == tuple(entries)
    assert parse_signatures(after, kind) == (signature,)


@given(
    st.lists(st.binary(max_size=80), max_size=5),
    st.lists(SIGNATURES, max_size=3),
    st.lists(SIGNATURES, max_size=30),
)
def test_merging_loses_nothing_and_adds_at_most_one_signature_a_key(
    mine: list[bytes],
    mine_verified: list[VerifiedSignature],
    theirs: list[VerifiedSignature],
) -> None:
    before = metadata_of(("ostree.sign.ed25519", Variant("aay", tuple(mine))))
    after = merge_signatures(before, mine_verified, theirs)
    assert after is not None
    assert len(after) <= MAX_COMMITMETA_BYTES
    old = parse_signatures(before, SignatureKind.ED25519)
    new = [
        signature
        for kind in SignatureKind
        for signature in parse_signatures(after, kind)
        if kind is SignatureKind.GPG or signature not in old
    ]
    assert parse_signatures(after, SignatureKind.ED25519)[: len(old)] == old
    assert set(new) <= {signature.signature for signature in theirs}
    known = {signature.key for signature in mine_verified}
    assert len(new) <= len({signature.key for signature in theirs} - known)


@given(st.integers(0, 3), st.integers(60, 70))
def test_no_flood_of_signatures_makes_metadata_that_cannot_be_read(
    mine: int, theirs: int
) -> None:
    flood = [
        VerifiedSignature(SignatureKind.ED25519, KeyId(f"{n}"), b"%064d" % n)
        for n in range(theirs)
    ]
    merged = merge_signatures(None, flood[:mine], flood)
    assert len(parse_signatures(merged, SignatureKind.ED25519)) <= MAX_SIGNATURES


# -- OpenPGP ---------------------------------------------------------------------------

CERTIFICATES = certificates(
    "good", "subkey", "revoked, before", "revoked", "expired", "weak"
)


@given(st.binary(max_size=300))
@example(KEYBOX[:40])
@example(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n-----END PGP PUBLIC KEY BLOCK-----")
def test_any_bytes_are_a_keyring_or_a_format_error(data: bytes) -> None:
    try:
        found = parse_keyring(data)
    except FormatError:
        return
    assert parse_keyring(serialize_keyring(found)) == found


@pytest.mark.parametrize("data", [KEYS["good"], ARMOURED_GOOD.encode(), KEYBOX[:700]])
def test_a_damaged_keyring_is_a_keyring_or_a_format_error(data: bytes) -> None:
    for changed in flips(data):
        try:
            found = parse_keyring(changed)
        except FormatError:
            continue
        assert parse_keyring(serialize_keyring(found)) == found
        assert len(changed) <= MAX_KEYRING_BYTES


@given(st.lists(st.sampled_from(CERTIFICATES)), st.randoms(use_true_random=False))
def test_merging_keyrings_is_the_same_in_any_order(
    keys: list[Certificate], order: Random
) -> None:
    shuffled = list(keys)
    order.shuffle(shuffled)
    merged = merge_keyrings(keys)
    assert merge_keyrings(merged) == merged
    assert set(merge_keyrings(shuffled)) == set(merged)


@given(st.text())
def test_any_status_of_gpgv_is_read(text: str) -> None:
    list(parse_status(text))
    list(parse_status(f"[GNUPG:] NEWSIG\n[GNUPG:] {text}"))


@given(st.text(st.characters(exclude_characters="\n")))
def test_no_text_in_a_line_makes_a_bad_signature_good(text: str) -> None:
    lines = ["NEWSIG", f"BADSIG 1234 {text}", f"NOTATION_DATA {text}", "NODATA 4"]
    status = "".join(f"[GNUPG:] {line}\n" for line in lines)
    assert [j.verdict for j in parse_status(status)] == [Verdict.BAD]


# -- policy ----------------------------------------------------------------------------

TIMES = st.integers(0, 2**64 - 1)
CLOCKS = st.builds(
    Clock, st.floats(-1e12, 1e300), st.booleans(), st.integers(0, 2**64 - 1)
)
HEADS = st.builds(
    Head, st.sampled_from("abc").map(lambda c: Checksum(c * 64)), st.integers(0, 3)
)


def passes(new: Head, current: Head, source: Source) -> bool:
    try:
        check_not_older(new, current, source)
    except RollbackError:
        return False
    return True


@given(HEADS, HEADS)
def test_neighbours_can_never_make_two_heads_take_turns(one: Head, two: Head) -> None:
    if one.checksum != two.checksum:
        both = [passes(one, two, Source.NEIGHBOUR), passes(two, one, Source.NEIGHBOUR)]
        assert not all(both)
    if passes(one, two, Source.NEIGHBOUR):
        assert passes(one, two, Source.ORIGIN)


@given(TIMES, CLOCKS)
def test_any_time_is_judged_and_printed(timestamp: int, clock: Clock) -> None:
    assert format_time(timestamp)
    try:
        check_clock(timestamp, clock)
    except FutureError:
        assert timestamp > clock.now
