"""What waits to be written: control first, then bulk in slices.

State messages wait under a key and are replaced there, so that a slow reader gets
the latest state instead of its history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from itertools import accumulate
from typing import NamedTuple

from p2p.errors import RemoteProtocolError
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.limits import MAX_CONTROL_QUEUE_BYTES, MAX_SLICE_BYTES
from p2p.wire.messages import Message


class Waiting(NamedTuple):
    """A control frame and the message in it."""

    frame: bytes
    message: Message | None


class Slice(NamedTuple):
    """A frame of bulk: its buffers, and whose and how much it is."""

    request: int
    size: int
    buffers: list[bytes | memoryview]


class Outbox:
    """Two queues for one writer."""

    __slots__ = (
        "_about",
        "_bulk",
        "_control",
        "_serial",
        "bulk_bytes",
        "control_bytes",
    )

    def __init__(self) -> None:
        self._control: dict[Hashable, Waiting] = {}
        self._bulk: dict[int, deque[memoryview]] = {}
        self._about: dict[int, set[Hashable]] = {}
        self._serial = 0
        self.control_bytes = 0
        self.bulk_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._control or self._bulk)

    def put(
        self,
        body: bytes,
        *,
        key: Hashable = None,
        about: int | None = None,
        message: Message | None = None,
        force: bool = False,
    ) -> None:
        """Queue a control body; one that waits under the same key is replaced.

        Args:
            body: what to put into a frame.
            key: under which it can be replaced.
            about: the request whose end makes it pointless; only with a key.
            message: what `waiting` returns for the key.
            force: it must go out, however much waits.

        Raises:
            RemoteProtocolError: more waits than a peer that reads lets pile up.

        """
        frame = control_frame(body)
        if key is None:
            self._serial += 1
            key = self._serial
        old = self._control.get(key)
        size = self.control_bytes + len(frame) - (len(old.frame) if old else 0)
        if size > MAX_CONTROL_QUEUE_BYTES and not force:
            raise RemoteProtocolError(
                f"the peer does not read: {size} bytes of control wait for it",
                hint="It was disconnected; it may be overloaded or stopped.",
            )
        self.control_bytes = size
        self._control[key] = Waiting(frame, message)
        if about is not None:
            self._about.setdefault(about, set()).add(key)

    def waiting(self, key: Hashable) -> Message | None:
        """Return the message that waits under a key."""
        found = self._control.get(key)
        return found.message if found else None

    def withdraw(self, key: Hashable, *, about: int) -> None:
        """Forget what waits under a key, and is about that request."""
        self.control_bytes -= len(self._control.pop(key).frame)
        self._about[about].discard(key)

    def put_bulk(self, request: int, pieces: Iterable[bytes]) -> None:
        """Queue the bulk of an answer."""
        views = deque([memoryview(piece) for piece in pieces if piece])
        self._bulk[request] = views
        self.bulk_bytes += sum([len(view) for view in views])

    def drop(self, request: int) -> None:
        """Forget bulk and state that wait for a request that is over."""
        self.bulk_bytes -= sum([len(view) for view in self._bulk.pop(request, ())])
        for key in self._about.pop(request, ()):
            self.control_bytes -= len(self._control.pop(key).frame)

    def clear(self, *, control: bool) -> None:
        """Forget all bulk, and all control too if wanted."""
        self._bulk.clear()
        self.bulk_bytes = 0
        if control:
            self.pop_control()

    def pop_control(self) -> list[bytes | memoryview]:
        """Return all control frames that wait, in order."""
        frames: list[bytes | memoryview] = [w.frame for w in self._control.values()]
        self._control.clear()
        self._about.clear()
        self.control_bytes = 0
        return frames

    def waiting_bulk(self) -> list[tuple[int, int]]:
        """Return whose bulk waits, each with how much waits before it ends."""
        return list(
            zip(
                self._bulk,
                accumulate(sum(map(len, views)) for views in self._bulk.values()),
                strict=True,
            )
        )

    def pop_slice(self, max_bytes: int = MAX_SLICE_BYTES) -> Slice | None:
        """Return the next slice of bulk, uncopied; the oldest answer goes first."""
        if not self._bulk:
            return None
        request, views = next(iter(self._bulk.items()))
        pieces: list[bytes | memoryview] = []
        size = 0
        limit = min(max_bytes, MAX_SLICE_BYTES)
        while views and size < limit:
            view = views.popleft()
            room = limit - size
            if len(view) > room:
                views.appendleft(view[room:])
                view = view[:room]
            pieces.append(view)
            size += len(view)
        if not views:
            del self._bulk[request]
        self.bulk_bytes -= size
        return Slice(request, size, [slice_header(request, size), *pieces])
