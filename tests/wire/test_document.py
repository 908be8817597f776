"""docs/protocol.md and its vectors say what the code does."""

import json
from typing import Any

import nacl.signing
import pytest

from p2p.errors import RemoteProtocolError
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import bitmap, layout, varint
from p2p.wire import messages as m
from p2p.wire.connection import Connection
from p2p.wire.frame import control_frame
from p2p.wire.hashes import statement
from tests.wire import document, vectors
from tests.wire.pair import ConnectionPair, feed, output
from tests.wire.samples import NAMES, R1

FILE: dict[str, Any] = json.loads(document.VECTORS.read_text())


def test_the_document_shows_the_codes_tables_and_vectors() -> None:
    text = document.DOCUMENT.read_text()
    assert document.render(text, vectors.make()) == text
    for name in document.blocks(FILE):
        assert f"<!-- {name} -->" in text


def test_the_vectors_file_holds_what_the_code_makes() -> None:
    assert document.VECTORS.read_text() == document.as_json(vectors.make())


def test_every_message_has_a_vector() -> None:
    found = {vector["message"] for vector in FILE["messages"]}
    assert found == {item.name for item in layout.LAYOUTS}


@pytest.mark.parametrize("vector", FILE["messages"], ids=lambda v: v["message"])
def test_a_body_is_read_and_written(vector: dict[str, Any]) -> None:
    body = bytes.fromhex(vector["body"])
    message = layout.decode(body)
    assert message is not None
    assert layout.BY_CLASS[type(message)].name == vector["message"]
    assert vectors.as_fields(message) == vector["fields"]
    assert layout.encode(message) == body


@pytest.mark.parametrize("vector", FILE["accepted"], ids=lambda v: v["why"])
def test_what_a_later_version_may_send_is_accepted(vector: dict[str, Any]) -> None:
    message = layout.decode(bytes.fromhex(vector["body"]))
    if vector["message"] is None:
        assert message is None
    else:
        assert message is not None
        assert vectors.as_fields(message) == vector["fields"]


def test_the_conversation_is_read_and_written() -> None:
    ends = {"dialler": Connection(), "acceptor": Connection()}
    for step in FILE["conversation"]:
        data = bytes.fromhex(step["bytes"])
        speaker = ends[step["from"]]
        listener = ends["acceptor" if step["from"] == "dialler" else "dialler"]
        [event] = feed(listener, data)
        assert type(event).__name__ == step["event"]
        if not isinstance(event, m.Cancelled | m.Pong):
            speaker.send(event)
        assert output(speaker) == data


@pytest.mark.parametrize("vector", FILE["refused"], ids=lambda v: v["why"])
def test_what_breaks_a_rule_is_refused(vector: dict[str, str]) -> None:
    pair = ConnectionPair()
    pair.open(m.Want(R1, 262_144, NAMES))
    pair.open(m.GetUnit(m.RequestId(2), NAMES[0], 0, 100))
    assert feed(pair.dialler, control_frame(b"\x92\x02\x01")) == [m.Ping(1)]
    with pytest.raises(RemoteProtocolError):
        feed(pair.dialler, bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize("vector", FILE["varints"])
def test_varints_are_read_and_written(vector: dict[str, Any]) -> None:
    packed = bytes.fromhex(vector["bytes"])
    assert list(varint.unpack_ascending(packed, 9)) == vector["numbers"]
    assert varint.pack_ascending(vector["numbers"]) == packed


@pytest.mark.parametrize("vector", FILE["bitmaps"])
def test_bitmaps_are_read_and_written(vector: dict[str, Any]) -> None:
    packed = bytes.fromhex(vector["bytes"])
    assert bitmap.unpack(packed) == vector["bits"]
    assert bitmap.pack(vector["bits"], vector["count"]) == packed


def test_the_list_of_hashes_is_signed_as_it_says() -> None:
    given = FILE["hashes"]
    checksum, kind = given["name"]
    name = ObjectName(Checksum(checksum), ObjectType(kind))
    signed = statement(
        name, given["size"], given["first"], bytes.fromhex(given["hashes"])
    )
    assert signed.hex() == given["statement"]
    key = nacl.signing.VerifyKey(bytes.fromhex(given["signer"]))
    key.verify(signed, bytes.fromhex(given["signature"]))
    assert nacl.signing.SigningKey(bytes.fromhex(given["seed"])).verify_key == key
