"""Runs one program of an administrator's: bounded in time and output, and all of it.

Whatever it started is killed with it, also what left its process group: what it
started inherits a word in its environment by which it is found again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_OUTPUT_BYTES = 4096
"""How much of what it says is kept: the end, where the reason is."""
_READ_BYTES = 1 << 16
# Between two looks at whether it has ended: nothing tells when only a child of its
# still holds the other end of the pipe.
_LOOK_SECONDS = 0.05
_SWEEPS = 100
_MARK = "OSTREE_P2P_SCRIPT"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    Attributes:
        error: what was wrong with that; empty if nothing was.
        output: the end of what it said.

    """

    error: str
    output: str

    def __str__(self) -> str:
        """Return both, for people."""
        return f"{self.error}: {self.output}" if self.output else self.error


def run_script(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Ending:
    """Run a program to its end, or for so long; nothing it started is left."""
    mark = secrets.token_hex(16)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {}), _MARK: mark},
            start_new_session=True,
        )
    except OSError as error:
        return Ending(f"cannot be run: {error.strerror}", "")
    with process:
        try:
            output, in_time = _listen(process, time.monotonic() + timeout_seconds)
        finally:
            _kill(process, mark)
    said = output.decode(errors="replace").strip()
    if not in_time:
        return Ending(f"did not end within {timeout_seconds:g} seconds", said)
    return Ending(_describe(process.returncode), said)


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}" if status else ""


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bool]:
    """Return the end of what it says, and whether it ended in time."""
    assert process.stdout is not None  # noqa: S101 - for the type: it was asked for
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return output, False
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(left)
            elif selector.select(min(left, _LOOK_SECONDS)):
                data = os.read(pipe, _READ_BYTES)
                output = (output + data)[-MAX_OUTPUT_BYTES:]
                if not data:
                    selector.unregister(pipe)
    with contextlib.suppress(BlockingIOError):
        # A child of its may hold the other end, and speak without end.
        for _ in range(_SWEEPS):
            if not (data := os.read(pipe, _READ_BYTES)):
                break
            output = (output + data)[-MAX_OUTPUT_BYTES:]
    return output, True


def _kill(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill it, its process group, and all that bears its mark."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    word = f"{_MARK}={mark}".encode()
    for _ in range(_SWEEPS):
        found = [each for each in os.listdir("/proc") if _bears(each, word)]
        for each in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(each), signal.SIGKILL)
        if not found:
            return


def _bears(name: str, word: bytes) -> bool:
    if not name.isdigit():
        return False
    try:
        with open(f"/proc/{name}/environ", "rb") as file:
            return word in file.read().split(b"\0")
    except OSError:
        # It ended, or belongs to somebody else and cannot be one of ours.
        return False
