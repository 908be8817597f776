import base64
import hashlib

import nacl.bindings
import pytest

from p2p.errors import (
    FormatError,
    LimitError,
    RevokedError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import lookup, parse_metadata
from p2p.trust import sign
from p2p.trust.sign import (
    KeyId,
    PublicKey,
    SecretKey,
    SignatureKind,
    VerifiedSignature,
    add_signature,
    merge_signatures,
    parse_signatures,
    sign_commit,
    verify_ed25519,
)
from tests.trust.samples import (
    ALICE,
    BOB,
    CAROL,
    COMMIT,
    RFC_8032,
    make_commit,
    metadata_of,
    signed,
    with_signatures,
)

ED25519 = SignatureKind.ED25519


def many_keys(number: int) -> list[SecretKey]:
    return [
        SecretKey.from_seed(hashlib.sha256(b"%d" % n).digest()) for n in range(number)
    ]


# -- keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", RFC_8032)
def test_a_seed_gives_the_public_key_of_rfc_8032(seed: str) -> None:
    key = SecretKey.from_seed(bytes.fromhex(seed))
    assert key.public.raw.hex() == RFC_8032[seed]


def test_keys_have_the_text_forms_of_libostree() -> None:
    assert str(ALICE.public) == base64.b64encode(ALICE.public.raw).decode()
    assert PublicKey.parse(f"  {ALICE.public}\n") == ALICE.public
    assert base64.b64decode(ALICE.to_text()) == ALICE.seed + ALICE.public.raw
    assert SecretKey.parse(ALICE.to_text()) == ALICE
    assert ALICE.public.id == f"ed25519:{ALICE.public}"


def test_a_secret_key_never_shows_its_secret() -> None:
    assert repr(ALICE) == str(ALICE) == f"SecretKey(public={ALICE.public})"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("not base64!", "base64"),
        ("schlüssel", "base64"),
        ("AAAA", "of 3 bytes"),
        (ALICE.to_text(), "secret key where a public one belongs"),
    ],
)
def test_what_is_no_public_key_is_refused_with_the_reason(
    text: str, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        PublicKey.parse(text)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("%%%%", "base64"),
        (base64.b64encode(bytes(63)).decode(), "of 63 bytes"),
        (str(ALICE.public), "public key where a secret one belongs"),
        (base64.b64encode(ALICE.seed + BOB.public.raw).decode(), "not its own"),
    ],
)
def test_what_is_no_secret_key_is_refused_with_the_reason(
    text: str, reason: str
) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        SecretKey.parse(text)
    assert base64.b64encode(ALICE.seed).decode()[:20] not in str(caught.value)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(FormatError, match="seed of 31 bytes"):
        SecretKey.from_seed(bytes(31))


# -- detached metadata -----------------------------------------------------------------


def test_one_signature_is_written_in_the_95_bytes_that_libostree_writes() -> None:
    signature = sign_commit(COMMIT, ALICE)
    assert add_signature(None, signature) == (
        b"ostree.sign.ed25519\0" + bytes(4) + signature + b"\x40\0aay\x14\x5e"
    )


def test_adding_keeps_other_keys_and_signatures_as_they_are() -> None:
    before = metadata_of(
        ("version", Variant("s", "7")),
        ("ostree.sign.ed25519", Variant("aay", (b"a" * 64,))),
        ("ostree.gpgsigs", Variant("aay", (b"openpgp",))),
        ("zebra", Variant("a{sv}", (("x", Variant("u", 3)),))),
    )
    after = parse_metadata(add_signature(before, b"b" * 64))
    expected = list(parse_metadata(before))
    expected[1] = (expected[1][0], Variant("aay", (b"a" * 64, b"b" * 64)))
    assert after == tuple(expected)


def test_adding_a_signature_twice_changes_nothing() -> None:
    once = add_signature(None, b"a" * 64)
    assert add_signature(once, b"a" * 64) is once


def test_a_first_signature_joins_an_array_that_is_empty() -> None:
    assert add_signature(with_signatures(), b"a" * 64) == with_signatures(b"a" * 64)


def test_gpg_signatures_go_under_their_own_key() -> None:
    both = add_signature(with_signatures(b"a" * 64), b"pgp", SignatureKind.GPG)
    assert parse_signatures(both, ED25519) == (b"a" * 64,)
    assert parse_signatures(both, SignatureKind.GPG) == (b"pgp",)
    assert lookup(parse_metadata(both), "ostree.gpgsigs", "aay") == (b"pgp",)


def test_a_value_of_another_type_is_not_overwritten() -> None:
    before = metadata_of(("ostree.sign.ed25519", Variant("s", "mine")))
    with pytest.raises(FormatError, match="not an array of signatures"):
        add_signature(before, b"a" * 64)


def test_no_more_signatures_are_added_than_are_ever_read() -> None:
    full = with_signatures(*(b"%064d" % n for n in range(sign.MAX_SIGNATURES)))
    assert len(parse_signatures(full, ED25519)) == sign.MAX_SIGNATURES
    with pytest.raises(LimitError, match="no room"):
        add_signature(full, b"a" * 64)
    over = with_signatures(*(b"%064d" % n for n in range(sign.MAX_SIGNATURES + 1)))
    with pytest.raises(LimitError, match="65 ed25519 signatures"):
        parse_signatures(over, ED25519)


def test_metadata_never_grows_beyond_what_is_accepted() -> None:
    filler = sign.MAX_COMMITMETA_BYTES - 100
    before = metadata_of(("note", Variant("ay", bytes(filler))))
    with pytest.raises(LimitError, match="would grow to"):
        add_signature(before, b"a" * 64)


def test_oversized_metadata_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(LimitError, match="detached metadata of 65537 bytes"):
        parse_signatures(b"\xff" * (sign.MAX_COMMITMETA_BYTES + 1), ED25519)


def test_repeated_signatures_count_once() -> None:
    assert parse_signatures(with_signatures(b"a", b"a"), ED25519) == (b"a",)


# -- verification ----------------------------------------------------------------------


def verified(commitmeta: bytes | None, *keys: SecretKey) -> list[VerifiedSignature]:
    trusted = [key.public for key in keys]
    return list(verify_ed25519(COMMIT, commitmeta, trusted=trusted))


def test_a_trusted_key_is_found_among_others() -> None:
    good = verify_ed25519(
        COMMIT,
        signed(COMMIT, CAROL, BOB),
        trusted=[ALICE.public, BOB.public],
    )
    signature = sign_commit(COMMIT, BOB)
    assert good == (VerifiedSignature(ED25519, BOB.public.id, signature),)


def test_every_good_signature_is_reported_once_a_key() -> None:
    good = verify_ed25519(
        COMMIT,
        signed(COMMIT, CAROL, ALICE, BOB),
        trusted=[ALICE.public, ALICE.public, BOB.public],
    )
    assert [signature.key for signature in good] == [ALICE.public.id, BOB.public.id]


def sign_again(data: bytes, key: SecretKey) -> bytes:
    """Another good signature by a key, as only its owner can make one."""
    secret = hashlib.sha512(key.seed).digest()[:32]
    scalar = bytes((secret[0] & 248, *secret[1:31], secret[31] & 63 | 64))
    nonce = b"\x07" + bytes(31)
    point = nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = nacl.bindings.crypto_core_ed25519_scalar_reduce(
        hashlib.sha512(point + key.public.raw + data).digest()
    )
    product = nacl.bindings.crypto_core_ed25519_scalar_mul(challenge, scalar)
    return point + nacl.bindings.crypto_core_ed25519_scalar_add(nonce, product)


def test_several_signatures_by_one_key_count_as_one() -> None:
    first, second = sign_commit(COMMIT, ALICE), sign_again(COMMIT, ALICE)
    assert verified(with_signatures(second), ALICE)[0].signature == second
    (good,) = verified(with_signatures(first, second), ALICE)
    assert good.signature == first


@pytest.mark.parametrize(
    "commitmeta",
    [
        None,
        b"",
        metadata_of(("version", Variant("s", "7"))),
        with_signatures(),
        metadata_of(("ostree.sign.ed25519", Variant("as", ("text",)))),
        with_signatures(b"pgp", kind=SignatureKind.GPG),
    ],
)
def test_without_any_signature_a_commit_is_unsigned(commitmeta: bytes | None) -> None:
    with pytest.raises(UnsignedError, match="has no ed25519 signature"):
        verify_ed25519(COMMIT, commitmeta, trusted=[ALICE.public])


def test_unknown_keys_are_told_with_the_number_of_signatures_and_who_is_trusted() -> (
    None
):
    with pytest.raises(SignatureError) as caught:
        verify_ed25519(
            COMMIT, signed(COMMIT, BOB, CAROL), trusted=[ALICE.public], revoked=()
        )
    message = str(caught.value)
    assert "2 ed25519 signatures, none by a trusted key" in message
    assert message.endswith(f"trusted: ed25519:{ALICE.public}")


def test_a_long_list_of_trusted_keys_is_cut_short_in_the_message() -> None:
    trusted = [key.public for key in many_keys(10)]
    with pytest.raises(SignatureError, match=r"1 ed25519 signature,.* and 7 more$"):
        verify_ed25519(COMMIT, signed(COMMIT, ALICE), trusted=trusted)


def test_a_signature_of_another_commit_is_not_good() -> None:
    other = signed(make_commit(subject="other"), ALICE)
    with pytest.raises(SignatureError, match="1 ed25519 signature"):
        verify_ed25519(COMMIT, other, trusted=[ALICE.public])


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_not_good(length: int) -> None:
    signature = (sign_commit(COMMIT, ALICE) * 2)[:length]
    with pytest.raises(SignatureError):
        verify_ed25519(COMMIT, with_signatures(signature), trusted=[ALICE.public])


def test_a_commit_signed_only_by_a_revoked_key_is_revoked() -> None:
    with pytest.raises(RevokedError) as caught:
        verify_ed25519(
            COMMIT,
            signed(COMMIT, BOB, CAROL),
            trusted=[ALICE.public, BOB.public],
            revoked=[BOB.public],
        )
    assert str(BOB.public) in str(caught.value)


def test_a_key_that_is_revoked_but_was_never_trusted_is_revoked_too() -> None:
    with pytest.raises(RevokedError, match="signed only by revoked keys"):
        verify_ed25519(
            COMMIT, signed(COMMIT, BOB), trusted=[ALICE.public], revoked=[BOB.public]
        )


def test_a_good_signature_beside_a_revoked_one_is_fine() -> None:
    good = verify_ed25519(
        COMMIT,
        signed(COMMIT, BOB, ALICE),
        trusted=[ALICE.public, BOB.public],
        revoked=[BOB.public],
    )
    assert [signature.key for signature in good] == [ALICE.public.id]


def test_with_every_key_revoked_an_unknown_signature_says_that_none_is_trusted() -> (
    None
):
    with pytest.raises(SignatureError, match=r"trusted: none$"):
        verify_ed25519(
            COMMIT, signed(COMMIT, BOB), trusted=[ALICE.public], revoked=[ALICE.public]
        )


def test_work_is_bounded_by_signatures_keys_and_size() -> None:
    trusted = [key.public for key in many_keys(600)]
    junk = with_signatures(*(b"%064d" % n for n in range(sign.MAX_SIGNATURES)))
    with pytest.raises(LimitError, match="64 signatures and 600 keys is too much"):
        verify_ed25519(COMMIT, junk, trusted=trusted)
    large = make_commit(subject="x" * (9 << 20))
    with pytest.raises(LimitError, match="64 signatures and 2 keys is too much"):
        verify_ed25519(large, junk, trusted=[ALICE.public, BOB.public])


def test_a_large_commit_with_a_few_signatures_is_verified() -> None:
    large = make_commit(subject="x" * (9 << 20))
    commitmeta = signed(large, BOB, ALICE)
    assert verify_ed25519(large, commitmeta, trusted=[ALICE.public, CAROL.public])


@pytest.mark.parametrize("data", [b"\xff", b"\0" * 7, signed(COMMIT, ALICE)[:-1]])
def test_broken_metadata_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        verify_ed25519(COMMIT, data, trusted=[ALICE.public])


# -- merging ---------------------------------------------------------------------------


def test_merging_adds_only_the_signatures_that_were_verified() -> None:
    mine = signed(COMMIT, ALICE)
    theirs = add_signature(signed(COMMIT, BOB), b"junk")
    merged = merge_signatures(
        mine, verified(mine, ALICE), verified(theirs, ALICE, BOB, CAROL)
    )
    assert merged == signed(COMMIT, ALICE, BOB)


def test_merging_into_nothing_takes_what_was_verified() -> None:
    theirs = verified(signed(COMMIT, BOB), BOB)
    assert merge_signatures(None, [], theirs) == signed(COMMIT, BOB)
    assert merge_signatures(None, [], []) is None


def test_one_key_keeps_the_signature_that_is_there() -> None:
    key = KeyId("gpg:0123")
    mine = with_signatures(b"good", kind=SignatureKind.GPG)
    merged = merge_signatures(
        mine,
        [VerifiedSignature(SignatureKind.GPG, key, b"good")],
        [VerifiedSignature(SignatureKind.GPG, key, b"good, padded")],
    )
    assert merged is mine


def test_variants_of_one_signature_do_not_accumulate() -> None:
    key = KeyId("gpg:0123")
    variants = [
        VerifiedSignature(SignatureKind.GPG, key, b"good" + b"+" * n) for n in range(9)
    ]
    merged = merge_signatures(None, [], variants)
    assert merged == with_signatures(b"good", kind=SignatureKind.GPG)


def test_an_oversized_signature_is_not_passed_on_however_good() -> None:
    padded = VerifiedSignature(
        SignatureKind.GPG, KeyId("gpg:1"), bytes(sign.MAX_SIGNATURE_BYTES + 1)
    )
    assert merge_signatures(None, [], [padded]) is None


def test_what_does_not_fit_is_left_out_and_the_rest_still_merged() -> None:
    filler = sign.MAX_COMMITMETA_BYTES - 2000
    mine = metadata_of(("note", Variant("ay", bytes(filler))))
    padded = VerifiedSignature(SignatureKind.GPG, KeyId("gpg:1"), bytes(4000))
    merged = merge_signatures(mine, [], [padded, *verified(signed(COMMIT, BOB), BOB)])
    assert merged == add_signature(mine, sign_commit(COMMIT, BOB))
