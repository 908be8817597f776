"""Commits that were taken back, as files name them."""

from pathlib import Path

import pytest

from p2p.errors import ConfigError, RevokedError
from p2p.ostree.config import RemoteConfig
from p2p.ostree.objects import Checksum, checksum_of
from p2p.trust.policy import Clock
from p2p.trust.verify import Verifier
from p2p.trust.withdrawn import load_withdrawn

A, B, C = (Checksum(letter * 64) for letter in "abc")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_files_nothing_is_withdrawn(tmp_path: Path) -> None:
    assert load_withdrawn(tmp_path) == frozenset()


def test_all_files_count_and_remarks_do_not(tmp_path: Path) -> None:
    etc, usr = tmp_path / "etc/ostree-p2p", tmp_path / "usr/share/ostree-p2p"
    write(etc / "withdrawn-commits", f"# bad builds\n{A}  # burns\n\n")
    write(etc / "withdrawn-commits.d/1", f"{B}\n")
    write(usr / "withdrawn-commits", C)
    assert load_withdrawn(tmp_path) == {A, B, C}


@pytest.mark.parametrize("text", ["nonsense", "A" * 64, "a" * 63, "\udcff"])
def test_a_line_that_is_no_checksum_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "etc/ostree-p2p/withdrawn-commits"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\n" + text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=f"{path}:2"):
        load_withdrawn(tmp_path)


def test_a_file_that_is_too_large_or_no_file_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "etc/ostree-p2p/withdrawn-commits.d"
    write(directory / "large", "#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="large: larger than"):
        load_withdrawn(tmp_path)
    (directory / "large").unlink()
    (directory / "directory").mkdir()
    with pytest.raises(ConfigError, match="directory"):
        load_withdrawn(tmp_path)


def test_a_verifier_knows_them_without_being_told(tmp_path: Path) -> None:
    commit = checksum_of(b"commit")
    write(tmp_path / "etc/ostree-p2p/withdrawn-commits", commit)
    remote = RemoteConfig(name="up", url="http://x", gpg_verify=False)
    verifier = Verifier.for_remote(remote, directories=[], root=tmp_path)
    clock = Clock(1_800_000_000, trusted=True)
    with pytest.raises(RevokedError, match="was withdrawn"):
        verifier.verify_commit(b"commit", None, checksum=commit, ref=None, clock=clock)
