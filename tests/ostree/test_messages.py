"""Messages between agent and writer: to bytes and back, and what is refused."""

import io
import struct

import msgpack
import pytest

from p2p import errors
from p2p.errors import (
    Error,
    FormatError,
    IntegrityError,
    LimitError,
    NoSpaceError,
    WriterError,
)
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
    Keep,
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

A = Checksum("a" * 64)
B = Checksum("b" * 64)
FILE = ObjectName(A, ObjectType.FILE)
TREE = ObjectName(B, ObjectType.DIRTREE)
PUBLISH = Publish(
    remote="origin",
    commits=((A, None), (B, "main")),
    refs=((RefPath("remotes/origin/main"), B),),
    metadata_only=True,
    allow_older=True,
    fsync=False,
)
MESSAGES: list[Request | Reply] = [
    StageObjects(()),
    StageObjects(
        (
            (FILE, Form.FILEZ, b"packed"),
            (TREE, Form.CANONICAL, b""),
            (TREE, Form(0), b"x"),
        )
    ),
    BeginObject(FILE, Form.CANONICAL, 1 << 40),
    BeginObject(FILE, Form.FILEZ, None),
    AddPiece(FILE, b"piece", last=False),
    AddPiece(FILE, b"", last=True),
    AbortObject(FILE),
    StageSignatures(A, b"detached"),
    Sync(),
    PUBLISH,
    Publish(remote="", commits=(), refs=()),
    KeepSummary("origin", b"summary", None),
    Keep("origin", None, 0),
    Keep("origin", Checksum("ab" * 32), 1 << 40),
    KeepSummary("origin", b"summary", b""),
    Done(),
    Done((Rejection(FILE, "torn"), Rejection(TREE, ""))),
    Deploy("origin:main", A),
    Rollback(),
    Resume(),
    Done(deployed=Deployed("id", True)),
    Done(deployed=Deployed("", False, ("one thing", "and another"))),
    Failed("NoSpaceError", "full", "free some"),
]


def frame(control: bytes, *bulk: bytes) -> bytes:
    return struct.pack(">I", len(control)) + control + b"".join(bulk)


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return frame(data)


def decoded(data: bytes) -> Request | Reply | None:
    return decode(io.BytesIO(data).read)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_what_is_encoded_is_decoded(message: Request | Reply) -> None:
    assert decoded(b"".join(encode(message))) == message


def test_messages_follow_one_another_on_a_stream() -> None:
    stream = io.BytesIO(b"".join(b for m in MESSAGES for b in encode(m)))
    assert [decode(stream.read) for _ in MESSAGES] == MESSAGES
    assert decode(stream.read) is None


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_cut_anywhere_is_refused(message: Request | Reply) -> None:
    data = b"".join(encode(message))
    for length in range(1, len(data)):
        with pytest.raises(FormatError, match="cut off"):
            decoded(data[:length])


def test_bulk_is_not_copied_into_the_control_part() -> None:
    bulk = b"x" * 100_000
    control, data = encode(AddPiece(FILE, bulk, last=True))
    assert data is bulk
    assert len(control) < 200


class Greedy:
    """A stream that never ends and notes the largest read."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)
        self.largest = 0

    def read(self, count: int) -> bytes:
        self.largest = max(self.largest, count)
        return self._stream.read(count).ljust(count, b"\0")


@pytest.mark.parametrize("length", [MAX_CONTROL_BYTES + 1, 0xFFFFFFFF])
def test_a_long_control_part_is_refused_unread(length: int) -> None:
    stream = Greedy(struct.pack(">I", length))
    with pytest.raises(LimitError):
        decode(stream.read)
    assert stream.largest == 4


@pytest.mark.parametrize(
    "lengths",
    [[MAX_BULK_BYTES + 1], [MAX_BULK_BYTES, 1], [2**63], [2**64 - 1, 2**64 - 1]],
    ids=str,
)
def test_too_much_bulk_is_refused_unread(lengths: list[int]) -> None:
    stream = Greedy(packed(["AddPiece", [A, 1, True], lengths]))
    with pytest.raises(LimitError, match="bulk"):
        decode(stream.read)
    assert stream.largest < 200


@pytest.mark.parametrize(
    "control",
    [
        None,
        17,
        "abc",
        [],
        ["Sync", []],
        ["Sync", [], [], []],
        [1, [], []],
        ["Sync", "", []],
        ["Sync", [], ""],
        ["Sync", [], [-1]],
        ["Sync", [], [True]],
        ["Sync", [], [1.0]],
        ["Sync", {}, []],
        {"Sync": 1, "a": 2, "b": 3},
        ["Sync", [msgpack.ExtType(1, b"")], []],
    ],
    ids=repr,
)
def test_control_parts_of_another_shape_are_refused(control: object) -> None:
    with pytest.raises(FormatError):
        decoded(packed(control))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x93\xa4Syn", b"\xdd\xff\xff\xff\xff", b"\x93\xa1\xff\x90\x90"],
)
def test_what_is_not_messagepack_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="MessagePack"):
        decoded(frame(data))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(FormatError):
        decoded(frame(b"\x91" * MAX_CONTROL_BYTES))


BAD_FIELDS: list[list[object]] = [
    ["Unknown", [], []],
    ["", [], []],
    ["Sync", [1], []],
    ["Sync", [], [0]],
    ["StageObjects", [[]], [0]],
    ["StageObjects", [[[A, 1, 0]]], []],
    ["StageObjects", [[[A, 1]]], [0]],
    ["StageObjects", [[A]], [0]],
    ["StageObjects", [A], [0]],
    ["StageObjects", [7], []],
    ["StageObjects", [[[A, 1, 2]]], [0]],
    ["StageObjects", [[[A, 1, True]]], [0]],
    ["StageObjects", [[[A, 1, None]]], [0]],
    ["BeginObject", [A, 1, 0, -1], []],
    ["BeginObject", [A, 1, 0, True], []],
    ["BeginObject", [A, 1, 0, "1"], []],
    ["BeginObject", [A, 1, 0, 1], [0]],
    ["BeginObject", [A, 0, 0, 1], []],
    ["BeginObject", [A, 10, 0, 1], []],
    ["BeginObject", [A, True, 0, 1], []],
    ["BeginObject", [A, 1.0, 0, 1], []],
    ["BeginObject", [A.upper(), 1, 0, 1], []],
    ["BeginObject", [A[:-1], 1, 0, 1], []],
    ["BeginObject", [["a"] * 64, 1, 0, 1], []],
    ["BeginObject", [b"a" * 64, 1, 0, 1], []],
    ["BeginObject", [None, 1, 0, 1], []],
    ["AddPiece", [A, 1, 1], [0]],
    ["AddPiece", [A, 1, True], []],
    ["AddPiece", [A, 1, True], [0, 0]],
    ["AbortObject", [A], []],
    ["AbortObject", [A, 1], [0]],
    ["StageSignatures", [A], []],
    ["StageSignatures", [1], [0]],
    ["Publish", ["o", [], [], False, False], []],
    ["Publish", [b"o", [], [], False, False, True], []],
    ["Publish", ["o", [], [], 0, False, True], []],
    ["Publish", ["o", [], [], False, False, True], [0]],
    ["Publish", ["o", [A], [], False, False, True], []],
    ["Publish", ["o", [[A]], [], False, False, True], []],
    ["Publish", ["o", [[A, 1]], [], False, False, True], []],
    ["Publish", ["o", [], [[1, A]], False, False, True], []],
    ["Publish", ["o", [], [["heads/x", None]], False, False, True], []],
    ["Publish", ["o", "", [], False, False, True], []],
    ["KeepSummary", ["o"], []],
    ["KeepSummary", ["o"], [0, 0, 0]],
    ["KeepSummary", [1], [0]],
    ["Keep", ["o", None, -1], []],
    ["Keep", ["o", "no checksum", 1], []],
    ["Keep", ["o", None], []],
    ["Deploy", ["o:main"], []],
    ["Deploy", ["o:main", "main"], []],
    ["Deploy", [b"o:main", A], []],
    ["Deploy", ["o:main", A], [0]],
    ["Deploy", ["o:main", A, "/sysroot"], []],
    ["Rollback", ["/sysroot"], []],
    ["Rollback", [], [0]],
    ["Resume", [0], []],
    ["Done", [], []],
    ["Done", [[]], []],
    ["Done", [[[A, 1]], None], []],
    ["Done", [[[A, 1, 5]], None], []],
    ["Done", ["x", None], []],
    ["Done", [[], "x"], []],
    ["Done", [[], ["id", 1, []]], []],
    ["Done", [[], ["id", True, [1]]], []],
    ["Done", [[], ["id", True, [], 0]], []],
    ["Failed", ["a", "b"], []],
    ["Failed", ["a", "b", None], []],
]


@pytest.mark.parametrize("control", BAD_FIELDS, ids=lambda c: f"{c[0]}-{c[1]}"[:60])
def test_fields_of_another_kind_are_refused(control: object) -> None:
    with pytest.raises(FormatError):
        decoded(packed(control))


def test_an_error_of_a_hostile_message_is_short() -> None:
    with pytest.raises(FormatError) as caught:
        decoded(packed(["x" * 100_000, [], []]))
    assert len(str(caught.value)) < 200


def test_what_the_other_side_would_refuse_is_not_encoded() -> None:
    with pytest.raises(LimitError, match="AddPiece"):
        encode(AddPiece(FILE, bytes(MAX_BULK_BYTES + 1), last=True))
    commits = tuple((A, None) for _ in range(20_000))
    with pytest.raises(LimitError, match="Publish"):
        encode(Publish(remote="o", commits=commits, refs=()))


def test_ten_thousand_commits_can_be_published_at_once() -> None:
    message = Publish(remote="o", commits=((A, None),) * 10_000, refs=())
    assert decoded(b"".join(encode(message))) == message


def test_an_error_arrives_as_the_same_kind_with_its_hint() -> None:
    error = Failed.of(NoSpaceError("full", hint="Buy a disk.")).error()
    assert type(error) is NoSpaceError
    assert (str(error), error.hint) == ("full", "Buy a disk.")
    assert error.exit_code == NoSpaceError.exit_code


@pytest.mark.parametrize("kind", sorted(k for k in vars(errors) if k.endswith("Error")))
def test_every_kind_of_error_arrives(kind: str) -> None:
    expected = getattr(errors, kind)
    error = Failed(kind, "what", "do this").error()
    assert type(error) is expected
    assert (str(error), error.hint) == ("what", "do this")


def test_an_error_made_of_parts_arrives_with_its_sentence() -> None:
    sent = IntegrityError("object x", expected="1", got="2")
    assert str(Failed.of(sent).error()) == "object x: expected 1, got 2"


@pytest.mark.parametrize("kind", ["ValueError", "annotations", "__name__", "Missing"])
def test_an_unknown_kind_of_error_is_the_writers(kind: str) -> None:
    error: Error = Failed(kind, "what", "").error()
    assert type(error) is WriterError
    assert str(error) == "what"


def test_long_sentences_are_cut() -> None:
    failed = Failed.of(NoSpaceError("x" * 10**6, hint="y" * 10**6))
    assert len(failed.message) + len(failed.hint) < 10_000
    rejected = tuple(Rejection(FILE, "x" * 10_000) for _ in range(512))
    reply = decoded(b"".join(encode(Done(rejected))))
    assert isinstance(reply, Done)
    assert len(reply.rejected) == 512


def test_a_path_that_is_not_utf_8_can_be_complained_of() -> None:
    failed = Failed.of(NoSpaceError("/srv/\udcff: full"))
    reply = decoded(b"".join(encode(failed)))
    assert reply == Failed("NoSpaceError", "/srv/\\udcff: full", NoSpaceError.hint)
