"""The agent's end of the writer: in a process of its own, or on a thread here.

Both take the same requests and give the same replies (`p2p.ostree.messages`).
"""

from __future__ import annotations

import io
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from p2p.errors import FormatError, WriterError
from p2p.ostree.messages import (
    MAX_CONTROL_BYTES,
    Done,
    Failed,
    Reply,
    Request,
    decode,
    encode,
)

_LENGTH = struct.Struct(">I")
# The kernel doubles it; one batch fits, so that both sides work at once.
_SOCKET_BUFFER_BYTES = 1 << 20


class Writer(Protocol):
    """Carries out requests one at a time, in order."""

    async def call(self, request: Request) -> Done:
        """Carry out a request; raises the error that the writer reports."""
        ...


def _require_done(reply: Request | Reply | None) -> Done:
    if isinstance(reply, Failed):
        raise reply.error()
    if isinstance(reply, Done):
        return reply
    raise WriterError("the writer sent something that is no reply")


class ThreadWriter:
    """A writer in this process; for a repository that the user owns."""

    def __init__(self, handle: Callable[[Request], Reply]) -> None:
        """`handle` is called on a worker thread, never twice at once."""
        self._handle = handle
        self._lock = trio.Lock()

    async def call(self, request: Request) -> Done:
        """Carry out a request; raises the error that the writer reports."""
        async with self._lock:
            return _require_done(await trio.to_thread.run_sync(self._handle, request))


class ProcessWriter:
    """A writer in another process, spoken to over a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        """Speak over `stream`; `open_process_writer` makes both."""
        self._stream = stream
        self._lock = trio.Lock()
        self._buffer = b""

    async def call(self, request: Request) -> Done:
        """Carry out a request; raises the error that the writer reports.

        Raises:
            WriterError: the process vanished or spoke nonsense.

        """
        async with self._lock:
            # A request that was begun must be finished, or the next one is garbage.
            with trio.CancelScope(shield=True):
                return await self._exchange(request)

    async def _exchange(self, request: Request) -> Done:
        try:
            for buffer in encode(request):
                await self._stream.send_all(buffer)
            return await self.reply()
        except trio.BrokenResourceError:
            raise WriterError("the writer process vanished") from None

    async def reply(self) -> Done:
        """Read one reply; raises the error it reports."""
        prefix = await self._read(_LENGTH.size)
        (length,) = _LENGTH.unpack(prefix)
        if length > MAX_CONTROL_BYTES:
            raise WriterError(f"the writer sent a reply of {length} bytes")
        data = await self._read(length)
        try:
            return _require_done(decode(io.BytesIO(prefix + data).read))
        except FormatError as error:
            raise WriterError(f"the writer sent nonsense: {error}") from None

    async def _read(self, length: int) -> bytes:
        while len(self._buffer) < length:
            data = await self._stream.receive_some(1 << 16)
            if not data:
                raise WriterError("the writer process ended without a reply")
            self._buffer += data
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data


def _start_process(repo_path: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a writer process; return it and our end of the socket to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "p2p.writer", repo_path, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return process, ours


@asynccontextmanager
async def open_process_writer(repo_path: str) -> AsyncIterator[ProcessWriter]:
    """Start a writer process for a repository and end it with the block.

    Raises:
        Error: what kept the writer from opening the repository.

    """
    process, connection = _start_process(repo_path)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    try:
        async with stream:
            writer = ProcessWriter(stream)
            await writer.reply()
            yield writer
    finally:
        # Its end of the socket is closed, so it ends; what it holds is kept.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(process.wait)
