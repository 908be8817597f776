"""One thread with an asyncio loop, for the libraries that know nothing of trio.

Calls cross from trio by `run`, which waits, and news cross to trio by `post`. Objects
of the other side never cross: each library stays behind its own door.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")
_log = logging.getLogger(__name__)
# A library that ignores being cancelled is left behind after this long.
CANCEL_SECONDS: Final = 5.0


class Bridge:
    """The asyncio thread, seen from trio; `open_bridge` makes one."""

    def __init__(self) -> None:
        """Take the token of the trio run it is made in."""
        self._token = trio.lowlevel.current_trio_token()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._main, name="asyncio", daemon=True)

    async def run(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: object
    ) -> T:
        """Run a coroutine function in the asyncio thread and wait for its result.

        Cancelling this cancels that and waits until it has ended.
        """
        done = trio.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            task = self._loop.create_task(function(*args))
            task.add_done_callback(lambda _: self.post(done.set))
            tasks.append(task)

        def cancel() -> None:
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(start)
        try:
            await done.wait()
        except trio.Cancelled:
            self._loop.call_soon_threadsafe(cancel)
            with trio.move_on_after(CANCEL_SECONDS, shield=True):
                await done.wait()
            if not done.is_set():
                _log.error("%s does not end when cancelled", function.__qualname__)
            elif not tasks[0].cancelled():
                tasks[0].exception()  # too late for anybody, and asyncio insists
            raise
        return tasks[0].result()

    def post(self, function: Callable[[], object]) -> None:
        """Call a function in trio's thread soon; from the asyncio thread."""
        with suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._token.run_sync_soon(function)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._finish()
        finally:
            self._loop.close()
            self.post(self._ended.set)

    def _finish(self) -> None:
        """End what still runs, so that nothing is destroyed in the middle."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_SECONDS))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and wait for it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        await self._ended.wait()
        self._thread.join()


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Run an asyncio thread for the time of the block."""
    bridge = Bridge()
    bridge.start()
    try:
        yield bridge
    finally:
        with trio.CancelScope(shield=True):
            await bridge.stop()


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong in a task that nobody waits for."""
    _log.error(
        "in the asyncio thread: %s",
        context.get("message"),
        exc_info=context.get("exception"),
    )
