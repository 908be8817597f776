"""Starts a writer for each connection to a socket, as a unit with Accept=yes does."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from p2p.deploy.target import Target
from p2p.writer.process import main

ROOT = Path(__file__).parents[2]


def writer_command(config: Path) -> list[str]:
    """What the unit runs, with a configuration of its own."""
    return [sys.executable, "-m", "p2p", "writer", f"--config={config}"]


def here(repo: str, target: Target | None) -> Callable[[socket.socket], int]:
    """A writer on the thread that serves the connection."""
    options = target.options() if target is not None else ()

    def run(connection: socket.socket) -> int:
        return main([repo, str(connection.detach()), *options])

    return run


@dataclass
class Units:
    """What the unit runs, as processes; `pids` has those that were started."""

    config: Path
    pids: list[int] = field(default_factory=list)

    def __call__(self, connection: socket.socket) -> int:
        with connection:
            process = subprocess.Popen(
                writer_command(self.config),
                stdin=connection.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
            )
        self.pids.append(process.pid)
        return process.wait()


@contextmanager
def activating(path: Path, run: Callable[[socket.socket], int]) -> Iterator[list[int]]:
    """Run a writer for each connection until the block ends; yield their statuses."""
    statuses: list[int] = []
    started: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        statuses.append(run(connection))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            started.append(threading.Thread(target=serve, args=[connection]))
            started[-1].start()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield statuses
        finally:
            # It wakes who waits in accept, where closing would not.
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in started:
                thread.join()
