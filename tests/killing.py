"""A process that is killed (SIGKILL) at its Nth step: deterministic crashes.

A step is a system call that changes a repository, counted just before it is made
(Python's audit events). As a program: `killing.py AT LOG DIRECTORY PROGRAM ARGUMENTS…`
runs the Python code PROGRAM; steps below DIRECTORY count, and with AT = 0 nothing is
killed. How many steps there were is written to LOG at the end.
"""

import os
import signal
import subprocess
import sys
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
_ROOT = Path(__file__).parents[1]


def command(at: int, log: Path, directory: Path, program: str) -> list[str]:
    """The command that runs Python code and dies at that step."""
    script = [sys.executable, "-P", __file__, str(at), str(log), str(directory)]
    return [*script, f"import sys\nsys.path.append({str(_ROOT)!r})\n{program}"]


def run(
    directory: Path, program: str, *arguments: str, at: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Run Python code, killed at that step below the directory if at is not 0."""
    log = directory.parent / f"{directory.name}.steps"
    return subprocess.run(
        [*command(at, log, directory, program), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def steps(directory: Path) -> int:
    """How many steps the last run that was not killed took."""
    return int((directory.parent / f"{directory.name}.steps").read_text())


def _main(at: int, log: str, directory: str, program: str) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in _STEPS:
            return
        place, _, flags = (*arguments, 0, 0)[:3]
        if event == "open" and not (isinstance(flags, int) and flags & _WRITING):
            return
        # A descriptor may be of any file; only few are open.
        if isinstance(place, int) or os.fsdecode(str(place)).startswith(directory):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        exec(program, {"__name__": "__main__"})  # noqa: S102 (the caller's own code)
    finally:
        Path(log).write_text(str(count))


if __name__ == "__main__":
    _at, _log, _directory, _program = sys.argv[1:5]
    del sys.argv[1:5]
    _main(int(_at), _log, _directory, _program)
