"""The order of GLib's dictionaries, as ostree 2022.7 was seen to write them."""

import random

from p2p.ostree.glib_order import glib_dictionary
from p2p.ostree.gvariant import Variant

PREFIX = "ostree.summary."


def order(*keys: str) -> list[str]:
    return [
        key for key, _ in glib_dictionary({key: Variant("b", True) for key in keys})
    ]


def test_few_keys() -> None:
    keys = [PREFIX + key for key in ("last-modified", "mode", "tombstone-commits")]
    assert order(*keys, PREFIX + "indexed-deltas") == [
        "ostree.summary.mode",
        "ostree.summary.last-modified",
        "ostree.summary.tombstone-commits",
        "ostree.summary.indexed-deltas",
    ]


def test_enough_keys_to_grow_the_table() -> None:
    added = [f"key.{number}" for number in range(12)]
    keys = [PREFIX + key for key in ("last-modified", "mode", "tombstone-commits")]
    assert order(*added, *keys, PREFIX + "indexed-deltas") == [
        "ostree.summary.last-modified",
        *("key.2", "key.11", "key.5", "key.8"),
        "ostree.summary.indexed-deltas",
        *("key.0", "key.3", "key.6", "key.9"),
        "ostree.summary.tombstone-commits",
        *("key.1", "key.10", "key.4"),
        "ostree.summary.mode",
        "key.7",
    ]


def test_nothing_is_lost_or_doubled_however_many_there_are() -> None:
    numbers = random.Random(1)
    keys = [f"{numbers.random()}\u00e9" for _ in range(3000)]
    assert sorted(order(*keys)) == sorted(keys)
    assert order() == []


def test_values_stay_with_their_keys() -> None:
    entries = {f"k{number}": Variant("u", number) for number in range(100)}
    assert dict(glib_dictionary(entries)) == entries
