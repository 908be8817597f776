"""Fresh file systems for a test: ext4 on a loop device, and tmpfs. Needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.trees import MIB


class MakeMount(Protocol):
    """The fixtures `loop_ext4` and `tmpfs`: a file system until the test ends."""

    def __call__(self, size: int = 256 * MIB) -> Path:
        """Mount a fresh one of `size` bytes; its mount point."""
        ...


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(map(str, command))
        raise RuntimeError(f"{words} ended with {done.returncode}: {done.stderr}")


@contextmanager
def _mounted(point: Path, *arguments: str | Path) -> Iterator[Path]:
    point.mkdir()
    _run("mount", *arguments, point)
    try:
        yield point
    finally:
        _run("umount", point)


@contextmanager
def mount_loop_ext4(work: Path, size: int) -> Iterator[Path]:
    """A fresh ext4 of that many bytes; its image lies in `work`, sparse."""
    image = work / "image.ext4"
    with image.open("wb") as file:
        file.truncate(size)
    try:
        # Small images get blocks of 1 KiB by default, where a device has 4.
        _run("mkfs.ext4", "-q", "-F", "-b", "4096", image)
        with _mounted(work / "mount", "-o", "loop", image) as point:
            yield point
    finally:
        image.unlink()


@contextmanager
def mount_tmpfs(work: Path, size: int) -> Iterator[Path]:
    """A fresh tmpfs of at most that many bytes."""
    options = f"size={size},mode=0755"
    with _mounted(work / "mount", "-t", "tmpfs", "-o", options, "tmpfs") as point:
        yield point
