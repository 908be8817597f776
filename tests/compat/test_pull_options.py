"""Every option of `ostree pull`: the same outcome with ours, or a reason why not."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.oracle import Ostree
from tests.pulls import (
    REMOTE,
    Client,
    check_equal,
    content_requests,
    object_requests,
    p2p,
)
from tests.servers import Nginx, StartNginx, run_nginx
from tests.trees import small_tree

COLLECTION = "org.example.Os"
FOREIGN = "org.example.Other"


@dataclass(frozen=True, slots=True)
class Origin:
    """A repository with four commits of `os` and one of `other/x`."""

    stock: Ostree
    nginx: Nginx
    commits: tuple[str, ...]

    @property
    def url(self) -> str:
        return self.nginx.url

    def fill(self, text: str) -> str:
        """Put the commits in the place of `{0}` to `{3}`."""
        return text.format(*self.commits)


def make_history(work: Path, *options: str, collection: str | None = None) -> Ostree:
    tree = work / "tree"
    small_tree(tree)
    stock = Ostree.init(work / "origin", "archive", collection_id=collection)
    for number in range(4):
        (tree / "etc/hostname").write_text(f"number {number}\n")
        stock.commit(tree, "os", *options, timestamp=1_700_000_000 + number)
    stock.commit(tree, "other/x", timestamp=1_700_000_000)
    return stock


def commits_of(stock: Ostree, ref: str = "os") -> tuple[str, ...]:
    return tuple(stock.rev_parse(ref + "^" * back) for back in (3, 2, 1, 0))


@pytest.fixture(scope="module")
def bare_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """An origin without a summary."""
    work = tmp_path_factory.mktemp("bare")
    stock = make_history(work)
    with run_nginx(stock.repo, work=work / "nginx") as nginx:
        yield Origin(stock, nginx, commits_of(stock))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """An origin with a summary."""
    work = tmp_path_factory.mktemp("summary")
    stock = make_history(work)
    stock.run("summary", "-u")
    with run_nginx(stock.repo, work=work / "nginx") as nginx:
        yield Origin(stock, nginx, commits_of(stock))


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """An origin with a collection id, and another one's ref mirrored in it."""
    work = tmp_path_factory.mktemp("collected")
    foreign = Ostree.init(work / "foreign", "archive", collection_id=FOREIGN)
    small_tree(work / "small")
    foreign.commit(work / "small", "thing")
    stock = make_history(work, collection=COLLECTION)
    stock.pull_local(foreign.repo, "thing")
    (stock.repo / f"refs/mirrors/{FOREIGN}").mkdir(parents=True)
    (stock.repo / "refs/heads/thing").rename(
        stock.repo / f"refs/mirrors/{FOREIGN}/thing"
    )
    stock.run("summary", "-u")
    with run_nginx(stock.repo, work=work / "nginx") as nginx:
        yield Origin(stock, nginx, commits_of(stock))


def run_both(
    origin: Origin,
    work: Path,
    steps: tuple[str, ...],
    *options: str,
    mode: str = "bare-user",
    collection_id: str | None = None,
) -> tuple[Client, Client]:
    """Run command lines with stock ostree and with ours, and compare after each."""
    theirs, ours = (
        Client.create(
            work / name, mode, origin.url, *options, collection_id=collection_id
        )
        for name in ("theirs", "ours")
    )
    for step in steps:
        arguments = origin.fill(step).split()
        stock = theirs.stock.try_run("pull", *arguments)
        result = p2p("pull", "--no-mdns", f"--repo={ours.path}", *arguments)
        assert (result.status == 0) is (stock.returncode == 0), (
            f"{step}: {stock.stderr}{result}"
        )
        if result.status == 0:
            check_equal(theirs, ours)
            assert ours.state() == theirs.state()
        else:
            assert ours.refs() == theirs.refs()
    return theirs, ours


@pytest.mark.parametrize(
    "steps",
    [
        ("up os",),
        ("up os other/x",),
        ("up:os",),
        ("up os@{1}",),
        ("up {1}",),
        ("up {1} os", "up {2}"),
        ("up no/such/ref",),
        ("up",),
        ("nobody os",),
        ("up bad..//ref",),
        ("up os@{0}x",),
        ("--depth=0 up os",),
        ("--depth=2 up os",),
        ("--depth=9 up os",),
        ("--depth=-1 up os",),
        ("--depth=1 up os other/x",),
        ("up os", "--depth=-1 up os"),
        ("--depth=1 up os@{2}", "up os"),
        ("--commit-metadata-only up os", "up os"),
        ("--commit-metadata-only --depth=-1 up os", "up os", "--depth=1 up os"),
        ("up os", "--commit-metadata-only up os"),
        ("--commit-metadata-only up {1}", "up {1}"),
        ("up os", "up os@{1}", "-T up os"),
        ("up os", "-T up os@{1}"),
        ("up os", "--timestamp-check-from-rev={3} up os@{1}"),
        ("up os", "--timestamp-check-from-rev={3} up os"),
        ("up os", "--timestamp-check-from-rev=os up os@{3}"),
        ("up os", "--timestamp-check-from-rev=nothing up os"),
        ("up os other/x", "-T up os other/x"),
        ("--disable-fsync up os",),
        ("--per-object-fsync up os",),
        ("--network-retries=0 up os",),
        ("--disable-static-deltas up os",),
        ("--untrusted up os",),
        ("--http-header=X-Name=value up os",),
    ],
)
def test_an_option_has_the_outcome_that_it_has_with_ostree(
    steps: tuple[str, ...], bare_origin: Origin, tmp_path: Path
) -> None:
    run_both(bare_origin, tmp_path, steps)


@pytest.mark.parametrize(
    "steps",
    [
        ("--mirror up os",),
        ("--mirror up os other/x", "--mirror up"),
        ("--mirror up",),
        ("--mirror --depth=-1 up os",),
        ("--mirror up os@{1}", "--mirror up os"),
        ("--mirror --commit-metadata-only up os", "--mirror up os"),
    ],
)
def test_a_mirror_is_that_of_ostree(
    steps: tuple[str, ...], origin: Origin, tmp_path: Path
) -> None:
    _, ours = run_both(origin, tmp_path, steps, mode="archive")
    ours.check_sound()


def test_a_mirror_of_all_refs_needs_a_summary(
    bare_origin: Origin, tmp_path: Path
) -> None:
    _, ours = run_both(bare_origin, tmp_path, ("--mirror up",), mode="archive")
    assert "no summary" in ours.pull("--mirror").err


@pytest.mark.parametrize("own", [None, COLLECTION, FOREIGN])
@pytest.mark.parametrize("remotes", [None, COLLECTION, FOREIGN])
@pytest.mark.parametrize("steps", [("up os",), ("--mirror up os",), ("--mirror up",)])
def test_collections_lead_to_the_refs_they_lead_to_with_ostree(
    steps: tuple[str, ...],
    remotes: str | None,
    own: str | None,
    collected: Origin,
    tmp_path: Path,
) -> None:
    options = [f"--collection-id={remotes}"] if remotes else []
    run_both(collected, tmp_path, steps, *options, mode="archive", collection_id=own)


def test_a_ref_of_a_mirrored_collection_is_pulled(
    collected: Origin, tmp_path: Path
) -> None:
    """Stock ostree, other than its manual says, looks for it in no summary."""
    option = f"--collection-id={FOREIGN}"
    ours = Client.create(tmp_path / "ours", "bare-user", collected.url, option)
    ours.pull("thing").check()
    assert list(ours.refs()) == [f"remotes/{REMOTE}/thing"]


def test_branches_of_the_remote_are_pulled_where_none_is_named(
    bare_origin: Origin, tmp_path: Path
) -> None:
    theirs, ours = (
        Client.create(tmp_path / name, "bare-user", bare_origin.url)
        for name in ("theirs", "ours")
    )
    for client in (theirs, ours):
        client.stock.run(
            "remote", "add", "--no-gpg-verify", "two", bare_origin.url, "os", "other/x"
        )
    theirs.stock.pull("two")
    ours.pull(remote="two").check()
    check_equal(theirs, ours)
    assert len(ours.refs()) == 2


def test_an_ancestor_that_the_origin_lost_ends_the_history(
    tmp_path: Path, nginx: StartNginx
) -> None:
    stock = make_history(tmp_path / "work")
    commits = commits_of(stock)
    gone = stock.repo / "objects" / commits[0][:2] / f"{commits[0][2:]}.commit"
    gone.unlink()
    lossy = Origin(stock, nginx(stock.repo), commits)
    run_both(lossy, tmp_path, ("--depth=-1 up os",))
    (tmp_path / "again").mkdir()
    run_both(lossy, tmp_path / "again", ("up {0}", "--depth=3 up os"))


def test_the_url_of_an_option_replaces_both_urls_of_the_remote(
    bare_origin: Origin, tmp_path: Path
) -> None:
    theirs, ours = (
        Client.create(
            tmp_path / name,
            "bare-user",
            "http://127.0.0.1:9",
            "--contenturl=http://127.0.0.1:9",
        )
        for name in ("theirs", "ours")
    )
    option = f"--url={bare_origin.url}"
    theirs.stock.pull(REMOTE, "os", options=[option])
    ours.pull(option, "os").check()
    check_equal(theirs, ours)
    assert ours.stock.run("remote", "show-url", REMOTE).strip() == "http://127.0.0.1:9"


def test_content_comes_from_the_contenturl_and_signatures_from_the_url(
    origin: Origin, tmp_path: Path, nginx: StartNginx
) -> None:
    content = nginx(origin.stock.repo)
    asked = []
    for name in ("theirs", "ours"):
        client = Client.create(
            tmp_path / name, "bare-user", origin.url, f"--contenturl={content.url}"
        )
        before = len(origin.nginx.requests()), len(content.requests())
        if name == "ours":
            client.pull("os").check()
        else:
            client.stock.pull(REMOTE, "os")
        from_url = origin.nginx.requests()[before[0] :]
        from_content = content.requests()[before[1] :]
        asked.append(set(object_requests(from_content)))
        assert object_requests(from_url) == []
        assert [r.path for r in from_url if r.path.endswith(".commitmeta")]
        assert not [r.path for r in from_content if r.path.endswith(".commitmeta")]
    assert asked[0] == asked[1]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_list_of_mirrors_is_tried_in_order(
    scheme: str, bare_origin: Origin, tmp_path: Path, nginx: StartNginx
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = nginx(empty)
    listed = tmp_path / "lists/mirrors"
    listed.parent.mkdir()
    listed.write_text(f"{broken.url}\n{bare_origin.url}\n")
    where = (
        f"file://{listed}"
        if scheme == "file"
        else f"{nginx(listed.parent).url}/mirrors"
    )
    clients = []
    for name in ("theirs", "ours"):
        client = Client.create(
            tmp_path / name,
            "bare-user",
            bare_origin.url,
            f"--contenturl=mirrorlist={where}",
        )
        clients.append(client)
    theirs, ours = clients
    theirs.stock.pull(REMOTE, "os")
    ours.pull("os").check()
    check_equal(theirs, ours)


def test_headers_of_an_option_go_with_every_request(
    bare_origin: Origin, tmp_path: Path, nginx: StartNginx
) -> None:
    guarded = nginx(
        bare_origin.stock.repo,
        extra='if ($http_x_secret != "open sesame") { return 403; }',
    )
    ours = Client.create(tmp_path / "ours", "bare-user", guarded.url)
    assert ours.pull("os").status == 21
    assert ours.pull("os", "--http-header=X-Secret=open").status == 21
    ours.pull("os", "--http-header=X-Secret=open sesame").check()


@pytest.mark.parametrize("header", ["novalue", "=x", "Na me=x", "X-A=b\r\nX-C: d"])
def test_a_header_that_is_none_is_a_usage_error(
    header: str, bare_origin: Origin, tmp_path: Path
) -> None:
    ours = Client.create(tmp_path / "ours", "bare-user", bare_origin.url)
    result = ours.pull("os", f"--http-header={header}")
    assert (result.status, result.out) == (2, "")
    assert "--http-header" in result.err


@pytest.mark.parametrize("mode", ["archive", "bare-user", "bare"])
def test_objects_of_local_repositories_are_not_fetched(
    mode: str, bare_origin: Origin, tmp_path: Path
) -> None:
    """The cache has an older commit, in another mode, without any ref to it."""
    cache = Client.create(tmp_path / "cache", mode, bare_origin.url)
    cache.stock.pull(REMOTE, bare_origin.commits[0])
    cached = {Path(p).stem for p in cache.path.glob("objects/*/*.file*")}
    theirs, ours = (
        Client.create(tmp_path / name, "bare-user", bare_origin.url)
        for name in ("theirs", "ours")
    )
    option = f"--localcache-repo={cache.path}"
    theirs.stock.pull(REMOTE, "os", options=[option])
    before = len(bare_origin.nginx.requests())
    result = ours.pull("-L", cache.path, "--json", "os").check()
    check_equal(theirs, ours)
    fetched = content_requests(bare_origin.nginx.requests()[before:])
    assert not cached & {Path(path).stem for path in fetched}
    assert result.json["local"]["objects"] >= len(cached)
    assert result.json["origin"]["objects"] == len(fetched) + 1  # the commit


def test_a_damaged_object_of_a_local_repository_is_fetched(
    bare_origin: Origin, tmp_path: Path
) -> None:
    """Stock ostree ends the pull with an error there."""
    cache = Client.create(tmp_path / "cache", "archive", bare_origin.url)
    cache.stock.pull(REMOTE, "os")
    for number, path in enumerate(sorted(cache.path.glob("objects/*/*.*"))):
        if path.suffix != ".commit" and number % 2:
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    whole = Client.create(tmp_path / "whole", "bare-user", bare_origin.url)
    whole.stock.pull(REMOTE, "os")
    ours = Client.create(tmp_path / "ours", "bare-user", bare_origin.url)
    result = ours.pull("--json", "-L", cache.path, "os").check()
    check_equal(whole, ours)
    assert result.json["local"]["objects"] > 0
    assert result.json["origin"]["objects"] > 1


def test_large_files_come_from_a_local_repository_piece_by_piece(
    tmp_path: Path, nginx: StartNginx
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(bytes(range(256)) * 8000)
    (tmp_path / "tree/damaged").write_bytes(bytes(range(1, 256)) * 8000)
    stock = Ostree.init(tmp_path / "origin", "archive")
    stock.commit(tmp_path / "tree", "os")
    url = nginx(stock.repo).url
    cache = Client.create(tmp_path / "cache", "bare-user", url)
    cache.stock.pull(REMOTE, "os")
    for path in cache.path.glob("objects/*/*.file"):
        if path.read_bytes()[:1] == b"\1":
            path.write_bytes(b"?" + path.read_bytes()[1:])
    ours = Client.create(tmp_path / "ours", "bare-user", url)
    result = ours.pull("--json", "-L", cache.path, "os").check()
    ours.check_sound()
    assert result.json["local"]["bytes"] > 2_000_000
    assert result.json["origin"]["objects"] == 2  # the commit and what is damaged


def test_a_local_repository_that_is_none_is_named(
    bare_origin: Origin, tmp_path: Path
) -> None:
    ours = Client.create(tmp_path / "ours", "bare-user", bare_origin.url)
    result = ours.pull("os", "-L", tmp_path / "nothing")
    assert result.status == 2
    assert f"{tmp_path / 'nothing'}: is not an OSTree repository" in result.err


# -- every option is taken or refused ----------------------------------------------

COMMANDS = (
    *("pull", "commit", "init", "show", "ls", "checkout", "fsck", "prune"),
    "remote add",
)
NOT_OURS = {"--help"}


def options_of_ostree(command: str) -> set[str]:
    """The long options that `ostree COMMAND --help` lists."""
    done = subprocess.run(
        ["ostree", *command.split(), "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(re.findall(r"^ .*?(--[a-z-]+)", done.stdout, re.MULTILINE)) - NOT_OURS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_ostree_is_taken_or_refused_with_a_reason(command: str) -> None:
    known = p2p(*command.split(), "--help").check().out
    for option in sorted(options_of_ostree(command)):
        if re.search(rf"{option}\b(?!-)", known):
            continue
        result = p2p(*command.split(), option)
        accepted = "Missing argument" in result.err
        reason = result.err.startswith(f"error: {option}: ")
        assert accepted or reason, f"{command} {option}: {result.err}"
        assert result.status == 2
