"""What an agent and a writer say to each other, and how it is put into bytes.

Every request gets exactly one reply, in order. A frame is a 32-bit big-endian
length, a MessagePack array of that length, and the bulk bytes whose lengths the
array names: bulk never passes through MessagePack. Nothing in a frame is trusted:
the writer checks lengths before it takes memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from p2p.errors import Error, FormatError, LimitError, WriterError, error_named
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, parse_checksum
from p2p.ostree.refs import RefPath

# An empty array of one byte becomes an object of 56: this bounds what a lying agent
# can make of it. It is room for a publication of some 15,000 commits.
MAX_CONTROL_BYTES = 1 << 20
MAX_BULK_BYTES = 16 << 20
# What a `Failed` and a `Rejection` say at most, in characters.
_MAX_TEXT = 4000
_MAX_REASON = 500
_MAX_NOTES = 20
_LENGTH = struct.Struct(">I")


class Form(IntEnum):
    """In which form an object's bytes are."""

    CANONICAL = 0
    FILEZ = 1


@dataclass(frozen=True, slots=True)
class StageObjects:
    """Verify and stage whole objects: (name, form, bytes)."""

    objects: tuple[tuple[ObjectName, Form, bytes], ...]


@dataclass(frozen=True, slots=True)
class BeginObject:
    """Start an object that comes in pieces; `size` is its length in this form.

    Only a `.filez` may leave it open: it says itself where it ends.
    """

    name: ObjectName
    form: Form
    size: int | None


@dataclass(frozen=True, slots=True)
class AddPiece:
    """The next bytes of an object that was begun; `last` ends it."""

    name: ObjectName
    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class AbortObject:
    """Forget an object that was begun."""

    name: ObjectName


@dataclass(frozen=True, slots=True)
class StageSignatures:
    """Stage a commit's detached metadata."""

    commit: Checksum
    data: bytes


@dataclass(frozen=True, slots=True)
class Sync:
    """Make all that was staged durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Verify staged commits once more and make them visible, then set refs.

    Attributes:
        remote: whose keys must have signed, by its name in the repository.
        commits: oldest first, each with the ref it is for (None: an ancestor).
        refs: what to set afterwards.
        metadata_only: the commits' content is not here and they stay partial.
        allow_older: an older commit than the ref's current one is wanted.
        fsync: whether the result is durable before the reply.

    """

    remote: str
    commits: tuple[tuple[Checksum, str | None], ...]
    refs: tuple[tuple[RefPath, Checksum], ...]
    metadata_only: bool = False
    allow_older: bool = False
    fsync: bool = True


@dataclass(frozen=True, slots=True)
class KeepSummary:
    """Keep a remote's summary as this repository's own, as a mirror of it does."""

    remote: str
    data: bytes
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep an old commit of a remote for neighbours, if one is given.

    Of all that are kept the oldest go, until what only they need is at most so much.
    """

    remote: str
    commit: Checksum | None
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Deploy:
    """Verify a published commit once more, and make it what runs.

    Where it is deployed to, the writer was told when it was started, not now.
    """

    refspec: str
    commit: Checksum


@dataclass(frozen=True, slots=True)
class Rollback:
    """Make the deployment before the newest one what runs."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Take up the update that is under way, if one is, after a crash or a boot."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An object that was not what its name says, and why."""

    name: ObjectName
    reason: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """What runs now, or from the next boot on; `changed` is False if it did already.

    `notes` are sentences for a person.
    """

    id: str
    changed: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out, but for these objects.

    `deployed` is there if it was to deploy or to roll back.
    """

    rejected: tuple[Rejection, ...] = ()
    deployed: Deployed | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was not carried out; `kind` names a class of `p2p.errors`."""

    kind: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: Error) -> Failed:
        """Return the reply that carries an error."""
        return cls(type(error).__name__, str(error)[:_MAX_TEXT], error.hint[:_MAX_TEXT])

    def error(self) -> Error:
        """Return the error again, of the same class and exit code."""
        return error_named(self.kind, self.message, self.hint, default=WriterError)


Request = (
    StageObjects
    | BeginObject
    | AddPiece
    | AbortObject
    | StageSignatures
    | Sync
    | Publish
    | KeepSummary
    | Keep
    | Deploy
    | Rollback
    | Resume
)
Reply = Done | Failed


# -- requests and replies as arrays: [kind, …fields], bulk apart -------------------


def encode(message: Request | Reply) -> list[bytes]:
    """Return the buffers to send, in order.

    Raises:
        LimitError: the message is larger than `decode` takes.

    """
    fields, bulk = _fields(message)
    lengths = [len(data) for data in bulk]
    control = msgpack.packb(
        [type(message).__name__, fields, lengths],
        # A path in an error need not be UTF-8.
        unicode_errors="backslashreplace",
    )
    if len(control) > MAX_CONTROL_BYTES or sum(lengths) > MAX_BULK_BYTES:
        raise LimitError(
            f"{type(message).__name__} of {len(control)} and {sum(lengths)} bytes "
            "is too large to be handed to the writer at once"
        )
    return [_LENGTH.pack(len(control)) + control, *bulk]


def _fields(message: Request | Reply) -> tuple[list[object], list[bytes]]:
    match message:
        case StageObjects(objects):
            names = [[*_name(name), int(form)] for name, form, _ in objects]
            return [names], [data for _, _, data in objects]
        case BeginObject(name, form, size):
            return [*_name(name), int(form), size], []
        case AddPiece(name, data, last):
            return [*_name(name), last], [data]
        case AbortObject(name):
            return _name(name), []
        case StageSignatures(commit, data):
            return [commit], [data]
        case Sync():
            return [], []
        case Publish():
            return [
                message.remote,
                message.commits,
                message.refs,
                message.metadata_only,
                message.allow_older,
                message.fsync,
            ], []
        case KeepSummary(remote, data, signature):
            return [remote], [data] if signature is None else [data, signature]
        case Keep() | Deploy() | Rollback() | Resume() | Done() | Failed():
            return _plain_fields(message), []


def _plain_fields(message: Keep | Deploy | Rollback | Resume | Reply) -> list[object]:
    match message:
        case Keep(remote, kept, max_bytes):
            return [remote, kept, max_bytes]
        case Deploy(refspec, commit):
            return [refspec, commit]
        case Rollback() | Resume():
            return []
        case Done(rejected, deployed):
            rows = [[*_name(r.name), r.reason[:_MAX_REASON]] for r in rejected]
            return [rows, None if deployed is None else _deployed_fields(deployed)]
        case Failed(kind, text, hint):
            return [kind, text, hint]


def _deployed_fields(deployed: Deployed) -> list[object]:
    notes = [note[:_MAX_TEXT] for note in deployed.notes[:_MAX_NOTES]]
    return [deployed.id, deployed.changed, notes]


def _name(name: ObjectName) -> list[object]:
    return [name.checksum, int(name.type)]


def decode(read: Callable[[int], bytes]) -> Request | Reply | None:
    """Return the next message; None at a clean end.

    Args:
        read: returns exactly so many bytes, or fewer only at the end of the stream.

    Raises:
        FormatError: the other side does not speak this protocol or was cut off.

    """
    prefix = read(_LENGTH.size)
    if not prefix:
        return None
    if len(prefix) < _LENGTH.size:
        raise FormatError("message cut off")
    (length,) = _LENGTH.unpack(prefix)
    if length > MAX_CONTROL_BYTES:
        raise LimitError(f"message of {length} bytes")
    kind, fields, lengths = _control(_read_exactly(read, length))
    if sum(lengths) > MAX_BULK_BYTES:
        raise LimitError(f"message with {sum(lengths)} bytes of bulk")
    bulk = [_read_exactly(read, length) for length in lengths]
    try:
        return _build(kind, fields, bulk)
    except (ValueError, TypeError) as error:
        raise FormatError(f"message {kind[:40]!r} is malformed: {error}") from None


def _control(data: bytes) -> tuple[str, list[Any], list[int]]:
    try:
        control = msgpack.unpackb(data, max_map_len=0, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise FormatError(f"message is not MessagePack: {error}") from None
    match control:
        case [str(kind), list(fields), list(lengths)] if all(map(_is_size, lengths)):
            return kind, fields, lengths
    raise FormatError("message is not [kind, fields, lengths]")


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _read_exactly(read: Callable[[int], bytes], length: int) -> bytes:
    data = read(length) if length else b""
    if len(data) != length:
        raise FormatError("message cut off")
    return data


def _object(checksum: object, kind: object) -> ObjectName:
    if not isinstance(checksum, str) or type(kind) is not int:
        raise TypeError("not the name of an object")
    return ObjectName(parse_checksum(checksum), ObjectType(kind))


def _checksum(text: object) -> Checksum:
    return parse_checksum(_text(text))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _form(value: object) -> Form:
    if type(value) is not int:
        raise TypeError("not a form")
    return Form(value)


def _build(kind: str, fields: list[Any], bulk: list[bytes]) -> Request | Reply:
    match kind, fields, bulk:
        case "StageObjects", [list(names)], _:
            pairs = zip(names, bulk, strict=True)
            return StageObjects(
                tuple((_object(c, t), _form(f), data) for (c, t, f), data in pairs)
            )
        case "BeginObject", [checksum, number, form, size], [] if (
            size is None or _is_size(size)
        ):
            return BeginObject(_object(checksum, number), _form(form), size)
        case "AddPiece", [checksum, number, bool(last)], [data]:
            return AddPiece(_object(checksum, number), data, last)
        case "AbortObject", [checksum, number], []:
            return AbortObject(_object(checksum, number))
        case "StageSignatures", [checksum], [data]:
            return StageSignatures(_checksum(checksum), data)
        case "Sync", [], []:
            return Sync()
        case "Publish", [
            str(remote),
            list(commits),
            list(refs),
            bool(only),
            bool(older),
            bool(fsync),
        ], []:
            return Publish(
                remote=remote,
                commits=tuple(
                    (_checksum(c), None if ref is None else _text(ref))
                    for c, ref in commits
                ),
                refs=tuple((RefPath(_text(r)), _checksum(c)) for r, c in refs),
                metadata_only=only,
                allow_older=older,
                fsync=fsync,
            )
        case "KeepSummary", [str(remote)], [data, *rest] if len(rest) <= 1:
            return KeepSummary(remote, data, rest[0] if rest else None)
    return _build_plain(kind, fields, bulk)


def _build_plain(kind: str, fields: list[Any], bulk: list[bytes]) -> Request | Reply:
    match kind, fields, bulk:
        case "Keep", [str(remote), kept, size], [] if _is_size(size):
            return Keep(remote, None if kept is None else _checksum(kept), size)
        case "Deploy", [str(refspec), checksum], []:
            return Deploy(refspec, _checksum(checksum))
        case "Rollback", [], []:
            return Rollback()
        case "Resume", [], []:
            return Resume()
        case "Done", [list(rejected), deployed], []:
            return Done(
                tuple(Rejection(_object(c, t), _text(r)) for c, t, r in rejected),
                None if deployed is None else _build_deployed(deployed),
            )
        case "Failed", [str(name), str(text), str(hint)], []:
            return Failed(name, text, hint)
    raise FormatError(f"message {kind[:40]!r} with {len(fields)} fields is not known")


def _build_deployed(value: object) -> Deployed:
    match value:
        case [str(name), bool(changed), list(notes)]:
            return Deployed(name, changed, tuple(map(_text, notes)))
    raise TypeError("not what was deployed")
