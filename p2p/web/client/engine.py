"""The fetching thread: starts transfers, drives libcurl, hands results over.

Theory of operation. Consumers put commands into a deque and ring an eventfd if the
thread sleeps. A round of the loop runs the commands, starts what may start, lets
libcurl work and collects what has ended; it goes to sleep only when nothing ended,
and hands all events of the rounds since then over at once. Both sides only append
to and pop from deques, and each flag is set before the state it guards is looked at
again, so no wake-up is lost and no lock is needed.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from p2p.web.client.curl import Handle, Handles, Multi
from p2p.web.client.failure import error_of
from p2p.web.client.lane import Done, Event, Failed, Lane
from p2p.web.client.throttle import Throttle
from p2p.web.client.transfer import Transfer
from p2p.web.url import Server, show

_BATCH_EVENTS = 64
"""Handed over at the latest, even if more transfers keep ending."""
_HOLD_MS = 2
_MAX_HOSTS = 100
_FILESIZE_EXCEEDED = 63  # CURLE_FILESIZE_EXCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is done at once.

    libostree fetches 8 files at once; `streams` is for each server with HTTP/2.
    """

    connections: int = 8
    host_connections: int = 8
    streams: int = 32


@dataclass(slots=True)
class _Host:
    """What is going on with one server; `multiplexed` is None until it answers."""

    active: int = 0
    multiplexed: bool | None = None


class _Running(NamedTuple):
    handle: Handle
    host: _Host


class Engine:
    """The state of the fetching thread, and the one call other threads may make."""

    def __init__(self, limits: Limits, notify: Callable[[], None]) -> None:
        """`notify` is called on the fetching thread when `outbox` has got events."""
        self.outbox: deque[list[tuple[Lane, Event]]] = deque()
        self._limits = limits
        self._notify = notify
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False
        self._stopping = False
        self.throttle = Throttle()
        self._handles = Handles(self._prepare)
        self._multi = Multi(
            connections=limits.connections,
            host_connections=limits.host_connections,
            wake=self._wake,
        )
        self._hosts: dict[Server, _Host] = {}
        self._waiting: dict[Lane, None] = {}
        self._blocked: dict[Lane, None] = {}
        self._running: dict[Transfer, _Running] = {}
        self._plain_running = 0
        self._fresh = 0
        self._batch: list[tuple[Lane, Event]] = []
        self._batch_since = 0.0

    def close_wake(self) -> None:
        """Give the eventfd back once nobody calls any more."""
        os.close(self._wake)

    def call(self, command: Callable[[], None]) -> None:
        """Have a command run on the fetching thread soon; for other threads."""
        self._commands.append(command)
        if self._asleep:
            self._asleep = False  # one ring will do
            os.eventfd_write(self._wake, 1)

    # -- commands ---------------------------------------------------------------------

    def start(self, transfer: Transfer) -> None:
        """Queue a transfer."""
        transfer.lane.waiting.append(transfer)
        self._waiting[transfer.lane] = None

    def cancel(self, transfer: Transfer) -> None:
        """Drop a transfer that runs; one that waits is dropped when its turn comes."""
        if transfer in self._running:
            self._release(transfer)

    def limit(self, rate: float | None, dscp: int | None) -> None:
        """Keep all transfers together below a rate, and mark what is sent."""
        if not self.throttle.change(rate, dscp):
            return
        for handle, _ in self._running.values():
            descriptor = handle.socket()
            if descriptor is not None:
                self._prepare(descriptor)
            handle.forbid_reuse()
        if self._hosts:
            # So many may lie idle, and those that lie longest are closed first.
            self._fresh = 2 * self._limits.connections

    def look(self) -> None:
        """Only wake up: every round looks whether blocked lanes may go on."""

    def stop(self) -> None:
        """End the loop."""
        self._stopping = True

    # -- the loop ---------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop, then drop what runs."""
        try:
            while not self._stopping:
                self._round()
        finally:
            self._asleep = False
            for transfer in list(self._running):
                self._release(transfer)
            self._handles.close()

    def close(self) -> None:
        """Close all connections, on the fetching thread and after `run`.

        libcurl 8.20 waits in here for name servers that do not answer.
        """
        self._multi.close()

    def _round(self) -> None:
        while self._commands:
            self._commands.popleft()()
        if self._blocked:
            self._unblock()
        transfer = self.throttle.next()
        if transfer is not None:
            self._resume(transfer)
        self._fill()
        self._multi.perform()
        if self._collect() and len(self._batch) < _BATCH_EVENTS:
            return  # to start others at once
        if not self._may_hold():
            self._hand_over()
        self._asleep = True
        if not self._must_go_on():
            self._multi.wait(running=len(self._running), longest_ms=self._longest_ms())
        self._asleep = False

    def _longest_ms(self) -> int:
        """Return how long to sleep at most; -1 for as long as nothing happens."""
        seconds = self.throttle.patience_seconds()
        if self._batch:
            seconds = min(seconds, _HOLD_MS / 1000)
        return -1 if seconds == inf else math.ceil(seconds * 1000)

    def _hand_over(self) -> None:
        if self._batch:
            self.outbox.append(self._batch)
            self._batch = []
            self._notify()

    def _may_hold(self) -> bool:
        """Tell whether events may wait for others because enough is left to be done.

        Waking a consumer for every few files costs more than the files do.
        """
        if not self._batch or len(self._batch) >= _BATCH_EVENTS:
            return False
        lane = self._batch[0][0]
        if len(lane.waiting) < self._limits.connections or lane.full:
            return False
        return time.monotonic() < self._batch_since + _HOLD_MS / 1000

    def _must_go_on(self) -> bool:
        if self._commands or self._stopping:
            return True
        return any(lane.drained for lane in self._blocked)

    def emit(self, lane: Lane, event: Event) -> None:
        """Have an event handed over soon."""
        if not self._batch:
            self._batch_since = time.monotonic()
        self._batch.append((lane, event))

    # -- starting ---------------------------------------------------------------------

    def _fill(self) -> None:
        """Start what may start, one of each lane in turn."""
        started = True
        while started and self._waiting:
            started = False
            for lane in list(self._waiting):
                if not lane.waiting:
                    del self._waiting[lane]
                elif lane.full:
                    self.block(lane)
                elif self._start_next(lane):
                    started = True

    def _start_next(self, lane: Lane) -> bool:
        transfer = lane.waiting[0]
        if not transfer.cancelled:
            host = self._host(transfer.server)
            if not self._has_room(host):
                return False
            self._launch(transfer, host)
        lane.waiting.popleft()
        return True

    def _host(self, server: Server) -> _Host:
        host = self._hosts.get(server)
        if host is None:
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts = {s: h for s, h in self._hosts.items() if h.active}
            host = self._hosts[server] = _Host()
        return host

    def _has_room(self, host: _Host) -> bool:
        limits, most = self._limits, self.throttle.connections
        if host.multiplexed:
            return host.active < most(limits.streams)
        return self._plain_running < most(limits.connections) and host.active < most(
            limits.host_connections
        )

    def _launch(self, transfer: Transfer, host: _Host) -> None:
        try:
            handle = self._handles.take(transfer.access)
            handle.arm(
                transfer, is_limited=self.throttle.is_limited, fresh=self._fresh > 0
            )
        except Exception as error:  # noqa: BLE001 - an option is wrong: told to the asker
            self.emit(transfer.lane, Failed(transfer, error))
            return
        self._fresh = max(0, self._fresh - 1)
        self._multi.add(handle)
        self._running[transfer] = _Running(handle, host)
        self._count(host, 1)

    def _count(self, host: _Host, change: int) -> None:
        host.active += change
        if not host.multiplexed:
            self._plain_running += change

    def _prepare(self, descriptor: int) -> None:
        self.throttle.prepare(descriptor, self._limits.connections)

    def _release(self, transfer: Transfer, *, clean: bool = False) -> None:
        handle, host = self._running.pop(transfer)
        self.throttle.forget(transfer)
        self._multi.remove(handle)
        self._handles.give(handle, clean=clean)
        self._count(host, -1)

    # -- going on and ending ----------------------------------------------------------

    def _collect(self) -> bool:
        """Deal with what libcurl has brought; tell if it can do more at once."""
        for handle, code, message in self._multi.completions():
            handle.transfer.outcome = (code, message)
        again = False
        for transfer in [t for t in self._running if t.outcome or t.waits]:
            again = self._go_on(transfer) or again
        return again

    def _go_on(self, transfer: Transfer) -> bool:
        """Hand on what has come and end the transfer if it is over.

        Returns whether libcurl has something new to do.
        """
        if transfer.stalled and transfer.lane.blocked:
            return False
        try:
            over = transfer.digest()
        except Exception as error:  # noqa: BLE001 - a decoder's may be any: told to the asker
            self._end(transfer, Failed(transfer, error))
            return True
        if transfer.stalled:
            self.block(transfer.lane)
            return False
        if over:
            self._complete(transfer, 0, "")
        elif transfer.outcome is None:
            return self._resume(transfer)
        else:
            self._complete(transfer, *transfer.outcome)
        return True

    def _resume(self, transfer: Transfer) -> bool:
        if not transfer.paused or transfer.held:
            return False
        transfer.paused = False
        code, message = self._multi.resume(self._running[transfer].handle)
        if code:
            transfer.outcome = (code, message)
        return True

    def _complete(self, transfer: Transfer, code: int, message: str) -> None:
        handle, host = self._running[transfer]
        if host.multiplexed is None and transfer.status:
            host.multiplexed = handle.multiplexed
            if host.multiplexed:
                self._plain_running -= host.active
        self.throttle.count(handle.header_bytes())
        error = _error(transfer, code, message)
        if error is not None:
            self._end(transfer, Failed(transfer, error))
            return
        clean = transfer.outcome is not None
        event: Event | None = None
        try:
            if not transfer.redirect():
                event = Done(transfer, transfer.result())
        except Exception as wrong:  # noqa: BLE001 - as in _go_on
            event = Failed(transfer, wrong)
        if event is not None:
            self._end(transfer, event, clean=clean)
            return
        self._release(transfer, clean=clean)
        # At the head of its queue, for it has waited already.
        transfer.lane.waiting.appendleft(transfer)
        self._waiting[transfer.lane] = None

    def _end(self, transfer: Transfer, event: Event, *, clean: bool = False) -> None:
        self._release(transfer, clean=clean)
        self.emit(transfer.lane, event)

    # -- consumers that fall behind and catch up -------------------------------------

    def block(self, lane: Lane) -> None:
        """Remember a lane that cannot go on until its consumer has caught up."""
        lane.blocked = True
        self._blocked[lane] = None

    def _unblock(self) -> None:
        for lane in list(self._blocked):
            if lane.drained:
                del self._blocked[lane]
                lane.blocked = False
                for transfer in [t for t in self._running if t.lane is lane]:
                    self._go_on(transfer)


def _error(transfer: Transfer, code: int, message: str) -> Exception | None:
    if transfer.error is not None:
        return transfer.error
    if transfer.outgoing is not None and transfer.outgoing.error is not None:
        return transfer.outgoing.error
    if code == 0:
        return None
    if code == _FILESIZE_EXCEEDED:
        # The page that explains an error may be longer than what was asked for.
        return transfer.too_long() if transfer.succeeds else None
    return error_of(code, message, show(transfer.url))
