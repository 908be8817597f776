"""What an agent remembers over restarts: what it was told, and what came of it.

One JSON file, replaced atomically at each change. A version before this one must be
able to read it, because the rollback of an operating system takes the agent back too:
keys are only ever added, and those that are not known are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from p2p.agent.config import Follow, parse_refspec
from p2p.errors import FormatError
from p2p.ostree.disk import disk_error, write_file, writing

MAX_UPDATES = 50
_FILE = "agent.json"
_MAX_BYTES = 4 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one check of a followed branch brought, for people and programs.

    Attributes:
        time: when it ended, in seconds since 1970.
        refspec: the branch.
        commit: its head now; None if that could not be told.
        previous: its head before.
        confirmed: whether the origin itself said that this is its head.
        seconds: how long it took.
        origin_bytes, origin_objects, peer_bytes, peer_objects: what came from where.
        error, message, hint: what went wrong; empty if nothing did.

    """

    time: float
    refspec: str
    commit: str | None = None
    previous: str | None = None
    confirmed: bool = False
    seconds: float = 0.0
    origin_bytes: int = 0
    origin_objects: int = 0
    peer_bytes: int = 0
    peer_objects: int = 0
    error: str = ""
    message: str = ""
    hint: str = ""


class Override(NamedTuple):
    """A limit that was set by command, and until when it holds; None: for good."""

    text: str
    until: float | None

    def is_over(self, now: float) -> bool:
        """Tell whether it holds no more."""
        return self.until is not None and self.until <= now


@dataclass(slots=True, kw_only=True)
class State:
    """What is remembered.

    Attributes:
        enabled: whether `p2p enable` or `p2p disable` was said last; None: neither.
        follows: branches that were followed by command, by `REMOTE:REF`.
        confirmed: when an origin last said that a branch's head is what we have.
        rolled_back: commits that a person went back from; not deployed by themselves.
        limits: what was set by `p2p limits set`, by setting.
        updates: the last ones that changed something or failed, oldest first.

    """

    enabled: bool | None = None
    follows: dict[str, Follow] = field(default_factory=dict)
    confirmed: dict[str, float] = field(default_factory=dict)
    rolled_back: list[str] = field(default_factory=list)
    limits: dict[str, Override] = field(default_factory=dict)
    updates: list[Update] = field(default_factory=list)

    def note(self, update: Update) -> None:
        """Remember an update, and not too many; of like failures only the last."""
        last = self.updates[-1] if self.updates else None
        if last is not None and update.error and _alike(last, update):
            self.updates.pop()
        self.updates.append(update)
        del self.updates[:-MAX_UPDATES]


def _alike(one: Update, other: Update) -> bool:
    return (one.refspec, one.error, one.message) == (
        other.refspec,
        other.error,
        other.message,
    )


class StateFile:
    """A `State` and the file it is kept in.

    Attributes:
        replaced: why what was there could not be read and was set aside; else "".

    """

    def __init__(self, directory: str) -> None:
        """Read what is there.

        A damaged file is set aside as `agent.json.damaged`: a device that refused to
        start would get no updates any more.

        Raises:
            RepositoryError: the disk says no.

        """
        self._path = os.path.join(directory, _FILE)
        self.replaced = ""
        with writing(directory):
            os.makedirs(directory, mode=0o755, exist_ok=True)
            self.state = self._read()

    def _read(self) -> State:
        try:
            with open(self._path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return State()
        try:
            return decode(data)
        except FormatError as error:
            self.replaced = str(error)
            os.rename(self._path, self._path + ".damaged")
            return State()

    def save(self) -> None:
        """Make the state durable; errors as `p2p.ostree.disk.writing`."""
        with writing(self._path):
            write_file(self._path, encode(self.state), fsync=True)


def read_state(directory: str) -> State:
    """Return the state kept in a directory, and change nothing there.

    Raises:
        FormatError: it is damaged.
        RepositoryError: it may not be read.

    """
    path = os.path.join(directory, _FILE)
    try:
        with open(path, "rb") as file:
            return decode(file.read(_MAX_BYTES + 1))
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise disk_error(path, error) from None


def encode(state: State) -> bytes:
    """Return a state as JSON."""
    record = {
        "version": 1,
        "enabled": state.enabled,
        "follows": [
            {"ref": refspec, "deploy": follow.deploy}
            for refspec, follow in state.follows.items()
        ],
        "confirmed": state.confirmed,
        "rolled_back": state.rolled_back[-MAX_UPDATES:],
        "limits": {name: list(said) for name, said in state.limits.items()},
        "updates": [asdict(update) for update in state.updates],
    }
    return json.dumps(record, indent=1).encode() + b"\n"


def decode(data: bytes) -> State:
    """Return the state in JSON; FormatError if it is none."""
    if len(data) > _MAX_BYTES:
        raise FormatError(f"state of more than {_MAX_BYTES} bytes")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"state is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise FormatError("state is not a JSON object")
    return State(
        enabled=_take(record, "enabled", bool, None),
        follows=dict(map(_follow, _take(record, "follows", list, []))),
        confirmed=_confirmed(_take(record, "confirmed", dict, {})),
        rolled_back=list(map(_text, _take(record, "rolled_back", list, []))),
        limits=_limits(_take(record, "limits", dict, {})),
        updates=list(map(_update, _take(record, "updates", list, []))),
    )


def _take(record: Mapping[str, Any], key: str, kind: Callable[..., T], default: T) -> T:
    value = record.get(key)
    if value is None:
        return default
    if type(value) is not kind:
        raise FormatError(f"state: {key} is {type(value).__name__}")
    taken: T = value
    return taken


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FormatError("state: a commit is none")
    return value


def _follow(value: object) -> tuple[str, Follow]:
    match value:
        case {"ref": str(refspec), "deploy": bool(deploy)}:
            remote, ref = parse_refspec(refspec)
            return refspec, Follow(remote=remote, ref=ref, deploy=deploy)
    raise FormatError("state: a followed branch is malformed")


def _confirmed(values: Mapping[str, Any]) -> dict[str, float]:
    if not all(type(when) in (int, float) for when in values.values()):
        raise FormatError("state: a time is none")
    return {refspec: float(when) for refspec, when in values.items()}


def _limits(values: Mapping[str, Any]) -> dict[str, Override]:
    limits = {}
    for name, value in values.items():
        match value:
            case [str(text), None | int() | float() as until]:
                limits[name] = Override(text, until)
            case _:
                raise FormatError("state: a limit is malformed")
    return limits


def _update(value: object) -> Update:
    if not isinstance(value, dict):
        raise FormatError("state: an update is malformed")
    known = {each.name for each in fields(Update)}
    try:
        return Update(**{key: value[key] for key in known & value.keys()})
    except TypeError as error:
        raise FormatError(f"state: an update is malformed: {error}") from None
