"""`p2p sim`: what it prints, writes and refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p.cli.main import main
from p2p.cli.plot import check_plot
from p2p.cli.sim import parse_size
from p2p.errors import ConfigError, UnsupportedOptionError
from tests.trees import MIB, random_tree

EXAMPLE = Path(__file__).parents[2] / "examples/sim/bad-day.faults"
Capture = pytest.CaptureFixture[str]
SMALL = ("sim", "--devices=4", "--bytes=4MiB")


def test_the_figures_are_printed(capsys: Capture) -> None:
    assert main([*SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 devices, 1 holder, 4 MiB in 3 objects, seed 1")
    assert "times the bound of 0.44 s" in lines[1]
    assert any(line.startswith("copies that left the holders: 1.") for line in lines)
    assert lines[-1].startswith("simulated in ")


def test_json_has_the_keys_that_are_documented(capsys: Capture) -> None:
    assert main([*SMALL, "--wan=20mbit", "--tree=even", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    text = (Path(__file__).parents[2] / "docs/commands.md").read_text()
    section = text.partition("**`sim`**")[2].partition("**`fsck`**")[0]
    assert all(f"`{key}`" in section for key in record)
    assert record["holders"] == 0
    assert record["unfinished"] == 0
    assert record["wan_copies"] >= 1


def run(path: Path, hash_seed: str, *arguments: str) -> tuple[str, bytes]:
    trace = path / f"{hash_seed}.trace"
    command = [sys.executable, "-m", "p2p", *SMALL, *arguments, f"--trace={trace}"]
    result = subprocess.run(
        [*command, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(result.stdout)
    for cost in ("wall_seconds", "cpu_seconds", "peak_bytes"):
        del record[cost]
    return json.dumps(record), trace.read_bytes()


def test_one_seed_gives_one_trace_whatever_the_hash_seed(tmp_path: Path) -> None:
    options = ("--wan=20mbit", "--tree=system", "--objects=150", f"--faults={EXAMPLE}")
    first = run(tmp_path, "0", *options)
    assert first == run(tmp_path, "1", *options)
    assert first[1].count(b"\n") > 200
    assert b"device-1 " in first[1]
    assert first != run(tmp_path, "0", *options, "--seed=2")


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "run.png"
    assert main([*SMALL, "--wan=20mbit", f"--plot={file}"]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert main(["sim", "--devices=20", "--bytes=1MiB", f"--plot={file}"]) == 0


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p.cli.plot.find_spec", lambda _: None)
    with pytest.raises(UnsupportedOptionError) as caught:
        check_plot("x.png")
    assert "ostree-p2p[plot]" in caught.value.hint


def test_a_plot_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, capsys: Capture
) -> None:
    assert main([*SMALL, f"--plot={tmp_path}/x.svg"]) == 2
    assert main([*SMALL, f"--plot={tmp_path}/none/x.png"]) == 2
    assert capsys.readouterr().out == ""


def test_a_real_commit_can_be_simulated(tmp_path: Path, capsys: Capture) -> None:
    tree, repo = tmp_path / "tree", tmp_path / "repo"
    random_tree(tree, seed=1, files=30, size=MIB)
    assert main(["init", f"--repo={repo}", "--mode=archive"]) == 0
    assert main(["commit", f"--repo={repo}", "--branch=os", str(tree)]) == 0
    capsys.readouterr()
    assert main(["sim", "--devices=3", f"--tree={repo}:os", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["unfinished"] == 0
    assert record["objects"] > 30
    assert MIB <= record["bytes"] < 1.2 * MIB
    assert main(["sim", f"--tree={repo}:none"]) == 35


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--bytes=much"], "--bytes: 'much' is no size"),
        (["--link=80"], "--link: '80' is no rate"),
        (["--wan=0mbit"], "--wan: '0mbit' is no rate"),
        (["--latency=soon"], "--latency: 'soon' is no time"),
        (["--holders=0"], "somebody must have the commit"),
        (["--tree=huge"], "'huge' is none of large, even, system and REPO:REF"),
        (["--tree=/r:os", "--bytes=1MiB"], "has its own --bytes"),
        (["--devices=0"], "0 is not in the range"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert main(["sim", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_a_wrong_faults_file_is_named_with_its_line(
    tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "x.faults"
    file.write_text("1s heal\n2s kill device-9\n")
    assert main([*SMALL, f"--faults={file}"]) == 2
    assert f"{file}:2: there is no device-9" in capsys.readouterr().err
    file.write_bytes(b"\xff\n")
    assert main([*SMALL, f"--faults={file}"]) == 2
    assert f"{file}: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, size",
    [("5", 5), ("64MB", 64_000_000), ("128MiB", 128 * MIB), ("1.5k", 1500)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text, where="x") == size


@pytest.mark.parametrize("text", ["", "0", "5X", "5ib", "-1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_size(text, where="x")
