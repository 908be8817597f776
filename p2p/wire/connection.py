"""One conversation with a peer, as bytes in and out; sans-IO and alike at both ends.

Theory of operation: `send` queues messages and `data_to_send` gives the bytes for a
single writer; `receive_data` takes bytes and `next_event` gives the messages in
them, of the same classes. Bytes that wait are only looked at by `next_event`, so
that state changes exactly when the caller learns of it. Each request is followed at
both ends by the tables in `exchange`; the session by the one in `session`.

This module is the only one where a broken rule becomes somebody's fault.
"""

from __future__ import annotations

from typing import assert_never

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.wire import layout
from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead, Head, UnitHead, split
from p2p.wire.exchange import Signal, check_answer, check_map, check_update
from p2p.wire.frame import FrameReader, Portion
from p2p.wire.ledger import Ledger
from p2p.wire.limits import MAX_SLICE_BYTES
from p2p.wire.outbox import Outbox
from p2p.wire.packing import ZSTD
from p2p.wire.rule import RuleError
from p2p.wire.session import Side, step
from p2p.wire.updates import merge_have, merge_units

_Gossip = m.Holdings | m.Record | m.Digest
_Other = m.Hello | m.Bye | m.Ping | m.Pong | _Gossip | m.Cancel


class Connection:
    """The protocol's state for one session over an authenticated byte stream.

    Attributes:
        ours: how far the direction from us is.
        theirs: how far the direction to us is.
        hello: what we said in HELLO.
        peer: what the peer said in HELLO.
        wasted_bytes: bulk that came for requests which then ended cancelled.

    """

    def __init__(self) -> None:
        self.ours = self.theirs = Side.START
        self.hello: m.Hello | None = None
        self.peer: m.Hello | None = None
        self.wasted_bytes = 0
        self._asked = Ledger()  # by us
        self._owed = Ledger()  # to them
        self._issued = 0
        self._ping: int | None = None
        self._reader = FrameReader()
        self._outbox = Outbox()
        self._failure = ""

    def __repr__(self) -> str:
        return (
            f"<Connection {self.ours.value}/{self.theirs.value}, "
            f"asked {len(self._asked)}, owed {len(self._owed)}, "
            f"queued {self._outbox.control_bytes} + {self._outbox.bulk_bytes} bytes>"
        )

    # -- how it stands -----------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Tell whether requests may be sent: both HELLOs passed, nobody left."""
        return self.ours is Side.OPEN and self.theirs is Side.OPEN

    @property
    def may_pack(self) -> bool:
        """Tell whether content may be sent as zstd frames: both said that they can."""
        return all(
            said is not None and ZSTD in said.abilities
            for said in (self.hello, self.peer)
        )

    @property
    def has_output(self) -> bool:
        """Tell whether `data_to_send` has something."""
        return bool(self._outbox)

    @property
    def slice_left(self) -> int:
        """How much must come before the peer can say anything else; 0 between frames.

        Only bulk counts.
        """
        return self._reader.slice_left

    @property
    def awaits_pong(self) -> bool:
        """Tell whether our last PING is not answered yet."""
        return self._ping is not None

    @property
    def queued_control_bytes(self) -> int:
        """How much control waits; past 256 KiB the session fails."""
        return self._outbox.control_bytes

    @property
    def queued_bulk_bytes(self) -> int:
        """How much bulk waits; read no disk while it is more than a unit or two."""
        return self._outbox.bulk_bytes

    @property
    def flowing(self) -> list[tuple[int, int]]:
        """Whose bulk waits to be sent, each with how much waits before it ends."""
        return self._outbox.waiting_bulk()

    @property
    def asked(self) -> tuple[m.RequestId, ...]:
        """Our requests that wait for their terminal answer."""
        return tuple(self._asked)

    @property
    def owed(self) -> tuple[m.RequestId, ...]:
        """The peer's requests that we have not answered to the end."""
        return tuple(self._owed)

    def owes(self, request: int) -> bool:
        """Tell whether the peer still waits for our answer to this request."""
        return request in self._owed

    def progress(self, request: int) -> tuple[int, int]:
        """Return bulk bytes received for our open request, and announced by now."""
        return (
            self._asked.find(request).bulk_bytes if request in self._asked else (0, 0)
        )

    def has_room(self, request: m.Request) -> bool:
        """Tell whether the peer's limits allow this request now."""
        return self._asked.obstacle(request) is None

    def new_request(self) -> m.RequestId:
        """Return an id for the next request; never the same twice."""
        self._issued += 1
        return m.RequestId(self._issued)

    # -- bytes out -----------------------------------------------------------------

    def send(self, message: m.Message) -> None:
        """Queue a message.

        Raises:
            LocalProtocolError: it is malformed, or not allowed now. Nothing changed.
            RemoteProtocolError: the peer does not read what it was sent.

        """
        try:
            self._send(message)
        except RuleError as error:
            raise LocalProtocolError(f"cannot send: {error}") from None
        except RemoteProtocolError as error:
            self._fail(str(error))
            raise

    def data_to_send(
        self, max_bulk_bytes: int = MAX_SLICE_BYTES
    ) -> list[bytes | memoryview]:
        """Return all control that waits and one slice of bulk; empty if nothing does.

        Write these buffers before asking for more: what was not taken can still be
        overtaken or cancelled. The slice holds at most so many bytes; 0 is no slice.
        """
        buffers = self._outbox.pop_control()
        piece = self._outbox.pop_slice(max_bulk_bytes) if max_bulk_bytes else None
        if piece is not None:
            exchange = self._owed.find(piece.request)
            exchange.pass_bulk(piece.size)
            self._owed.close_if_done(exchange)
            buffers += piece.buffers
        return buffers

    def _send(self, message: m.Message) -> None:
        after = step(self.ours, self.theirs, message)
        if isinstance(message, m.Request):
            self._send_request(message)
        elif isinstance(message, m.BulkAnswer):
            self._send_bulk(message)
        elif isinstance(message, m.PlainAnswer):
            self._send_plain(message)
        elif isinstance(message, m.Status | m.Update):
            self._send_about(message)
        else:
            self._send_other(message)
        self.ours = after

    def _send_other(self, message: _Other) -> None:
        body = layout.encode(message)
        match message:
            case m.Hello():
                self._check_dial(message, self.peer)
                self.hello = self._owed.limits = message
                self._outbox.put(body)
            case m.Bye():
                self._end()
                self._outbox.put(body, force=True)
            case m.Ping(token):
                if self._ping is not None:
                    raise RuleError("a second PING before the first was answered")
                self._ping = token
                self._outbox.put(body)
            case m.Pong():
                raise RuleError("PONG is sent by the Connection")
            case m.Holdings():
                self._outbox.put(body, key="holdings")
            case m.Record(member):
                self._outbox.put(body, key=("record", member))
            case m.Digest():
                self._outbox.put(body, key="digest")
            case m.Cancel(request):
                self._asked.find(request).move(Signal.CANCEL)
                self._outbox.put(body)
            case _:
                assert_never(message)

    def _send_request(self, request: m.Request) -> None:
        body = layout.encode(request)
        self._asked.open(request)
        self._issued = max(self._issued, request.request)
        self._outbox.put(body)

    def _send_bulk(self, answer: m.BulkAnswer) -> None:
        exchange = self._owed.find(answer.request)
        head, pieces = split(answer)
        body = layout.encode(head)
        check_map(exchange.request, answer)
        self._check_frame(head)
        exchange.begin(head)
        self._outbox.put(body)
        if head.bulk_bytes:
            self._outbox.put_bulk(answer.request, pieces)
        self._owed.close_if_done(exchange)

    def _send_plain(self, answer: m.PlainAnswer) -> None:
        if isinstance(answer, m.Cancelled):
            raise RuleError("CANCELLED is sent by the Connection")
        exchange = self._owed.find(answer.request)
        check_answer(exchange.request, answer)
        body = layout.encode(answer)
        exchange.move(Signal.FINAL)
        self._outbox.drop(answer.request)
        self._outbox.put(body)
        self._owed.close_if_done(exchange)

    def _send_about(self, message: m.Status | m.Update) -> None:
        """Queue state about an open request; what already waits is replaced."""
        request = message.request
        exchange = self._owed.find(request)
        if isinstance(message, m.Status):
            body = layout.encode(message)
            exchange.move(Signal.STATUS)
            self._outbox.put(body, key=("status", request), about=request)
            return
        exchange.move(Signal.UPDATE)
        if isinstance(message, m.Have):
            self._send_have(exchange.request, message)
        else:
            self._send_units(exchange.request, message)

    def _send_have(self, request: m.Request, message: m.Have) -> None:
        key = ("have", request.request)
        waiting = self._outbox.waiting(key)
        parts = merge_have(waiting if isinstance(waiting, m.Have) else None, message)
        bodies = [layout.encode(part) for part in parts]
        check_update(request, parts[-1])
        for body in bodies[:-1]:
            self._outbox.put(body)
        about = request.request
        self._outbox.put(bodies[-1], key=key, about=about, message=parts[-1])

    def _send_units(self, request: m.Request, message: m.Units) -> None:
        number = request.request
        waiting: list[m.Units] = []
        while isinstance(
            found := self._outbox.waiting(("units", number, len(waiting))), m.Units
        ):
            waiting.append(found)
        parts = merge_units(waiting, message)
        bodies = [layout.encode(part) for part in parts]
        for part in parts:
            check_update(request, part)
        for at, (part, body) in enumerate(zip(parts, bodies, strict=True)):
            key = ("units", number, at)
            self._outbox.put(body, key=key, about=number, message=part)
        for at in range(len(parts), len(waiting)):
            self._outbox.withdraw(("units", number, at), about=number)

    # -- bytes in ------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the stream; then call `next_event` until it returns None.

        Raises:
            LocalProtocolError: `next_event` did not return None before.

        """
        if self.ours is Side.ENDED or self.theirs is Side.FAILED:
            return
        if not self._reader.is_drained:
            raise LocalProtocolError("events wait: call next_event until None")
        self._reader.feed(data)

    def next_event(self) -> m.Message | None:
        """Return the next message from the peer; None when more bytes are needed.

        After our BYE there are no more. PING and CANCEL are answered already.

        Raises:
            RemoteProtocolError: the peer broke the protocol; only BYE may follow.

        """
        if self.theirs is Side.FAILED:
            raise RemoteProtocolError(self._failure)
        try:
            while self.ours is not Side.ENDED:
                frame = self._reader.next()
                if frame is None:
                    return None
                event = self._receive(frame)
                if event is not None:
                    return event
        except (RuleError, RemoteProtocolError) as error:
            self._fail(str(error))
            raise RemoteProtocolError(self._failure) from None
        return None

    def _receive(self, frame: bytes | Portion) -> m.Message | None:
        if isinstance(frame, Portion):
            step(self.theirs, self.ours, frame)
            return self._receive_bulk(frame)
        message = layout.decode(frame)
        after = step(self.theirs, self.ours, message)
        event = None if message is None else self._receive_message(message)
        self.theirs = after
        return event

    def _receive_message(self, message: layout.Plain) -> m.Message | None:
        if isinstance(message, Head):
            return self._receive_head(message)
        if isinstance(message, m.Request):
            self._receive_request(message)
        elif isinstance(message, m.PlainAnswer):
            self._receive_plain(message)
        elif isinstance(message, m.Status | m.Update):
            self._receive_about(message)
        elif isinstance(message, m.Cancel):
            return self._receive_cancel(message)
        else:
            self._receive_other(message)
        return message

    def _receive_other(self, message: _Other) -> None:
        match message:
            case m.Hello():
                self._check_dial(message, self.hello)
                self.peer = self._asked.limits = message
            case m.Bye():
                self._end()
                self._outbox.clear(control=True)
            case m.Ping(token):
                self._receive_ping(token)
            case m.Pong(token):
                if token != self._ping:
                    raise RuleError("PONG without its PING")
                self._ping = None

    def _receive_about(self, message: m.Status | m.Update) -> None:
        exchange = self._asked.find(message.request)
        if isinstance(message, m.Status):
            exchange.move(Signal.STATUS)
        else:
            check_update(exchange.request, message)
            exchange.move(Signal.UPDATE)

    def _receive_ping(self, token: int) -> None:
        if self._outbox.waiting("pong") is not None:
            raise RuleError("a second PING before the first was answered")
        pong = m.Pong(token)
        self._outbox.put(layout.encode(pong), key="pong", message=pong)

    def _receive_request(self, request: m.Request) -> None:
        self._owed.open(request)

    def _receive_cancel(self, message: m.Cancel) -> m.Message | None:
        request = message.request
        if request > self._owed.last:
            raise RuleError(f"CANCEL of request {request}, which was not made")
        if request not in self._owed:
            return None  # it crossed our answer
        exchange = self._owed.find(request)
        exchange.move(Signal.CANCEL)
        exchange.move(Signal.CANCELLED)
        self._outbox.drop(request)
        self._outbox.put(layout.encode(m.Cancelled(request)))
        self._owed.close_if_done(exchange)
        return message

    def _receive_plain(self, answer: m.PlainAnswer) -> None:
        exchange = self._asked.find(answer.request)
        check_answer(exchange.request, answer)
        if isinstance(answer, m.Cancelled):
            exchange.move(Signal.CANCELLED)
            self.wasted_bytes += exchange.bulk_bytes[0]
        else:
            exchange.move(Signal.FINAL)
        self._asked.close_if_done(exchange)

    def _receive_head(self, head: Head) -> m.Message | None:
        exchange = self._asked.find(head.request)
        self._check_frame(head)
        exchange.begin(head)
        if head.bulk_bytes:
            return None
        self._asked.close_if_done(exchange)
        return exchange.answer()

    def _receive_bulk(self, portion: Portion) -> m.Message | None:
        exchange = self._asked.find(portion.request)
        answer = exchange.receive_bulk(portion.data)
        self._asked.close_if_done(exchange)
        return answer

    # -- rules of the session ------------------------------------------------------

    def _check_dial(self, hello: m.Hello, other: m.Hello | None) -> None:
        if other is not None and bool(hello.dial) is bool(other.dial):
            raise RuleError("exactly one side dials")

    def _check_frame(self, head: Head) -> None:
        is_packed = isinstance(head, BatchHead | UnitHead) and head.frame_bytes
        if is_packed and not self.may_pack:
            raise RuleError("a zstd frame, which not both sides can read")

    def _end(self) -> None:
        self._asked.clear()
        self._owed.clear()
        self._outbox.clear(control=False)

    def _fail(self, reason: str) -> None:
        self.theirs = Side.FAILED
        self._failure = reason
        self._reader = FrameReader()
        self._end()
