"""Summaries: read with suspicion, written with care."""

import hashlib
from pathlib import Path

import pytest

from p2p.errors import FormatError, LimitError, ObjectNotFoundError
from p2p.ostree import summary as module
from p2p.ostree.config import RepoMode
from p2p.ostree.gvariant import Variant, codec
from p2p.ostree.metadata_ref import METADATA_REF, update_summary
from p2p.ostree.objects import (
    Checksum,
    Metadata,
    ObjectName,
    ObjectType,
    lookup,
    swap64,
)
from p2p.ostree.refs import RefPath, head
from p2p.ostree.repo import Repo
from p2p.ostree.summary import (
    Summary,
    SummaryRef,
    keep_summary,
    parse_summary,
    regenerate,
)
from tests.ostree.samples import TREE, Sample, sample

A, B = Checksum("a" * 64), Checksum("b" * 64)
COLLECTION = "org.example.Os"


def ref(name: str, commit: Checksum = A, *, metadata: Metadata = ()) -> SummaryRef:
    return SummaryRef(name, commit, 100, metadata)


def mapped(collections: dict[str, tuple[SummaryRef, ...]]) -> Variant:
    """The value of `ostree.summary.collection-map`."""
    return Variant(
        "a{sa(s(taya{sv}))}",
        tuple((name, module._refs_value(refs)) for name, refs in collections.items()),
    )


def test_a_summary_is_read_back() -> None:
    stamped = ref("b", B, metadata=((module.TIMESTAMP_KEY, Variant("t", swap64(7))),))
    summary = Summary(
        refs=(ref("a"), stamped),
        metadata=(
            (module.COLLECTION_KEY, Variant("s", COLLECTION)),
            (module.COLLECTION_MAP_KEY, mapped({"org.other.One": (ref("x", B),)})),
        ),
    )
    parsed = parse_summary(summary.serialize())
    assert parsed == summary
    assert parsed.collection_id == COLLECTION
    assert parsed.find("a") == parsed.find("a", collection=COLLECTION) == ref("a")
    assert parsed.find("x") is None
    assert parsed.find("x", collection="org.other.One") == ref("x", B)
    assert parsed.find("x", collection="org.no.Such") is None
    assert [entry.timestamp for entry in parsed.refs] == [None, 7]


def test_an_empty_summary_has_nothing() -> None:
    parsed = parse_summary(Summary().serialize())
    assert parsed.refs == ()
    assert parsed.collection_id is None
    assert parsed.collections() == {}


@pytest.mark.parametrize(
    "summary",
    [
        Summary(refs=(ref("../etc/passwd"),)),
        Summary(refs=(ref("a b"),)),
        Summary(refs=(ref("b"), ref("a"))),
        Summary(refs=(ref("a"), ref("a"))),
        Summary(metadata=((module.COLLECTION_MAP_KEY, mapped({"x": (ref("../y"),)})),)),
    ],
)
def test_hostile_summaries_are_refused(summary: Summary) -> None:
    with pytest.raises(FormatError):
        parse_summary(summary.serialize())


def test_a_short_checksum_is_refused() -> None:
    data = codec("(a(s(taya{sv}))a{sv})").encode(((("a", (1, b"short", ())),), ()))
    with pytest.raises(FormatError, match="5 bytes"):
        parse_summary(data)


def test_a_huge_summary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SUMMARY_BYTES", 10)
    with pytest.raises(LimitError):
        parse_summary(Summary(refs=(ref("a"),)).serialize())


# -- writing ---------------------------------------------------------------------


@pytest.fixture
def commit() -> Sample:
    return sample(TREE)


def make(tmp_path: Path, commit: Sample, collection_id: str | None = None) -> Repo:
    repo = Repo.init(tmp_path / "repo", RepoMode.ARCHIVE, collection_id=collection_id)
    path = Path(repo.object_path(commit.name))
    path.parent.mkdir()
    path.write_bytes(commit.data)
    for name in ("heads/main", "remotes/far/away", "mirrors/org.other.One/x"):
        repo.refs.set(RefPath(name), commit.checksum)
    return repo


def stored(repo: Repo) -> Summary:
    return parse_summary(Path(repo.path, "summary").read_bytes())


def test_heads_and_mirrors_are_listed_and_remotes_are_not(
    tmp_path: Path, commit: Sample
) -> None:
    repo = make(tmp_path, commit)
    added = (("note", Variant("s", "x")),)
    summary = regenerate(repo, timestamp=9, metadata=added)
    assert stored(repo) == summary
    (entry,) = summary.refs
    assert (entry.ref, entry.commit) == ("main", commit.checksum)
    assert entry.size == len(commit.data)
    assert entry.timestamp == commit.commit.timestamp
    assert list(summary.collections()) == ["org.other.One"]
    modified = lookup(summary.metadata, "ostree.summary.last-modified", "t")
    assert swap64(modified) == 9
    assert lookup(summary.metadata, "note", "s") == "x"
    assert lookup(summary.metadata, "ostree.summary.mode", "s") == "archive-z2"


def test_mirrors_of_the_own_collection_are_its_refs(
    tmp_path: Path, commit: Sample
) -> None:
    repo = make(tmp_path, commit, COLLECTION)
    repo.refs.set(RefPath(f"mirrors/{COLLECTION}/own"), commit.checksum)
    summary = regenerate(repo)
    assert [entry.ref for entry in summary.refs] == ["main", "own"]
    assert summary.collection_id == COLLECTION
    assert list(summary.collections()) == ["org.other.One"]


@pytest.mark.parametrize("listed", [True, False])
def test_static_deltas_are_listed_unless_told_not_to(
    tmp_path: Path, commit: Sample, listed: bool
) -> None:
    repo = make(tmp_path, commit)
    settings = {} if listed else {"no-deltas-in-summary": "true"}
    repo = Repo.open(repo.path, settings)
    directory = Path(repo.path, "deltas/AA", "A" * 41)
    directory.mkdir(parents=True)
    (directory / "superblock").write_bytes(b"superblock")
    metadata = regenerate(repo).metadata
    found = lookup(metadata, "ostree.static-deltas", "a{sv}")
    if listed:
        ((name, digest),) = found
        assert name == "0" * 64
        assert digest == Variant("ay", hashlib.sha256(b"superblock").digest())
    else:
        assert found is None


def test_a_signature_of_the_old_summary_goes(tmp_path: Path, commit: Sample) -> None:
    repo = make(tmp_path, commit)
    Path(repo.path, "summary.sig").touch()
    regenerate(repo)
    assert not Path(repo.path, "summary.sig").exists()


@pytest.mark.parametrize("signature", [None, b"signature"])
def test_a_mirror_keeps_the_summary_of_what_it_mirrors(
    tmp_path: Path, commit: Sample, signature: bytes | None
) -> None:
    repo = make(tmp_path, commit)
    Path(repo.path, "summary.sig").write_bytes(b"old")
    data = Summary(refs=(ref("a"),)).serialize()
    keep_summary(repo, data, signature)
    assert Path(repo.path, "summary").read_bytes() == data
    kept = Path(repo.path, "summary.sig")
    assert (kept.read_bytes() if kept.exists() else None) == signature
    with pytest.raises(FormatError):
        keep_summary(repo, b"no summary", None)
    assert Path(repo.path, "summary").read_bytes() == data


def test_a_ref_to_nothing_leaves_the_old_summary(
    tmp_path: Path, commit: Sample
) -> None:
    repo = make(tmp_path, commit)
    before = regenerate(repo)
    repo.refs.set(head("gone"), A)
    with pytest.raises(ObjectNotFoundError):
        regenerate(repo)
    assert stored(repo) == before


def test_a_collections_metadata_becomes_a_commit(
    tmp_path: Path, commit: Sample
) -> None:
    repo = make(tmp_path, commit, COLLECTION)
    added = (("note", Variant("s", "x")),)
    for number in range(2):
        parent = repo.refs.get(head(METADATA_REF))
        summary = update_summary(repo, timestamp=number, metadata=added)
        made = repo.load_commit(repo.resolve(METADATA_REF))
        assert made.parent == parent
        assert made.timestamp == number
        assert made.get("note", "s") == "x"
        assert made.get("ostree.ref-binding", "as") == (METADATA_REF,)
        assert made.get("ostree.collection-binding", "s") == COLLECTION
        assert summary.find(METADATA_REF) is not None
        root = ObjectName(made.root_dirtree, ObjectType.DIRTREE)
        assert repo.load_metadata(root) == b"\0"


def test_without_a_collection_there_is_no_such_commit(
    tmp_path: Path, commit: Sample
) -> None:
    repo = make(tmp_path, commit)
    summary = update_summary(repo)
    assert summary.find(METADATA_REF) is None
    modified = lookup(summary.metadata, "ostree.summary.last-modified", "t")
    assert swap64(modified) > 1_700_000_000
