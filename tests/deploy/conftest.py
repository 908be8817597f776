"""Fixtures that tests of deploying share."""

from collections.abc import Callable
from pathlib import Path

import pytest

WriteScript = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteScript:
    """Writes a program of an administrator's, given its name and shell commands."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make
