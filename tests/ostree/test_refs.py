"""Refs: names that are refused, files that are damaged, and changes that are whole."""

import os
from pathlib import Path

import pytest

from p2p.errors import FormatError, RefNotFoundError, RepositoryError
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import (
    RefPath,
    Refs,
    check_ref,
    head,
    mirror_ref,
    parse_refspec,
    remote_ref,
)

A, B = Checksum("a" * 64), Checksum("b" * 64)


@pytest.fixture(params=[True, False], ids=["fsync", "no fsync"])
def refs(tmp_path: Path, request: pytest.FixtureRequest) -> Refs:
    for kind in ("heads", "remotes", "mirrors"):
        (tmp_path / "refs" / kind).mkdir(parents=True)
    return Refs(str(tmp_path / "refs"), fsync=request.param)


def test_places_of_refs() -> None:
    assert head("os/main") == "heads/os/main"
    assert remote_ref("origin", "os/main") == "remotes/origin/os/main"
    assert mirror_ref("org.example.Os", "main") == "mirrors/org.example.Os/main"
    assert parse_refspec("origin:os/main") == "remotes/origin/os/main"
    assert parse_refspec("os/main") == "heads/os/main"


@pytest.mark.parametrize(
    "ref", ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "-a", "a b", "a\n", "é"]
)
def test_names_that_are_no_refs_are_refused(ref: str) -> None:
    with pytest.raises(FormatError, match="not a ref"):
        check_ref(ref)


def test_too_long_a_name_is_refused() -> None:
    with pytest.raises(FormatError, match="not a ref"):
        check_ref("a" * 1025)


def test_other_parts_are_checked_too() -> None:
    with pytest.raises(FormatError, match="not a remote"):
        remote_ref("..", "main")
    with pytest.raises(FormatError, match="not a collection"):
        mirror_ref("nodots", "main")
    with pytest.raises(FormatError, match="not a ref"):
        parse_refspec("origin:../main")


def test_a_ref_is_set_read_and_deleted(refs: Refs, tmp_path: Path) -> None:
    ref = head("os/x86/main")
    assert refs.get(ref) is None
    with pytest.raises(RefNotFoundError, match="os/x86/main"):
        refs.resolve(ref)
    os.utime(tmp_path, (0, 0))
    refs.set(ref, A)
    # Others take the directory's time for a sign of change.
    assert tmp_path.stat().st_mtime > 0
    assert refs.resolve(ref) == A
    assert (tmp_path / "refs" / ref).read_text() == f"{A}\n"
    refs.set(ref, B)
    assert refs.get(ref) == B
    assert list(refs.all()) == [(ref, B)]
    assert refs.delete(ref)
    assert not refs.delete(ref)
    assert os.listdir(tmp_path / "refs/heads") == []
    assert os.listdir(tmp_path / "tmp") == []


def test_deleting_leaves_directories_that_hold_others(refs: Refs) -> None:
    refs.set(head("a/b"), A)
    refs.set(head("a/c"), A)
    refs.delete(head("a/b"))
    assert [ref for ref, _ in refs.all()] == ["heads/a/c"]
    assert not refs.delete(RefPath("heads/a/c/d"))


def test_refs_are_listed_below_a_prefix_in_order(refs: Refs, tmp_path: Path) -> None:
    for ref in ("heads/b", "heads/a/z", "remotes/r/x", "mirrors/org.a.B/m"):
        refs.set(RefPath(ref), A)
    (tmp_path / "refs/heads/.hidden").write_text("no ref")
    (tmp_path / "refs/heads/bad name").write_text("no ref")
    (tmp_path / "refs/heads/dangling").symlink_to("nowhere")
    assert [ref for ref, _ in refs.all("heads/")] == ["heads/b", "heads/a/z"]
    assert len(list(refs.all())) == 4


def test_a_damaged_ref_is_an_error(refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "refs/heads/bad").write_bytes(b"\xff" * 64)
    with pytest.raises(FormatError, match="not a checksum"):
        refs.get(head("bad"))


def test_a_ref_in_the_way_is_an_error(refs: Refs, tmp_path: Path) -> None:
    refs.set(head("a"), A)
    for ref in ("a/b", "a/b/c"):
        with pytest.raises(RepositoryError, match="in its way"):
            refs.set(head(ref), A)
    refs.set(head("x/y"), A)
    with pytest.raises(RepositoryError, match="in its way"):
        refs.set(head("x"), A)
    assert refs.get(head("x")) is None
    assert os.listdir(tmp_path / "tmp") == []


def test_an_alias_is_followed_within_the_repository_only(
    refs: Refs, tmp_path: Path
) -> None:
    refs.set(head("main"), A)
    (tmp_path / "refs/heads/alias").symlink_to("main")
    assert refs.get(head("alias")) == A
    refs.set(head("alias"), B)
    assert refs.get(head("main")) == B
    (tmp_path / "secret").write_text(f"{A}\n")
    (tmp_path / "refs/heads/out").symlink_to("../../secret")
    with pytest.raises(FormatError, match="leads out"):
        refs.get(head("out"))
    with pytest.raises(FormatError, match="leads out"):
        refs.set(head("out"), B)
    assert (tmp_path / "secret").read_text() == f"{A}\n"


def test_a_failure_of_the_disk_leaves_the_ref_as_it_was(
    refs: Refs, tmp_path: Path
) -> None:
    refs.set(head("main"), A)
    with pytest.raises(OSError, match="too long"):
        refs.set(head("x" * 300), A)
    assert refs.get(head("main")) == A
    assert os.listdir(tmp_path / "tmp") == []
