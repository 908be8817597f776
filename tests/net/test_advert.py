import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import ConfigError, FormatError, LimitError
from p2p.net.advert import (
    MAX_COMPLETE_BYTES,
    MAX_PARTIAL_BYTES,
    MAX_READ_BYTES,
    MAX_WRITTEN_BYTES,
    Advert,
    AdvertKey,
    Filter,
    InstanceId,
    Item,
    Ref,
    decode,
    encode,
)
from p2p.ostree.objects import Checksum

INSTANCE = InstanceId(bytes(range(16)))
OTHER = InstanceId(bytes(range(16, 32)))
FLEET = AdvertKey.fleet(b"correct horse battery staple")
_FILE = Path(__file__).parents[2] / "docs" / "vectors" / "advert.json"
VECTORS = json.loads(_FILE.read_text())

instances = st.binary(min_size=16, max_size=16).map(InstanceId)
commits = st.binary(min_size=32, max_size=32).map(lambda raw: Checksum(raw.hex()))
refs = st.builds(Ref, st.text(max_size=30), st.text(max_size=30))
items = commits | refs
keys = st.just(AdvertKey.open()) | st.binary(min_size=16).map(AdvertKey.fleet)
filters = (
    st.none()
    | st.just(Filter(0, b""))
    | st.builds(Filter, st.integers(1, 16), st.binary(min_size=1, max_size=96))
)
adverts = st.builds(
    Advert,
    instance=instances,
    version=st.integers(1, 255),
    epoch=st.integers(0, 2**64 - 1),
    site=st.none() | st.binary(min_size=8, max_size=8),
    complete=filters,
    partial=filters,
)


def commit(number: int) -> Checksum:
    return Checksum(f"{number:064x}")


def strings(*parts: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in parts)


@given(adverts)
def test_what_is_written_is_read_back(advert: Advert) -> None:
    assert decode(encode(advert)) == advert


@given(st.binary(max_size=MAX_READ_BYTES + 10))
def test_any_bytes_are_an_advert_or_a_format_error(data: bytes) -> None:
    try:
        advert = decode(data)
    except FormatError:
        return
    AdvertKey.open().may_have(advert, commit(1))


@given(adverts, st.data())
def test_a_changed_advert_is_an_advert_or_a_format_error(
    advert: Advert, data: st.DataObject
) -> None:
    changed = bytearray(encode(advert))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(
        st.integers(0, 255)
    )
    del changed[data.draw(st.integers(0, len(changed))) :]
    try:
        decode(bytes(changed))
    except FormatError:
        return


@given(keys, instances, st.sets(items, max_size=40), st.sets(items, max_size=40))
def test_what_is_held_is_always_found(
    key: AdvertKey, instance: InstanceId, complete: set[Item], partial: set[Item]
) -> None:
    advert = key.make(instance, site="hall 3", complete=complete, partial=partial)
    assert len(encode(advert)) <= MAX_WRITTEN_BYTES
    assert all(key.may_have(advert, item) for item in complete)
    assert all(key.may_have_part(advert, item) for item in partial)
    assert key.at_site(advert, "hall 3")


def test_what_is_not_held_is_rarely_found() -> None:
    held = [commit(n) for n in range(20)]
    advert = AdvertKey.open().make(INSTANCE, complete=held, partial=[])
    asked = [commit(n) for n in range(1000, 11000)]
    wrong = sum(AdvertKey.open().may_have(advert, item) for item in asked)
    assert wrong < 200
    assert not any(AdvertKey.open().may_have_part(advert, item) for item in asked)


def test_who_says_nothing_may_have_anything() -> None:
    advert = AdvertKey.open().make(INSTANCE)
    assert AdvertKey.open().may_have(advert, commit(1))
    assert AdvertKey.open().may_have_part(advert, Ref("os/stable"))


def test_who_has_nothing_has_nothing() -> None:
    advert = decode(encode(AdvertKey.open().make(INSTANCE, complete=[], partial=[])))
    assert not AdvertKey.open().may_have(advert, commit(1))
    assert not AdvertKey.open().may_have_part(advert, Ref("os/stable"))


@pytest.mark.parametrize("count", [1, 200, 5000])
def test_the_largest_holdings_fit_in_400_bytes(count: int) -> None:
    held = [commit(n) for n in range(count)]
    advert = FLEET.make(
        INSTANCE, site="x" * 64, epoch=2**64 - 1, complete=held, partial=held
    )
    assert advert.complete is not None
    assert advert.partial is not None
    assert len(advert.complete.bits) <= MAX_COMPLETE_BYTES
    assert len(advert.partial.bits) <= MAX_PARTIAL_BYTES
    assert len(encode(advert)) <= MAX_WRITTEN_BYTES
    assert all(FLEET.may_have(decode(encode(advert)), item) for item in held)


def test_a_few_holdings_cost_a_few_bytes_and_do_not_show_their_number() -> None:
    sizes = {
        len(encode(AdvertKey.open().make(INSTANCE, complete=[commit(n) for n in held])))
        for held in (range(1), range(4), range(12))
    }
    assert len(sizes) == 1
    assert sizes.pop() < 50


def test_a_commit_is_not_a_ref_and_a_ref_is_of_its_collection() -> None:
    key = AdvertKey.open()
    advert = key.make(INSTANCE, complete=[Ref("os/stable", "org.example.Os")])
    assert key.may_have(advert, Ref("os/stable", "org.example.Os"))
    assert not key.may_have(advert, Ref("os/stable"))
    assert not key.may_have(advert, Ref("stable", "org.example.Os/os"))


def test_a_stranger_to_the_fleet_learns_nothing_from_a_filter() -> None:
    held = [commit(n) for n in range(5)]
    advert = FLEET.make(INSTANCE, site="hall 3", complete=held)
    strangers = [AdvertKey.open(), AdvertKey.fleet(b"another fleet's secret")]
    for stranger in strangers:
        assert not any(stranger.may_have(advert, item) for item in held)
        assert not stranger.at_site(advert, "hall 3")


def test_two_devices_with_equal_holdings_do_not_look_alike() -> None:
    held = [commit(n) for n in range(5)]
    one = FLEET.make(INSTANCE, site="hall 3", complete=held)
    other = FLEET.make(OTHER, site="hall 3", complete=held)
    assert one.complete != other.complete
    assert one.site != other.site


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        AdvertKey.fleet(b"hunter2")


def test_an_advert_that_is_too_large_is_not_written() -> None:
    big = Filter(7, bytes(200))
    with pytest.raises(LimitError):
        encode(Advert(instance=INSTANCE, complete=big, partial=big))
    with pytest.raises(LimitError):
        encode(Advert(instance=INSTANCE, complete=Filter(7, bytes(253))))


def test_a_txt_record_that_is_too_large_is_not_read() -> None:
    with pytest.raises(LimitError):
        decode(bytes(MAX_READ_BYTES + 1))


def test_a_newer_peer_is_understood() -> None:
    data = strings(b"v=7", b"I=" + INSTANCE, b"new=thing", b"flag", b"", b"=x", b"v=1")
    assert decode(data) == Advert(instance=INSTANCE, version=7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x05v=1",
        strings(b"v=1"),
        strings(b"i=" + INSTANCE),
        strings(b"v=0", b"i=" + INSTANCE),
        strings(b"v=256", b"i=" + INSTANCE),
        strings(b"v=0001", b"i=" + INSTANCE),
        strings(b"v=-1", b"i=" + INSTANCE),
        strings("v=²".encode(), b"i=" + INSTANCE),
        strings(b"v=1", b"i=" + INSTANCE[:-1]),
        strings(b"v=1", b"i=" + INSTANCE, b"s=" + bytes(7)),
        strings(b"v=1", b"i=" + INSTANCE, b"s="),
        strings(b"v=1", b"i=" + INSTANCE, b"e=\0\1"),
        strings(b"v=1", b"i=" + INSTANCE, b"e=" + b"\1" * 9),
        strings(b"v=1", b"i=" + INSTANCE, b"c=\7"),
        strings(b"v=1", b"i=" + INSTANCE, b"c=\0\xff"),
        strings(b"v=1", b"i=" + INSTANCE, b"p=\x11\xff"),
    ],
)
def test_what_is_no_advert_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_published_vectors_hold(vector: dict[str, Any]) -> None:
    secret = vector["fleet_secret"]
    key = AdvertKey.fleet(secret.encode()) if secret else AdvertKey.open()
    advert = key.make(
        InstanceId(bytes.fromhex(vector["instance"])),
        site=vector["site"],
        epoch=vector["epoch"],
        complete=_items(vector["complete"]),
        partial=_items(vector["partial"]),
    )
    assert encode(advert).hex() == vector["txt_rdata"]
    assert decode(bytes.fromhex(vector["txt_rdata"])) == advert


def _items(told: list[Any] | None) -> list[Item] | None:
    if told is None:
        return None
    return [Checksum(t) if isinstance(t, str) else Ref(t[1], t[0]) for t in told]
