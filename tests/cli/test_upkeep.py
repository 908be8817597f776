"""`p2p fsck`, `prune`, `checkout`, `show`, `ls`, `push`, `serve` and `treehub`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2p.cli.main import main
from tests.oracle import closure, walk_objects
from tests.trees import small_tree

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def repo(tmp_path: Path, capsys: Capture) -> Path:
    """A repository with two commits of `os`, signed."""
    tree = tmp_path / "tree"
    small_tree(tree)
    path = tmp_path / "repo"
    assert main(["keygen", str(tmp_path / "keys")]) == 0
    assert main(["init", f"--repo={path}", "--mode=archive"]) == 0
    commit(path, tree, f"--sign-key={tmp_path}/keys/signing.key", "--subject=first")
    (tree / "second").write_text("second")
    commit(path, tree, f"--sign-key={tmp_path}/keys/signing.key", "--subject=second")
    capsys.readouterr()
    return path


def commit(repo: Path, tree: Path, *options: str) -> None:
    assert main(["commit", f"--repo={repo}", "-b", "os", *options, str(tree)]) == 0


def said(capsys: Capture) -> str:
    return capsys.readouterr().out.strip()


def some_object(repo: Path, extension: str) -> Path:
    return min(repo.glob(f"objects/*/*.{extension}"))


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


# -- fsck -------------------------------------------------------------------------


def test_fsck_of_a_good_repository_counts_what_it_checked(
    repo: Path, capsys: Capture
) -> None:
    assert main(["fsck", f"--repo={repo}"]) == 0
    assert "2 commits checked" in said(capsys)


def test_fsck_names_a_damaged_object_with_its_paths(
    repo: Path, capsys: Capture
) -> None:
    damaged = some_object(repo, "filez")
    spoil(damaged)
    assert main(["fsck", f"--repo={repo}"]) == 33
    out, err = capsys.readouterr()
    assert damaged.stem in out
    assert "in commit" in out
    assert "p2p fsck --repair" in err


def test_fsck_repair_marks_commits_so_that_a_pull_completes_them(
    repo: Path, capsys: Capture
) -> None:
    damaged = some_object(repo, "filez")
    spoil(damaged)
    assert main(["fsck", f"--repo={repo}", "--repair", "--json"]) == 0
    report = json.loads(said(capsys))
    assert len(report["fetch"]) == 1
    assert not damaged.exists()
    assert list((repo / "state").glob("*.commitpartial"))


def test_fsck_finds_a_ref_without_its_commit(repo: Path, capsys: Capture) -> None:
    (repo / "refs/heads/lost").write_text("ab" * 32 + "\n")
    assert main(["fsck", f"--repo={repo}", "--quiet"]) == 33
    assert "heads/lost" in said(capsys)


# -- prune ------------------------------------------------------------------------


def test_prune_deletes_what_no_ref_reaches(repo: Path, capsys: Capture) -> None:
    assert main(["prune", f"--repo={repo}", "--refs-only", "--depth=0"]) == 0
    assert "0 deleted" not in said(capsys)
    assert main(["ls", f"--repo={repo}", "--refs"]) == 0
    checksum = said(capsys).split()[0]
    assert not closure(repo, checksum).missing
    assert not walk_objects(repo).problems


def test_prune_without_pruning_only_counts(repo: Path, capsys: Capture) -> None:
    before = sorted(repo.glob("objects/*/*"))
    options = ["--refs-only", "--depth=0", "--no-prune", "--json"]
    assert main(["prune", f"--repo={repo}", *options]) == 0
    assert json.loads(said(capsys))["pruned"] > 0
    assert sorted(repo.glob("objects/*/*")) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--keep-younger-than=yesterday"],
        ["--only-branch=x"],
        ["--delete-commit=os"],
        ["--delete-commit=nowhere"],
    ],
)
def test_prune_refuses_what_it_cannot_do(repo: Path, options: Sequence[str]) -> None:
    before = sorted(repo.glob("objects/*/*"))
    assert main(["prune", f"--repo={repo}", *options]) != 0
    assert sorted(repo.glob("objects/*/*")) == before


def test_prune_keeps_what_is_young(repo: Path) -> None:
    before = sorted(repo.glob("objects/*/*"))
    young = "--keep-younger-than=2000-01-01"
    assert main(["prune", f"--repo={repo}", young]) == 0
    assert sorted(repo.glob("objects/*/*")) == before


# -- checkout ---------------------------------------------------------------------


def test_checkout_writes_the_tree(repo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert main(["checkout", f"--repo={repo}", "-U", "os", str(target)]) == 0
    assert (target / "second").read_text() == "second"
    assert main(["checkout", f"--repo={repo}", "-U", "os", str(target)]) == 30
    again = ["checkout", f"--repo={repo}", "-U", "--union", "os", str(target)]
    assert main(again) == 0
    add = ["checkout", f"--repo={repo}", "-UC", "--union-add", "os^", str(target)]
    assert main(add) == 0


@pytest.mark.parametrize(
    "options",
    [["--union", "--union-add"], ["-H", "-C"], ["--whiteouts"], ["-H", "-U"]],
)
def test_checkout_refuses_what_contradicts_itself(
    repo: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    target = tmp_path / "out"
    assert main(["checkout", f"--repo={repo}", *options, "os", str(target)]) != 0
    assert not target.exists()


# -- show and ls ------------------------------------------------------------------


def test_show_tells_what_a_commit_says(repo: Path, capsys: Capture) -> None:
    assert main(["show", f"--repo={repo}", "os"]) == 0
    text = said(capsys)
    assert "    second" in text
    assert "Parent:" in text
    assert "1 ed25519" in text
    assert main(["show", f"--repo={repo}", "--json", "os^"]) == 0
    record = json.loads(said(capsys))
    assert record["subject"] == "first"
    assert record["metadata"]["ostree.ref-binding"] == ["os"]
    assert record["signatures"] == {"ed25519": 1}
    assert record["partial"] is False


def test_ls_lists_as_ostree_does(repo: Path, capsys: Capture) -> None:
    assert main(["ls", f"--repo={repo}", "-R", "-C", "os"]) == 0
    ours = said(capsys).splitlines()
    stock = subprocess.run(
        ["ostree", f"--repo={repo}", "ls", "-R", "-C", "os"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(ours) == sorted(stock.stdout.strip().splitlines())
    assert main(["ls", f"--repo={repo}", "-X", "os", "/second"]) == 0
    assert "{" in said(capsys)
    assert main(["ls", f"--repo={repo}", "os", "/nowhere"]) == 37
    assert main(["ls", f"--repo={repo}"]) == 2


def test_what_is_not_there_is_named(repo: Path, capsys: Capture) -> None:
    assert main(["show", f"--repo={repo}", "nothing"]) == 35
    assert "'nothing'" in capsys.readouterr().err
    assert main(["show", f"--repo={repo}-none", "os"]) == 2
    assert "p2p init" in capsys.readouterr().err


# -- servers ----------------------------------------------------------------------


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """Run a command that serves; yield its first line, end it as a user would."""
    with subprocess.Popen(
        [sys.executable, "-m", "p2p", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait()
    assert status == 0


def test_a_push_arrives_and_a_second_one_sends_nothing(
    repo: Path, tmp_path: Path, capsys: Capture
) -> None:
    store = tmp_path / "hub"
    with running(
        "treehub", f"--store={store}", "--listen=127.0.0.1:0", "--json"
    ) as line:
        url = json.loads(line)["urls"][0]
        push = ["push", f"--repo={repo}", "--ref=os", f"--origin={url}/api/v3"]
        assert main([*push, "--json"]) == 0
        assert json.loads(said(capsys))["sent_objects"] > 3
        assert main(push) == 0
        assert "0 objects" in capsys.readouterr().err
        tree = tmp_path / "tree"
        (tree / "third").write_text("third")
        commit(repo, tree, f"--push={url}/api/v3")
        assert "os " in capsys.readouterr().err
    assert (store / "refs/heads/os").exists() or list(store.rglob("heads/os"))


def test_a_server_with_credentials_lets_only_their_owner_push(
    repo: Path, tmp_path: Path, capsys: Capture
) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("basic ota:pass\n")
    options = [f"--store={tmp_path / 'hub'}", "--listen=127.0.0.1:0", "--json"]
    with running("treehub", *options, f"--credentials-file={secrets}") as line:
        url = json.loads(line)["urls"][0] + "/api/v3"
        push = ["push", f"--repo={repo}", "--ref=os"]
        assert main([*push, f"--origin={url}"]) == 26
        treehub = {
            "basic_auth": {"user": "ota", "password": "pass"},
            "ostree": {"server": url},
        }
        credentials = tmp_path / "treehub.json"
        credentials.write_text(json.dumps(treehub))
        assert main([*push, f"--credentials={credentials}"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "options",
    [["--ref=os"], ["--ref=os", "--origin=http://x", "--http-header=bad"]],
)
def test_a_push_to_nowhere_is_refused(repo: Path, options: Sequence[str]) -> None:
    assert main(["push", f"--repo={repo}", *options]) == 2


def test_treehub_refuses_half_a_tls_setup(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("")
    store = f"--store={tmp_path / 'hub'}"
    assert main(["treehub", store, f"--tls-key={key}"]) == 2
    assert main(["treehub", store, f"--tls-cert={key}"]) == 2


def test_what_is_served_can_be_pulled_without_an_origin(
    repo: Path, tmp_path: Path, capsys: Capture
) -> None:
    device = tmp_path / "device"
    assert main(["init", f"--repo={device}", "--mode=bare-user"]) == 0
    key = f"--sign-verify=ed25519=file:{tmp_path}/keys/signing.pub"
    remote = ["remote", "add", f"--repo={device}", "up", "http://127.0.0.1:9", key]
    assert main(remote) == 0
    (repo / "refs/heads/half").write_text("ab" * 32 + "\n")
    os.makedirs(repo / "state", exist_ok=True)
    (repo / "state" / f"{'ab' * 32}.commitpartial").touch()
    with running(
        "serve", f"--repo={repo}", "--listen=127.0.0.1:0", "--no-mdns"
    ) as line:
        peer = f"--peer=127.0.0.1:{line.rpartition(' ')[2]}"
        pull = [
            "pull",
            f"--repo={device}",
            "up",
            "os",
            peer,
            "--no-origin",
            "--no-mdns",
        ]
        assert main([*pull, "--json"]) == 0
    result = json.loads(said(capsys).splitlines()[-1])
    assert result["origin"]["bytes"] == 0
    assert result["peers"]["objects"] > 3
    assert not closure(device, result["commit"]).missing


@pytest.mark.parametrize(
    "options", [["--no-origin"], ["--no-share", "--share-for=3"], ["--peer=nonsense"]]
)
def test_pull_refuses_what_makes_no_sense(repo: Path, options: Sequence[str]) -> None:
    assert main(["pull", "--no-mdns", f"--repo={repo}", "up", "os", *options]) == 2
