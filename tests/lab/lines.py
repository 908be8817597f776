"""What a program of the lab prints, line by line, with a time limit."""

import queue
import subprocess
import threading


class Lines:
    """Reads what a program prints, whether or not somebody waits for it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, seconds: float) -> str | None:
        """Return the next line, None if it ended before."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"it says nothing within {seconds:g} s") from None
