"""An ordinary user to run programs as, also where the tests run as root."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Unprivileged:
    """An ordinary user with a home to write to.

    Put `prefix` before a command to run it as that user. Where the tests run as
    root the user is nobody with one privilege, to read everything, because the
    interpreter and the tests' files may lie where nobody may not look.
    """

    uid: int
    gid: int
    home: Path
    prefix: tuple[str, ...]

    def run(
        self, *command: str | Path, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command as the user; its output is captured as text."""
        return subprocess.run(
            [*self.prefix, *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
        )


def make_unprivileged(home: Path) -> Unprivileged:
    """The user, with `home` made for it."""
    home.mkdir()
    if os.geteuid() != 0:
        return Unprivileged(os.geteuid(), os.getegid(), home, ("env", f"HOME={home}"))
    os.chown(home, NOBODY, NOBODY)
    only = "-all,+dac_read_search"
    prefix = (
        "env",
        # Nobody may not write coverage data beside the code.
        "--unset=COVERAGE_PROCESS_CONFIG",
        "--unset=COVERAGE_PROCESS_START",
        f"HOME={home}",
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        f"--inh-caps={only}",
        f"--ambient-caps={only}",
        f"--bounding-set={only}",
    )
    return Unprivileged(NOBODY, NOBODY, home, prefix)
