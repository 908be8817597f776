"""GLib's own GVariant, asked through the system's Python, which has its binding.

Run by that Python it answers JSON lines: [type, hexadecimal bytes] in, and
[normal, value, hexadecimal bytes of the normal form] out.
"""

import importlib
import json
import subprocess
import sys
from typing import Any, Self

SYSTEM_PYTHON = "/usr/bin/python3"


class GLibVariants:
    """A running interpreter that looks at variants; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)

    def look(self, kind: str, data: bytes) -> tuple[bool, Any, bytes]:
        """Whether it is normal, its value as JSON has it, and its normal form."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([kind, data.hex()]) + "\n")
        self._process.stdin.flush()
        normal, value, again = json.loads(self._process.stdout.readline())
        return normal, value, bytes.fromhex(again)


def _answer() -> None:
    GLib = importlib.import_module("gi.repository.GLib")  # noqa: N806 (its name)

    for line in sys.stdin:
        kind, data = json.loads(line)
        variant = GLib.Variant.new_from_bytes(
            GLib.VariantType.new(kind), GLib.Bytes.new(bytes.fromhex(data)), False
        )
        normal = variant.is_normal_form()
        value = variant.unpack() if normal else None
        again = variant.get_normal_form().get_data_as_bytes().get_data() or b""
        sys.stdout.write(json.dumps([normal, value, again.hex()]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _answer()
