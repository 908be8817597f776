"""A second reading of the advert's specification, on its own, against the vectors."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).parents[2] / "docs" / "vectors" / "advert.json"
VECTORS = json.loads(_FILE.read_text())


def _records(rdata: bytes) -> dict[str, bytes]:
    found = {}
    while rdata:
        string, rdata = rdata[1 : 1 + rdata[0]], rdata[1 + rdata[0] :]
        key, _, value = string.partition(b"=")
        found[key.decode()] = value
    return found


def _hash(vector: dict[str, Any], text: bytes, person: bytes, size: int) -> bytes:
    secret = vector["fleet_secret"].encode()
    key = b""
    if secret:
        key = hashlib.blake2b(secret, digest_size=32, person=b"p2p key").digest()
    salt = bytes.fromhex(vector["instance"])
    whole = hashlib.blake2b(text, digest_size=size, key=key, salt=salt, person=person)
    return whole.digest()


def _bits(vector: dict[str, Any], item: Any, rounds: int, size: int) -> set[int]:
    if isinstance(item, str):
        text = b"c" + bytes.fromhex(item)
    else:
        text = b"r" + item[0].encode() + b"\0" + item[1].encode()
    digest = _hash(vector, text, b"p2p filter", 16)
    a = int.from_bytes(digest[:8], "little")
    b = int.from_bytes(digest[8:], "little") | 1
    return {(a + j * b) % 2**64 % size for j in range(rounds)}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_vectors_say_what_the_specification_says(vector: dict[str, Any]) -> None:
    records = _records(bytes.fromhex(vector["txt_rdata"]))
    assert records["v"] == b"1"
    assert records["i"].hex() == vector["instance"]
    assert int.from_bytes(records.get("e", b""), "big") == vector["epoch"]
    site = vector["site"].encode()
    assert records.get("s") == (_hash(vector, site, b"p2p site", 8) if site else None)
    for key, items in (("c", vector["complete"]), ("p", vector["partial"])):
        value = records.get(key)
        if not items:
            assert value == (None if items is None else b"")
            continue
        assert value is not None
        size = 8 * (len(value) - 1)
        wanted = set().union(*(_bits(vector, i, value[0], size) for i in items))
        told = {n for n in range(size) if value[1 + n // 8] >> n % 8 & 1}
        assert told == wanted
