"""The agent's end of the writer: in a process of its own, or on a thread here.

Both take the same requests and give the same replies (`p2p.ostree.messages`).
"""

from __future__ import annotations

import io
import socket
import struct
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import trio

from p2p.agent.writer_command import WRITER_COMMAND
from p2p.deploy.target import Target
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
_RECEIVE_BYTES = 1 << 16
# What Linux takes in one sendmsg (IOV_MAX).
_MAX_BUFFERS = 1024
# How long a writer may take for its last request; killing it later loses nothing.
_GRACE_SECONDS = 60.0


class Writer(Protocol):
    """Carries out requests one at a time, in order."""

    async def call(self, request: Request) -> Done:
        """Carry out a request; raises the error that the writer reports.

        A call that is cancelled may have been carried out, and the next one works.
        """
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
        """Carry out a request; see `Writer`."""
        async with self._lock:
            return _require_done(await trio.to_thread.run_sync(self._handle, request))


class ProcessWriter:
    """A writer in another process, spoken to over a stream socket.

    Attributes:
        lost: whether it vanished or spoke nonsense, so that no call works any more.

    """

    def __init__(self, connection: trio.socket.SocketType) -> None:
        """Speak over this socket; `open_process_writer` makes both."""
        self._connection = connection
        self._lock = trio.Lock()
        self.lost = False
        # What cancelled calls left for the next one: to send, and to read.
        self._unsent: deque[memoryview] = deque()
        self._owed = 0
        self._received = b""

    async def call(self, request: Request) -> Done:
        """Carry out a request; see `Writer`.

        Raises:
            WriterError: the process vanished or spoke nonsense.

        """
        buffers = encode(request)
        async with self._lock:
            try:
                await self._send()
                while self._owed:
                    await self._reply()
                self._unsent.extend(memoryview(b) for b in buffers if b)
                self._owed = 1
                await self._send()
                reply = await self._reply()
            except OSError as error:
                self.lost = True
                raise WriterError(f"the writer process vanished: {error}") from None
            except WriterError:
                self.lost = True
                raise
        return _require_done(reply)

    async def greeting(self) -> None:
        """Wait until the writer is ready; raises what keeps it from being so."""
        self._owed = 1
        _require_done(await self._reply())

    async def _send(self) -> None:
        """Send what is left to be sent; what remains is known when cancelled."""
        while self._unsent:
            count = min(len(self._unsent), _MAX_BUFFERS)
            sent = await self._connection.sendmsg(
                [self._unsent[index] for index in range(count)]
            )
            while sent:
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    break
                sent -= len(self._unsent.popleft())

    async def _reply(self) -> Request | Reply | None:
        (length,) = _LENGTH.unpack(await self._peek(_LENGTH.size))
        if length > MAX_CONTROL_BYTES:
            raise WriterError(f"the writer sent a reply of {length} bytes")
        data = await self._peek(_LENGTH.size + length)
        self._received = self._received[len(data) :]
        self._owed -= 1
        try:
            return decode(io.BytesIO(data).read)
        except FormatError as error:
            raise WriterError(f"the writer sent nonsense: {error}") from None

    async def _peek(self, count: int) -> bytes:
        """Return received bytes without taking them, waiting until they are there."""
        while len(self._received) < count:
            data = await self._connection.recv(_RECEIVE_BYTES)
            if not data:
                raise WriterError("the writer process ended without a reply")
            self._received += data
        return self._received[:count]


OpenProcessWriter = Callable[[], AbstractAsyncContextManager[ProcessWriter]]


class LastingWriter:
    """A writer that is opened anew where its process was lost.

    The call that finds it lost fails, and with it whatever began objects there; what
    was staged is kept.
    """

    def __init__(self, open_one: OpenProcessWriter) -> None:
        """`open_lasting_writer` opens the first one."""
        self._open_one = open_one
        self._lock = trio.Lock()
        self._held = AsyncExitStack()
        self._writer: ProcessWriter | None = None

    async def call(self, request: Request) -> Done:
        """Carry out a request; see `Writer`."""
        async with self._lock:
            writer = self._writer
            if writer is None or writer.lost:
                writer = await self.open()
        return await writer.call(request)

    async def open(self) -> ProcessWriter:
        """Open a writer in place of one that is lost; errors as opening it."""
        await self.aclose()
        self._writer = await self._held.enter_async_context(self._open_one())
        return self._writer

    async def aclose(self) -> None:
        """Let go of the writer there is."""
        self._writer = None
        await self._held.aclose()


@asynccontextmanager
async def open_lasting_writer(
    open_one: OpenProcessWriter,
) -> AsyncIterator[LastingWriter]:
    """Open a writer, and again whenever it is lost, until the end of the block."""
    writer = LastingWriter(open_one)
    await writer.open()
    try:
        yield writer
    finally:
        await writer.aclose()


@asynccontextmanager
async def open_process_writer(
    repo_path: str,
    settings: Mapping[str, str] | None = None,
    *,
    target: Target | None = None,
    command: Sequence[str] = WRITER_COMMAND,
) -> AsyncIterator[ProcessWriter]:
    """Start a writer process for a repository and end it with the block.

    Args:
        repo_path: the repository.
        settings: keys of `[core]` that count instead of its own.
        target: where it deploys to; None if nowhere.
        command: the program; the repository and a descriptor's number are added.

    Raises:
        WriterError: the process cannot be started.
        Error: what kept the writer from opening the repository.

    """
    options = [f"{key}={value}" for key, value in (settings or {}).items()]
    options += target.options() if target is not None else ()
    process, ours = await _start(repo_path, options, command)
    try:
        with trio.socket.from_stdlib_socket(ours) as connection:
            writer = ProcessWriter(connection)
            await writer.greeting()
            yield writer
    finally:
        # Its end of the socket is closed, so it ends; what it holds is kept.
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_GRACE_SECONDS):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def connect_writer(path: str) -> AsyncIterator[ProcessWriter]:
    """Speak to a writer that somebody else started, at its AF_UNIX socket.

    Raises:
        WriterError: nobody answers there.
        Error: what kept the writer from opening the repository.

    """
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        try:
            await connection.connect(path)
        except OSError as error:
            raise WriterError(
                f"no writer at {path}: {error.strerror}",
                hint="Start it: `systemctl start ostree-p2p-writer.socket`.",
            ) from None
        writer = ProcessWriter(connection)
        await writer.greeting()
        yield writer


async def _start(
    repo_path: str, options: Sequence[str], command: Sequence[str]
) -> tuple[trio.Process, socket.socket]:
    """Start a writer process; return it and our end of the socket to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        try:
            process = await trio.lowlevel.open_process(
                [*command, repo_path, str(theirs.fileno()), *options],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C is for the agent, which then closes the connection.
                process_group=0,
            )
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise WriterError(f"no writer process: {error}") from None
            raise
    return process, ours
