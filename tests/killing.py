"""Processes that are killed (SIGKILL) at their Nth step: deterministic crashes.

A step is a system call that changes a repository, counted just before it is made
(Python's audit events). As a program, `killing.py AT DIRECTORY PROGRAM ARGUMENTS…`
runs the Python code PROGRAM and dies at step AT of those below DIRECTORY; with AT = 0
it runs to its end. `Killer` does it over and over, forked from one warm process.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEPS = {
    "open",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.setxattr",
    "os.symlink",
    "os.utime",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ROOT = str(Path(__file__).parents[1])


def command(directory: Path, program: str, *, at: int) -> list[str]:
    """The command that runs Python code and dies at that step."""
    return [sys.executable, "-P", __file__, str(at), str(directory), program]


def run(
    directory: Path, program: str, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Run Python code that is to kill itself."""
    return subprocess.run(
        [*command(directory, program, at=0), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


class Killer:
    """Runs one program again and again, to its end or killed at a step."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, at: int = 0) -> int:
        """Run it; how many steps it took. Killed at step `at` if that is not 0.

        Raises:
            AssertionError: it ended in another way.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{at}\n")
        self._process.stdin.flush()
        status, steps = map(int, self._process.stdout.readline().split())
        assert status == (-signal.SIGKILL if at else 0), f"step {at}: ended {status}"
        return steps


@contextmanager
def killer(
    directory: Path, imports: str, program: str, *arguments: str
) -> Iterator[Killer]:
    """Run `imports` once and then `program` as often as asked for."""
    server = f"IMPORTS = {imports!r}\nPROGRAM = {program!r}\nserve(IMPORTS, PROGRAM)"
    with subprocess.Popen(
        [*command(directory, server, at=0), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        # Popen closes its standard input at the end of the block, and it ends.
        yield Killer(process)


# -- in the process that is killed ---------------------------------------------------


class Steps:
    """Counts steps below a directory and kills the process at one, if not at 0."""

    def __init__(self, directory: str, at: int) -> None:
        self._directory = directory
        self._at = at
        self.count = 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in _STEPS:
            return
        place, _, flags = (*arguments, 0, 0)[:3]
        if event == "open" and not (isinstance(flags, int) and flags & _WRITING):
            return
        # A descriptor may be of any file; only few are open.
        if isinstance(place, int) or os.fsdecode(str(place)).startswith(
            self._directory
        ):
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def _serve(directory: str, imports: str, program: str) -> None:
    names: dict[str, object] = {"sys": sys}
    exec(imports, names)  # noqa: S102 (the test's own code)
    for line in sys.stdin:
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            steps = Steps(directory, int(line))
            exec(program, names)  # noqa: S102
            os.write(sender, str(steps.count).encode())
            os._exit(0)
        os.close(sender)
        _, status = os.waitpid(child, 0)
        with os.fdopen(receiver) as pipe:
            steps_taken = pipe.read() or "0"
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {steps_taken}\n")
        sys.stdout.flush()


def _main(at: int, directory: str, program: str) -> None:
    if at:
        Steps(directory, at)
    names = {
        "__name__": "__main__",
        "sys": sys,
        "serve": lambda imports, code: _serve(directory, imports, code),
    }
    exec(program, names)  # noqa: S102 (the test's own code)


if __name__ == "__main__":
    sys.path.append(_ROOT)
    _at, _directory, _program = sys.argv[1:4]
    del sys.argv[1:4]
    _main(int(_at), _directory, _program)
