"""Boot loaders are told to count, in the form that they read."""

import os
from pathlib import Path

import pytest

from p2p.deploy.boot_count import (
    Grub,
    UBoot,
    find_boot_counter,
    format_grubenv,
    parse_grubenv,
)
from p2p.errors import DeployError, RepositoryError

HEADER = b"# GRUB Environment Block\n"


def grubenv(root: Path, *lines: str, counts: bool = True) -> Path:
    """A block as `grub-editenv` makes it."""
    directory = root / "boot/grub2"
    directory.mkdir(parents=True)
    text = "if [ ${boot_counter} ]; then" if counts else "set default=0"
    (directory / "grub.cfg").write_text(text)
    path = directory / "grubenv"
    data = HEADER + "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(data.ljust(1024, b"#"))
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`fw_setenv` and `fw_printenv` that keep each variable in a file."""
    values = tmp_path / "env"
    values.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("fw_setenv", f'printf %s "$2" > {values}/"$1"; echo "$1=$2" >> {values}.log'),
        ("fw_printenv", f'exec cat {values}/"$2"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return values


def test_grub_counts_by_its_environment_and_what_else_is_there_stays(
    tmp_path: Path,
) -> None:
    path = grubenv(tmp_path, "saved_entry=2", "kernelopts=root=LABEL=root rw")
    counter = find_boot_counter(str(tmp_path))
    assert isinstance(counter, Grub)
    inode = path.stat().st_ino
    assert not counter.is_armed()
    counter.arm()
    assert counter.is_armed()
    data = path.read_bytes()
    assert data.startswith(HEADER + b"saved_entry=2\nkernelopts=root=LABEL=root rw\n")
    assert b"\nboot_counter=3\nboot_success=0\n###" in data
    counter.disarm()
    assert not counter.is_armed()
    assert b"boot_success=1\n" in path.read_bytes()
    # GRUB knows its blocks: neither another file nor another size.
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 1024)


def test_grub_that_was_not_told_to_count_does_not(tmp_path: Path) -> None:
    path = grubenv(tmp_path, counts=False)
    assert find_boot_counter(str(tmp_path)) is None
    (path.parent / "grub.cfg").unlink()
    assert find_boot_counter(str(tmp_path)) is None


@pytest.mark.parametrize("data", [b"", HEADER, b"x" * 1024, HEADER.ljust(2048, b"#")])
def test_a_block_that_is_none_is_left_alone(tmp_path: Path, data: bytes) -> None:
    path = grubenv(tmp_path)
    path.write_bytes(data)
    with pytest.raises(DeployError, match="not an environment block"):
        Grub(str(path)).arm()
    assert path.read_bytes() == data


def test_a_block_that_is_full_or_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no room"):
        format_grubenv({"a": "x" * 1024}, where="a")
    with pytest.raises(RepositoryError):
        Grub(str(tmp_path / "none")).arm()


def test_values_survive_as_they_are() -> None:
    values = {"a": "b=c", "e": "", "name": "\udcff"}
    assert parse_grubenv(format_grubenv(values, where=""), where="") == values


def test_u_boot_counts_by_the_variables_of_aktualizr(
    tools: Path, tmp_path: Path
) -> None:
    (tools / "bootlimit").write_text("3\n")
    counter = find_boot_counter(str(tmp_path))
    assert isinstance(counter, UBoot)
    assert not counter.is_armed()
    counter.arm()
    assert counter.is_armed()
    counter.disarm()
    assert not counter.is_armed()
    log = (tools.parent / "env.log").read_text().split()
    assert log[2] == "upgrade_available=1"
    assert log[3] == "upgrade_available=0"
    assert set(log[3:]) == {"upgrade_available=0", "bootcount=0", "rollback=0"}


@pytest.mark.parametrize("limit", [None, "0", "x"])
def test_u_boot_without_a_limit_never_comes_back(
    tools: Path, tmp_path: Path, limit: str | None
) -> None:
    if limit is not None:
        (tools / "bootlimit").write_text(limit)
    assert find_boot_counter(str(tmp_path)) is None


def test_u_boot_that_cannot_be_told_is_an_error(tools: Path) -> None:
    (tools.parent / "bin/fw_setenv").write_text("#!/bin/sh\necho no mtd; exit 1\n")
    with pytest.raises(DeployError, match="ended with status 1: no mtd"):
        UBoot().arm()


def test_without_either_nothing_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_boot_counter(str(tmp_path)) is None
