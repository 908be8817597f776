"""What `p2p pull` refuses to believe: named, and before any content is asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2p.errors import (
    BindingError,
    Error,
    FutureError,
    LimitError,
    OriginNotFoundError,
    RevokedError,
    RollbackError,
    SignatureError,
    UnsignedError,
)
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.summary import regenerate
from p2p.trust.keys import generate_key_pair, load_secret_key
from p2p.trust.sign import add_signature, sign_commit
from tests.pulls import (
    REF,
    REMOTE,
    Client,
    Publisher,
    Result,
    content_requests,
    object_requests,
    p2p,
)
from tests.servers import Nginx, StartNginx
from tests.trees import small_tree

FAR_AHEAD = 32_503_680_000  # the year 3000


@dataclass(frozen=True, slots=True)
class Site:
    """A publisher behind nginx and a device that has its first commit."""

    publisher: Publisher
    tree: Path
    nginx: Nginx
    client: Client
    first: Checksum

    def refuse(
        self, error: type[Error], *arguments: object, objects: int | None = None
    ) -> Result:
        """Pull in vain; check the exit status and that nothing was taken.

        `objects` is how many commits may have been asked for.
        """
        refs, files = self.client.refs(), self._files()
        before = len(self.nginx.requests())
        result = self.client.pull(*(arguments or (REF,)))
        asked = self.nginx.requests()[before:]
        assert result.status == error.exit_code, result
        assert result.out == ""
        assert content_requests(asked) == []
        if objects is not None:
            assert len(object_requests(asked)) == objects
        assert self.client.refs() == refs
        assert self._files() == files
        return result

    def _files(self) -> set[Path]:
        return set((self.client.path / "objects").rglob("*.*"))


@pytest.fixture
def site(tmp_path: Path, nginx: StartNginx) -> Site:
    publisher = Publisher.create(tmp_path)
    tree = tmp_path / "tree"
    small_tree(tree)
    first = publisher.commit(tree)
    server = nginx(publisher.path)
    client = publisher.client(tmp_path / "device", server.url)
    client.pull(REF).check()
    assert client.refs() == {f"remotes/{REMOTE}/{REF}": first}
    (tree / "new").write_bytes(b"in the next commit\n")
    return Site(publisher, tree, server, client, first)


def other_key(work: Path) -> SimpleNamespace:
    pair = generate_key_pair(work)
    return SimpleNamespace(
        secret=load_secret_key(pair.secret_path), public=pair.public_path
    )


def test_a_commit_without_a_signature(site: Site) -> None:
    site.publisher.commit(site.tree, keys=(), timestamp=1_700_000_100)
    result = site.refuse(UnsignedError, objects=1)
    assert "has no ed25519 signature" in result.err
    assert "p2p commit --sign-key" in result.err


def test_a_commit_signed_by_somebody_else(site: Site, tmp_path: Path) -> None:
    stranger = other_key(tmp_path / "stranger").secret
    site.publisher.commit(site.tree, keys=(stranger,), timestamp=1_700_000_100)
    result = site.refuse(SignatureError, objects=1)
    assert "none by a trusted key" in result.err


def test_a_signature_of_another_commit(site: Site) -> None:
    commit = site.publisher.commit(site.tree, keys=(), timestamp=1_700_000_100)
    foreign = add_signature(None, sign_commit(b"something else", site.publisher.key))
    name = ObjectName(commit, ObjectType.COMMITMETA)
    Path(site.publisher.repo.object_path(name)).write_bytes(foreign)
    site.refuse(SignatureError, objects=1)


def test_a_commit_signed_by_a_revoked_key(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = tmp_path / "etc/revoked.ed25519.d/old"
    revoked.parent.mkdir(parents=True)
    revoked.write_text(site.publisher.public.read_text())
    monkeypatch.setattr("p2p.trust.keys.KEY_PLACES", (str(tmp_path / "etc"),))
    site.publisher.commit(site.tree, timestamp=1_700_000_100)
    result = site.refuse(RevokedError, objects=1)
    assert "signed only by revoked keys" in result.err


def test_a_commit_that_is_bound_to_another_ref(site: Site) -> None:
    commit = site.publisher.commit(site.tree, "os/other", timestamp=1_700_000_100)
    site.publisher.set_ref(REF, commit)
    result = site.refuse(BindingError, objects=1)
    assert f"the commit is for 'os/other', not for '{REF}'" in result.err


def test_a_commit_that_is_bound_to_no_collection(site: Site) -> None:
    site.client.configure(f'remote "{REMOTE}"', collection_id="org.example.Os")
    site.publisher.commit(site.tree, timestamp=1_700_000_100)
    result = site.refuse(BindingError, objects=1)
    assert "the commit names no collection" in result.err


def test_a_commit_older_than_the_current_one(site: Site) -> None:
    old = site.publisher.commit(site.tree, timestamp=1_600_000_000)
    result = site.refuse(RollbackError, objects=1)
    assert f"commit {old} of 2020-09-13 12:26:40+00:00 is older than" in result.err
    site.refuse(RollbackError, "-T", f"{REF}@{old}")
    site.client.pull(f"{REF}@{old}").check()
    assert site.client.refs() == {f"remotes/{REMOTE}/{REF}": old}


def test_naming_the_commit_of_one_ref_lets_no_other_go_back(site: Site) -> None:
    other = site.publisher.commit(site.tree, "os/other", timestamp=1_700_000_000)
    site.client.pull("os/other").check()
    site.publisher.commit(site.tree, timestamp=1_600_000_000)
    site.refuse(RollbackError, f"os/other@{other}", REF)


def test_a_commit_as_old_as_the_current_one_passes_as_with_ostree(site: Site) -> None:
    commit = site.publisher.commit(site.tree)
    site.client.pull(REF).check()
    assert site.client.refs() == {f"remotes/{REMOTE}/{REF}": commit}


def test_a_commit_older_than_a_given_one(site: Site) -> None:
    middle = site.publisher.commit(site.tree, timestamp=1_700_000_100)
    option = f"--timestamp-check-from-rev={site.first}"
    site.client.pull(option, REF).check()
    old = site.publisher.commit(site.tree, timestamp=1_600_000_000)
    site.refuse(RollbackError, f"--timestamp-check-from-rev={middle}", f"{REF}@{old}")


@pytest.mark.parametrize("wanted", ["{ref}", "{ref}@{commit}", "{commit}"])
def test_a_commit_from_the_future(site: Site, wanted: str) -> None:
    commit = site.publisher.commit(site.tree, timestamp=FAR_AHEAD)
    result = site.refuse(FutureError, wanted.format(ref=REF, commit=commit))
    assert "the commit is of 3000-01-01" in result.err


def test_a_commit_that_the_origin_deleted(site: Site) -> None:
    commit = site.publisher.commit(site.tree, timestamp=1_700_000_100)
    name = ObjectName(commit, ObjectType.COMMIT)
    Path(site.publisher.repo.object_path(name)).unlink()
    site.refuse(OriginNotFoundError)
    tombstone = ObjectName(commit, ObjectType.TOMBSTONE_COMMIT)
    Path(site.publisher.repo.object_path(tombstone)).write_bytes(b"")
    result = site.refuse(RevokedError)
    assert f"the origin deleted commit {commit}" in result.err


def test_an_ancestor_that_is_not_signed(site: Site) -> None:
    """What is pulled with --depth is checked as well."""
    site.publisher.commit(site.tree, keys=(), timestamp=1_700_000_100)
    (site.tree / "new").write_bytes(b"once more\n")
    site.publisher.commit(site.tree, timestamp=1_700_000_200)
    site.refuse(UnsignedError, "--depth=1", REF)


def test_a_commit_alone_needs_the_signature_too(site: Site) -> None:
    commit = site.publisher.commit(site.tree, keys=(), timestamp=1_700_000_100)
    site.refuse(UnsignedError, commit)
    site.refuse(UnsignedError, "--commit-metadata-only", commit)
    site.refuse(UnsignedError, "--mirror", REF)


def test_detached_metadata_that_is_too_large(site: Site) -> None:
    commit = site.publisher.commit(site.tree, timestamp=1_700_000_100)
    name = ObjectName(commit, ObjectType.COMMITMETA)
    Path(site.publisher.repo.object_path(name)).write_bytes(bytes(70_000))
    site.refuse(LimitError, objects=0)


def test_a_commit_that_is_too_large(site: Site) -> None:
    commit = site.publisher.commit(site.tree, timestamp=1_700_000_100)
    name = ObjectName(commit, ObjectType.COMMIT)
    Path(site.publisher.repo.object_path(name)).write_bytes(bytes(11 << 20))
    site.refuse(LimitError, objects=1)


@pytest.mark.parametrize("writer", ["thread", "process"])
def test_a_new_signature_of_the_current_commit_replaces_the_old_one(
    site: Site, writer: str, tmp_path: Path
) -> None:
    more = other_key(tmp_path / "more").secret
    name = ObjectName(site.first, ObjectType.COMMITMETA)
    theirs = Path(site.publisher.repo.object_path(name))
    mine = Path(site.client.path, "objects", name.path())
    commit = site.publisher.repo.load_metadata(name._replace(type=ObjectType.COMMIT))
    theirs.write_bytes(add_signature(theirs.read_bytes(), sign_commit(commit, more)))
    assert mine.read_bytes() != theirs.read_bytes()
    before = len(site.nginx.requests())
    site.client.pull(REF, f"--writer={writer}").check()
    assert mine.read_bytes() == theirs.read_bytes()
    assert object_requests(site.nginx.requests()[before:]) == []


def test_a_signature_that_is_lost_at_the_origin_stays_here(site: Site) -> None:
    name = ObjectName(site.first, ObjectType.COMMITMETA)
    Path(site.publisher.repo.object_path(name)).unlink()
    site.client.pull(REF).check()
    assert Path(site.client.path, "objects", name.path()).exists()


# -- the summary -------------------------------------------------------------------


@pytest.fixture
def demanding(site: Site) -> Site:
    """The device demands that refs come from a signed summary."""
    site.client.configure(f'remote "{REMOTE}"', sign_verify_summary="ed25519")
    return site


def sign_summary(site: Site) -> None:
    regenerate(site.publisher.repo)
    summary = (site.publisher.path / "summary").read_bytes()
    signature = add_signature(None, sign_commit(summary, site.publisher.key))
    (site.publisher.path / "summary.sig").write_bytes(signature)


def test_refs_are_those_of_the_signed_summary_alone(demanding: Site) -> None:
    site = demanding
    sign_summary(site)
    site.publisher.commit(site.tree, timestamp=1_700_000_100)
    site.client.pull(REF).check()
    assert site.client.refs() == {f"remotes/{REMOTE}/{REF}": site.first}
    sign_summary(site)
    site.client.pull(REF).check()
    assert site.client.refs() != {f"remotes/{REMOTE}/{REF}": site.first}


def test_a_summary_that_is_demanded_and_missing(demanding: Site) -> None:
    result = demanding.refuse(UnsignedError, objects=0)
    assert "demands a signed summary; the origin has none" in result.err


def test_a_summary_that_is_not_signed(demanding: Site) -> None:
    regenerate(demanding.publisher.repo)
    result = demanding.refuse(UnsignedError, objects=0)
    assert "the origin's summary is not believed" in result.err
    demanding.refuse(UnsignedError, "--mirror", objects=0)
    demanding.refuse(UnsignedError, f"{REF}@{demanding.first}", objects=0)


def test_a_summary_that_was_changed_after_it_was_signed(demanding: Site) -> None:
    sign_summary(demanding)
    signature = (demanding.publisher.path / "summary.sig").read_bytes()
    regenerate(demanding.publisher.repo, timestamp=1)
    (demanding.publisher.path / "summary.sig").write_bytes(signature)
    demanding.refuse(SignatureError, objects=0)


def test_a_ref_that_the_signed_summary_lacks(demanding: Site) -> None:
    sign_summary(demanding)
    demanding.publisher.commit(demanding.tree, "os/new", timestamp=1_700_000_100)
    result = demanding.refuse(OriginNotFoundError, "os/new", objects=0)
    assert "the origin's summary has no ref os/new" in result.err


def test_a_mirror_keeps_the_summary_with_its_signature(
    demanding: Site, tmp_path: Path
) -> None:
    site = demanding
    sign_summary(site)
    site.client.pull("--mirror").check()
    for name in ("summary", "summary.sig"):
        theirs = (site.publisher.path / name).read_bytes()
        assert (site.client.path / name).read_bytes() == theirs
    assert site.client.refs()[f"heads/{REF}"] == site.first


def test_the_hole_that_ignoring_the_summary_would_be(
    site: Site, tmp_path: Path
) -> None:
    """Only the summary is signed: then a ref's file says nothing."""
    path = tmp_path / "device-2"
    p2p("init", f"--repo={path}", "--mode=bare-user").check()
    verify = f"--sign-verify=ed25519=file:{site.publisher.public}"
    p2p("remote", "add", f"--repo={path}", REMOTE, site.nginx.url, verify).check()
    client = Client(path, site.client.stock)
    client.configure(
        f'remote "{REMOTE}"', sign_verify="false", sign_verify_summary="true"
    )
    sign_summary(site)
    site.publisher.commit(site.tree, keys=(), timestamp=1_700_000_100)
    client.pull(REF).check()
    assert client.refs() == {f"remotes/{REMOTE}/{REF}": site.first}


# -- what it cannot be told --------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Set the device's clock, in seconds since 1970."""

    def set_clock(now: float) -> None:
        monkeypatch.setattr("time.time", lambda: now)

    yield set_clock
    monkeypatch.undo()


def test_a_device_whose_clock_stands_still_pulls_on(
    site: Site, clock: Callable[[float], None]
) -> None:
    """At 1970 the clock is behind what was pulled before, so it proves nothing."""
    commit = site.publisher.commit(site.tree, timestamp=1_700_000_100)
    clock(1000)
    site.client.pull(REF).check()
    assert site.client.refs() == {f"remotes/{REMOTE}/{REF}": commit}


def test_a_head_from_tomorrow_does_not_switch_the_clock_off(
    site: Site, clock: Callable[[float], None]
) -> None:
    clock(1_800_000_000)
    site.publisher.commit(site.tree, timestamp=1_800_080_000)
    site.client.pull(REF).check()
    (site.tree / "new").write_bytes(b"of the far future\n")
    site.publisher.commit(site.tree, timestamp=FAR_AHEAD)
    site.refuse(FutureError)
