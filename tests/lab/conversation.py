"""Talking with a program of the lab: a line of JSON each way, with time limits."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

from tests.lab.lines import Lines

Fact = dict[str, Any]
# Enough for an honest machine under load; nothing waits for it to pass.
PATIENCE_SECONDS = 60.0


class Conversation:
    """What a program says, kept until somebody asks for it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.heard: list[Fact] = []
        self._lines = Lines(process)

    def say(self, **command: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def until(self, events: str, fits: Callable[[Fact], bool] = lambda _: True) -> Fact:
        """Wait for one of these events that fits, and return it.

        Others stay in `heard`. Several events are separated by blanks.
        """

        def wanted(fact: Fact) -> bool:
            return fact["event"] in events.split() and fits(fact)

        for fact in self.heard:
            if wanted(fact):
                self.heard.remove(fact)
                return fact
        while not wanted(fact := self._next(events)):
            self.heard.append(fact)
        return fact

    def _next(self, wanted: str) -> Fact:
        try:
            line = self._lines.next(PATIENCE_SECONDS)
        except TimeoutError:
            raise TimeoutError(
                f"no {wanted} within {PATIENCE_SECONDS:g} s, only {self.heard}"
            ) from None
        if line is None:
            raise EOFError(f"it ended before {wanted}, after {self.heard}")
        fact: Fact = json.loads(line)
        return fact

    def leave(self) -> None:
        """End its input, so that it ends as it should."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """End it as a power cut would: no goodbye."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
