"""A real Debian tree to commit, and the next release's `ostree` to compare with.

Both are made once a machine from its own package mirror. `python -m tests.debian`
makes the tree ahead of the tests, with progress on the screen; with `--ostree` it makes
the program, and prints a directory to put first on PATH.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.require import find_program

PACKAGES = ("linux-image-{arch}", "systemd-sysv", "python3", "tzdata")
# Without most drivers the tree has the size of a device's, not of a desktop's.
EXCLUDED = tuple(
    f"/lib/modules/*/kernel/{part}/*"
    for part in (
        "drivers/gpu",
        "drivers/infiniband",
        "drivers/media",
        "drivers/net/ethernet",
        "drivers/net/wireless",
        "drivers/scsi",
        "fs",
        "net",
        "sound",
    )
)
NEXT_RELEASE = {"bookworm": "trixie", "trixie": "forky"}
# Run by its own loader with its own libraries: no chroot, so it sees every path.
_WRAPPER = """#!/bin/sh
usr={tree}/usr
lib=$usr/lib/{triplet}
exec $lib/{loader} --argv0 ostree --library-path $lib:$lib/systemd $usr/bin/ostree "$@"
"""
KEPT_SETTINGS = (
    "Acquire::Check-Date",
    "Acquire::Check-Valid-Until",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
)


class SetupError(Exception):
    """The tree cannot be made on this machine; the message says why."""


def cache_directory() -> Path:
    """`$P2P_TEST_CACHE`, else ostree-p2p in the user's cache directory."""
    named = os.environ.get("P2P_TEST_CACHE")
    if named:
        return Path(named)
    home_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home_cache, "ostree-p2p")


def debian_tree() -> Path:
    """The Debian tree (hundreds of MB, over 10,000 files), made if it is not there.

    The tree belongs to every test: never write to it. Processes that ask at the
    same time wait for the first. Needs root.

    Raises:
        SetupError: it cannot be made here.
    """
    suite = _release_field("VERSION_CODENAME")
    recipe = repr((suite, _architecture(), PACKAGES, EXCLUDED)).encode()
    name = f"debian-{suite}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / name
    with _locked(cache / f"{name}.lock"):
        if not ready.is_dir():
            _make(suite, ready)
    return ready


def next_ostree() -> Path:
    """A directory with the `ostree` of the release after this machine's.

    Raises:
        SetupError: it cannot be made here.
    """
    suite = _release_field("VERSION_CODENAME")
    following = NEXT_RELEASE.get(suite)
    if following is None:
        raise SetupError(f"which release follows {suite} is not known here")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    ready = cache / f"ostree-{following}"
    with _locked(cache / f"{ready.name}.lock"):
        if not ready.is_dir():
            with _making(ready) as tree:
                sources = [
                    line.replace(f" {suite} main", f" {following} main")
                    for line in _apt_sources(suite)
                    if line.endswith(f" {suite} main")
                ]
                extract = ["--variant=extract", "--include=ostree"]
                _run_mmdebstrap(following, tree, extract, sources)
                _write_wrapper(tree, ready)
    return ready / "bin"


def _write_wrapper(tree: Path, ready: Path) -> None:
    (loader,) = (tree / "usr/lib").glob("*-linux-gnu*/ld-linux*.so.*")
    program = tree / "bin/ostree"
    program.parent.mkdir()
    program.write_text(
        _WRAPPER.format(tree=ready, triplet=loader.parent.name, loader=loader.name)
    )
    program.chmod(0o755)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(suite: str, ready: Path) -> None:
    arch = _architecture()
    options = [
        "--variant=minbase",
        "--include=" + ",".join(p.format(arch=arch) for p in PACKAGES),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
    ]
    with _making(ready) as tree:
        _run_mmdebstrap(suite, tree, options, _apt_sources(suite))
        _clean(tree)
        files = sum(len(names) for _, _, names in os.walk(tree))
        if files < 10_000:
            raise SetupError(f"mmdebstrap made only {files} files")


@contextmanager
def _making(ready: Path) -> Iterator[Path]:
    """Make a tree beside its place and rename it, so that it is whole or absent."""
    prefix = f"{ready.name}.making-"
    for leftover in ready.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)  # of a process that was killed
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=ready.parent))
    work.chmod(0o755)  # apt downloads as another user
    try:
        yield work / "tree"
        (work / "tree").rename(ready)
    finally:
        shutil.rmtree(work)


def _run_mmdebstrap(
    suite: str, tree: Path, options: list[str], sources: list[str]
) -> None:
    if not find_program("mmdebstrap"):
        raise SetupError("the program mmdebstrap is not installed")
    command = [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--skip=output/dev,output/mknod",
        *options,
        *(f"--aptopt={setting}" for setting in _apt_settings()),
        suite,
        str(tree),
        *sources,
    ]
    # Standard output is for the result.
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise SetupError(f"mmdebstrap failed with {done.returncode}; see its output")


def _clean(tree: Path) -> None:
    """Remove what OSTree cannot commit and what names this machine."""
    for name in ("dev", "proc", "sys", "run", "tmp"):
        for child in (tree / name).iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
    for directory, _, names in os.walk(tree):
        for path in (Path(directory, name) for name in names):
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                path.unlink()
    for leftover in (
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/hostname",
        "etc/resolv.conf",
    ):
        (tree / leftover).unlink(missing_ok=True)
    sources = tree / "etc/apt/sources.list"
    sources.unlink(missing_ok=True)
    shutil.rmtree(tree / "etc/apt/sources.list.d")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _architecture() -> str:
    return _output("dpkg", "--print-architecture").strip()


def _release_field(key: str) -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == key:
            return value.strip('"')
    raise SetupError(f"/etc/os-release has no {key}; is this Debian?")


def _apt_settings() -> Iterator[str]:
    for line in _output("apt-config", "dump").splitlines():
        if line.split(" ", 1)[0] in KEPT_SETTINGS:
            yield line


def _apt_sources(suite: str) -> list[str]:
    """This machine's own sources of the suite, as lines for sources.list."""
    query = (
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)",
        "Created-By: Packages",
    )
    if not (targets := _output(*query)):
        # apt knows only what it has fetched the indexes of.
        subprocess.run(["apt-get", "update"], check=True)
        targets = _output(*query)
    lines = set()
    for target in targets.splitlines():
        uri, release, component, *signed_by = target.split(" ")
        if component == "main" and release.split("-")[0] == suite:
            key = signed_by[0] if signed_by else ""
            option = f"[signed-by={key}] " if key.startswith("/") else ""
            lines.add(f"deb {option}{uri} {release} main")
    if not lines:
        raise SetupError(f"apt has no source of {suite} main; see /etc/apt")
    return sorted(lines)


def main() -> None:
    """Make the tree now; say what is missing and stop where that cannot be."""
    if os.geteuid() != 0:
        print("Without root the tests on a real Debian tree are skipped.")
        return
    try:
        if "--ostree" in sys.argv[1:]:
            print(next_ostree())
            return
        print("Debian tree for the tests:", debian_tree())
    except SetupError as error:
        sys.exit(f"The Debian tree for the tests cannot be made: {error}")


if __name__ == "__main__":
    main()
