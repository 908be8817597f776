"""`p2p treehub` as a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TreeHubProcess:
    """A server that runs until `stop` or `kill`."""

    url: str
    process: "subprocess.Popen[str]"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it as a power cut of the process would: SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it in good order; its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def peak_memory_bytes(self) -> int:
        """The most memory it has had resident so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(row for row in status.splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


@contextmanager
def treehub_process(store: Path, *options: str) -> Iterator[TreeHubProcess]:
    """Run `p2p treehub` on a free port; killed at the end if it still runs."""
    command = [sys.executable, "-m", "p2p", "treehub", f"--store={store}"]
    command += ["--listen=127.0.0.1:0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            (url,) = json.loads(process.stdout.readline())["urls"]
            yield TreeHubProcess(url, process)
        finally:
            process.kill()
