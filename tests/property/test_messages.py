"""Whatever an agent or writer sends is a message or a FormatError, and bounded."""

import io

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import FormatError
from p2p.ostree.messages import (
    MAX_BULK_BYTES,
    MAX_CONTROL_BYTES,
    AbortObject,
    AddPiece,
    BeginObject,
    Deploy,
    Deployed,
    Done,
    Failed,
    Form,
    KeepSummary,
    Publish,
    Rejection,
    Reply,
    Request,
    Resume,
    Rollback,
    StageObjects,
    StageSignatures,
    Sync,
    decode,
    encode,
)
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.refs import RefPath

KINDS = [
    "StageObjects",
    "BeginObject",
    "AddPiece",
    "AbortObject",
    "StageSignatures",
    "Sync",
    "Publish",
    "KeepSummary",
    "Deploy",
    "Resume",
    "Rollback",
    "Done",
    "Failed",
]
checksums = st.text("0123456789abcdef", min_size=64, max_size=64).map(Checksum)
names = st.builds(ObjectName, checksums, st.sampled_from(ObjectType))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
small = st.binary(max_size=200)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts
    | small
    | checksums,
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=12,
)
messages: st.SearchStrategy[Request | Reply] = st.one_of(
    st.builds(
        StageObjects,
        st.lists(st.tuples(names, st.sampled_from(Form), small), max_size=4).map(tuple),
    ),
    st.builds(
        BeginObject, names, st.sampled_from(Form), st.none() | st.integers(0, 2**63)
    ),
    st.builds(AddPiece, names, small, st.booleans()),
    st.builds(AbortObject, names),
    st.builds(StageSignatures, checksums, small),
    st.just(Sync()),
    st.builds(
        Publish,
        remote=texts,
        commits=st.lists(st.tuples(checksums, st.none() | texts), max_size=3).map(
            tuple
        ),
        refs=st.lists(st.tuples(texts.map(RefPath), checksums), max_size=3).map(tuple),
        metadata_only=st.booleans(),
        allow_older=st.booleans(),
        fsync=st.booleans(),
    ),
    st.builds(Deploy, texts, checksums),
    st.just(Rollback()),
    st.just(Resume()),
    st.builds(
        Done,
        st.lists(st.builds(Rejection, names, texts), max_size=3).map(tuple),
        st.none()
        | st.builds(
            Deployed, texts, st.booleans(), st.lists(texts, max_size=3).map(tuple)
        ),
    ),
    st.builds(KeepSummary, texts, small, st.none() | small),
    st.builds(Failed, texts, texts, texts),
)


class Bounded:
    """A stream that refuses to be asked for more than a message may have."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, count: int) -> bytes:
        assert 0 < count <= max(MAX_CONTROL_BYTES, MAX_BULK_BYTES)
        return self._stream.read(count)


def check(data: bytes) -> None:
    """Any answer is fine but another exception."""
    stream = Bounded(data)
    try:
        while (message := decode(stream.read)) is not None:
            assert decode(io.BytesIO(b"".join(encode(message))).read) == message
    except FormatError as error:
        complaint = str(error)
    else:
        return
    assert len(complaint) < 1000


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(st.binary(max_size=400), st.binary(max_size=50))
def test_any_control_part(control: bytes, bulk: bytes) -> None:
    check(len(control).to_bytes(4, "big") + control + bulk)


@given(
    st.sampled_from(KINDS),
    st.lists(values, max_size=7),
    st.lists(st.integers(-1, 300), max_size=4),
    st.binary(max_size=400),
)
def test_any_fields_of_any_kind(
    kind: str, fields: list[object], lengths: list[int], bulk: bytes
) -> None:
    control: bytes = msgpack.packb([kind, fields, lengths])
    check(len(control).to_bytes(4, "big") + control + bulk)


@given(messages)
def test_every_message_survives_the_way(message: Request | Reply) -> None:
    assert decode(io.BytesIO(b"".join(encode(message))).read) == message


@given(messages, st.data())
def test_a_message_with_one_byte_changed(
    message: Request | Reply, data: st.DataObject
) -> None:
    encoded = bytearray(b"".join(encode(message)))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    check(bytes(encoded))
