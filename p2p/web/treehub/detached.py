"""Detached metadata of one commit from two hands, made one; pure.

`.commitmeta` is not content-addressed. A signature made after a push arrives as a
second one, and must neither be refused nor push out what is there.
"""

from __future__ import annotations

from typing import Any

from p2p.errors import LimitError
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import parse_metadata, serialize_metadata
from p2p.trust.sign import MAX_COMMITMETA_BYTES, MAX_SIGNATURES, check_commitmeta_size

_SIGNATURES = "aay"


def merge_detached(mine: bytes | None, theirs: bytes) -> bytes:
    """Return `mine` with what it lacks of `theirs`: keys, and signatures in its lists.

    Returns `mine` itself if it lacks nothing, and `theirs` if there is no `mine`.

    Raises:
        FormatError: one of them is no `a{sv}` in normal form.
        LimitError: one of them, or the outcome, is larger than any publisher's.

    """
    check_commitmeta_size(theirs)
    new = parse_metadata(theirs)
    if mine is None:
        return theirs
    check_commitmeta_size(mine)
    merged = dict(parse_metadata(mine))
    before = dict(merged)
    for key, variant in new:
        merged[key] = _merge_value(key, merged.get(key, variant), variant)
    if merged == before:
        return mine
    data = serialize_metadata(tuple(merged.items()))
    if len(data) > MAX_COMMITMETA_BYTES:
        raise LimitError(f"detached metadata would grow to {len(data)} bytes")
    return data


def _merge_value(key: str, mine: Variant, theirs: Variant) -> Variant:
    signatures = key.startswith("ostree.sign.") or key == "ostree.gpgsigs"
    if not signatures or not mine.type == theirs.type == _SIGNATURES:
        return mine
    new = dict.fromkeys(each for each in theirs.value if each not in mine.value)
    union: tuple[Any, ...] = (*mine.value, *new)
    if new and len(union) > MAX_SIGNATURES:
        raise LimitError(f"detached metadata would hold {len(union)} signatures")
    return Variant(_SIGNATURES, union)


def is_newer(local: bytes, remote: bytes | None) -> bool:
    """Tell whether `local` holds anything that `remote` lacks."""
    return remote is None or merge_detached(remote, local) != remote
