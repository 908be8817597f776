"""Our summaries against those of `ostree summary --update`: the same bytes."""

import shutil
from pathlib import Path

import pytest

from p2p.errors import ObjectNotFoundError
from p2p.ostree.gvariant import Variant
from p2p.ostree.metadata_ref import update_summary
from p2p.ostree.objects import Checksum, lookup, swap64
from p2p.ostree.refs import RefPath
from p2p.ostree.repo import Repo
from p2p.ostree.summary import Summary, parse_summary, regenerate
from tests.oracle import Ostree
from tests.trees import small_tree

MAIN = "org.example.Main"


def make(path: Path, *, collection_id: str | None = None) -> Ostree:
    """A repository with refs of every kind."""
    stock = Ostree.init(path / "repo", "archive", collection_id=collection_id)
    small_tree(path / "tree")
    for number, branch in enumerate(("main", "os/x86_64/stable", "main")):
        stock.commit(path / "tree", branch, timestamp=1000 + number)
    stock.run("refs", "--create=far:away", "main")
    stock.run("refs", "--alias", "--create=alias", "main")
    return stock


def mirror(stock: Ostree) -> None:
    """Refs mirrored from other collections, and from the repository's own."""
    refs = Repo.open(stock.repo).refs
    commit = Checksum(stock.rev_parse("main"))
    for ref in ("org.other.One/a", "org.other.One/b/c", "org.zebra.Two/z", f"{MAIN}/m"):
        refs.set(RefPath(f"mirrors/{ref}"), commit)


def compare(stock: Ostree, *flags: str, extra: dict[str, str] | None = None) -> Summary:
    """Let both write the summary of one repository, with the same time."""
    copy = stock.repo.with_name("copy")
    shutil.copytree(stock.repo, copy, symlinks=True)
    stock.run("summary", "--update", *flags)
    theirs = (stock.repo / "summary").read_bytes()
    summary = parse_summary(theirs)
    assert summary.serialize() == theirs
    modified = lookup(summary.metadata, "ostree.summary.last-modified", "t")
    metadata = tuple((key, Variant("s", value)) for key, value in (extra or {}).items())
    # Where the second changed between the metadata's commit and the summary, ours
    # of one time cannot be the same; the next try will be.
    own = summary.find("ostree-metadata")
    if own is not None and own.timestamp != swap64(modified):
        shutil.rmtree(copy)
        return compare(stock, *flags, extra=extra)
    update_summary(Repo.open(copy), timestamp=swap64(modified), metadata=metadata)
    assert (copy / "summary").read_bytes() == theirs
    Ostree(copy).fsck()
    return summary


def test_a_repository_without_a_collection(tmp_path: Path) -> None:
    stock = make(tmp_path)
    summary = compare(stock)
    assert [entry.ref for entry in summary.refs] == [
        "alias",
        "main",
        "os/x86_64/stable",
    ]
    found = summary.find("main")
    assert found is not None
    assert found.commit == stock.rev_parse("main")
    assert found.timestamp == 1002
    assert summary.find("main", collection=MAIN) is None
    assert summary.collection_id is None


def test_a_repository_with_a_collection_gets_its_metadata_commit(
    tmp_path: Path,
) -> None:
    stock = make(tmp_path, collection_id=MAIN)
    assert compare(stock).collection_id == MAIN
    # A second time it has the first as its parent.
    shutil.rmtree(tmp_path / "copy")
    compare(stock)


@pytest.mark.parametrize("collection_id", [None, MAIN])
def test_mirrored_collections_are_mapped(
    tmp_path: Path, collection_id: str | None
) -> None:
    stock = make(tmp_path, collection_id=collection_id)
    mirror(stock)
    summary = compare(stock)
    assert summary.find("b/c", collection="org.other.One")
    assert summary.find("m", collection=MAIN)
    assert bool(summary.find("m")) == (collection_id is not None)


@pytest.mark.parametrize("collection_id", [None, MAIN])
def test_added_metadata_is_ordered_as_by_glib(
    tmp_path: Path, collection_id: str | None
) -> None:
    stock = make(tmp_path, collection_id=collection_id)
    mirror(stock)
    extra = {f"key.{number}": str(number) for number in range(40)}
    extra["caf\u00e9"] = "\u65e5\u672c"
    for count in (3, 4, 9, 20, 41):
        some = dict(list(extra.items())[-count:])
        flags = [f"--add-metadata={key}='{value}'" for key, value in some.items()]
        compare(stock, *flags, extra=some)
        shutil.rmtree(tmp_path / "copy")


def test_static_deltas_are_listed(tmp_path: Path) -> None:
    stock = make(tmp_path)
    stock.run("static-delta", "generate", "main")
    for ref in ("main", "main^", "os/x86_64/stable"):
        stock.run("static-delta", "generate", "--empty", ref)
    assert lookup(compare(stock).metadata, "ostree.static-deltas", "a{sv}")
    shutil.rmtree(tmp_path / "copy")
    config = stock.repo / "config"
    config.write_text(config.read_text() + "no-deltas-in-summary=true\n")
    assert lookup(compare(stock).metadata, "ostree.static-deltas", "a{sv}") is None


def test_tombstones_are_told(tmp_path: Path) -> None:
    stock = make(tmp_path)
    config = stock.repo / "config"
    config.write_text(config.read_text() + "tombstone-commits=true\n")
    compare(stock)


def test_a_stale_signature_goes(tmp_path: Path) -> None:
    stock = make(tmp_path)
    (stock.repo / "summary.sig").write_bytes(b"of the summary before")
    regenerate(Repo.open(stock.repo))
    assert not (stock.repo / "summary.sig").exists()
    shown = stock.run("summary", "--view")
    assert stock.rev_parse("main") in shown


def test_a_ref_without_its_commit_is_an_error(tmp_path: Path) -> None:
    stock = make(tmp_path)
    (stock.repo / "refs/heads/gone").write_text("a" * 64 + "\n")
    assert stock.try_run("summary", "--update").returncode
    with pytest.raises(ObjectNotFoundError):
        regenerate(Repo.open(stock.repo))
    assert not (stock.repo / "summary").exists()
