"""Strategies for GVariant types and for values of a type."""

from typing import Any

from hypothesis import strategies as st

from p2p.ostree.gvariant import Variant

_INTEGERS = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "h": (-(2**31), 2**31 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
BASIC = "bynqiuxtdsog"

OSTREE_TYPES = (
    "(a{sv}aya(say)sstayay)",
    "(a(say)a(sayay))",
    "(uuua(ayay))",
    "(uuuusa(ayay))",
    "(tuuuusa(ayay))",
    "(a(s(taya{sv}))a{sv})",
    "a{sv}",
    "a{sa(s(taya{sv}))}",
    "aay",
    "a(ayay)",
)


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    entry = st.tuples(st.sampled_from(BASIC), inner)
    return st.one_of(
        inner.map("a{}".format),
        inner.map("m{}".format),
        st.lists(inner, max_size=4).map(lambda types: f"({''.join(types)})"),
        entry.map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    )


def types() -> st.SearchStrategy[str]:
    """Any single complete type, not too deep."""
    return st.recursive(st.sampled_from([*BASIC, "v"]), _containers, max_leaves=5)


def split(members: str) -> list[str]:
    """The types that stand one behind the other."""
    found = []
    while members:
        end = _end(members)
        found.append(members[:end])
        members = members[end:]
    return found


def _end(text: str) -> int:
    if text[0] in "am":
        return 1 + _end(text[1:])
    if text[0] not in "({":
        return 1
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "({") - (character in ")}")
        if depth == 0:
            return at + 1
    raise ValueError(text)


_TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of a type as the codec has them."""
    if kind in _INTEGERS:
        return st.integers(*_INTEGERS[kind])
    if kind == "b":
        return st.booleans()
    if kind == "d":
        return st.floats(allow_nan=False)
    if kind == "s":
        return _TEXT
    if kind == "o":
        part = st.text("aZ09_", min_size=1, max_size=4)
        return st.lists(part, max_size=3).map(lambda parts: "/" + "/".join(parts))
    if kind == "g":
        of_dbus = types().map(lambda kind: kind.replace("m", "a"))
        return st.lists(of_dbus, max_size=3).map("".join)
    if kind == "v":
        # Mostly shallow: a variant of a variant of a variant is rare in life too.
        inner = st.one_of(st.sampled_from([*BASIC, "ay", "as", "a{sv}"]), types())
        return inner.flatmap(
            lambda inner: values(inner).map(lambda value: Variant(inner, value))
        )
    return _container_values(kind)


def _container_values(kind: str) -> st.SearchStrategy[Any]:
    if kind == "ay":
        return st.binary(max_size=40)
    if kind[0] == "m":
        return st.none() | st.tuples(values(kind[1:]))
    if kind[0] == "a":
        return st.lists(values(kind[1:]), max_size=4).map(tuple)
    return st.tuples(*map(values, split(kind[1:-1])))
