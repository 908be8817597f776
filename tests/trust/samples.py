"""Commits and keys that the tests of trust share."""

from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    Metadata,
    checksum_of,
    serialize_metadata,
)
from p2p.trust.policy import Clock
from p2p.trust.sign import SecretKey, SignatureKind, add_signature, sign_commit

TIME = 1_700_000_000
CLOCK = Clock(now=TIME + 60.0, trusted=True)
# RFC 8032 §7.1, tests 1 to 3: seeds and the public keys that belong to them.
RFC_8032 = {
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    ),
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    ),
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    ),
}
ALICE, BOB, CAROL = (SecretKey.from_seed(bytes.fromhex(seed)) for seed in RFC_8032)


def make_commit(
    *,
    refs: tuple[str, ...] | None = ("main",),
    collection: str | None = None,
    timestamp: int = TIME,
    subject: str = "",
) -> bytes:
    """The bytes of a commit with these bindings, its tree empty of meaning."""
    metadata: list[tuple[str, Variant]] = []
    if collection is not None:
        metadata.append(("ostree.collection-binding", Variant("s", collection)))
    if refs is not None:
        metadata.append(("ostree.ref-binding", Variant("as", refs)))
    return Commit(
        root_dirtree=Checksum("1" * 64),
        root_dirmeta=Checksum("2" * 64),
        timestamp=timestamp,
        subject=subject,
        metadata=tuple(metadata),
    ).serialize()


COMMIT = make_commit()
CHECKSUM = checksum_of(COMMIT)


def signed(commit: bytes, key: SecretKey, *more: SecretKey) -> bytes:
    """Detached metadata with a signature by each key."""
    commitmeta = add_signature(None, sign_commit(commit, key))
    for other in more:
        commitmeta = add_signature(commitmeta, sign_commit(commit, other))
    return commitmeta


def with_signatures(
    *signatures: bytes, kind: SignatureKind = SignatureKind.ED25519
) -> bytes:
    """Detached metadata with these signatures, whatever they are."""
    return metadata_of((kind.metadata_key, Variant("aay", signatures)))


def metadata_of(*entries: tuple[str, Variant]) -> bytes:
    """Detached metadata with these entries."""
    metadata: Metadata = entries
    return serialize_metadata(metadata)
