"""An independent check of repositories in every mode, file by file.

Stock `ostree fsck` looks only at what commits reach and skips partial ones. This
walker recomputes the checksum of every file under `objects/` and the staging
store, and says what a commit or ref lacks.
"""

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from configparser import RawConfigParser
from dataclasses import dataclass, field
from pathlib import Path

from tests.oracle.variant import (
    VariantError,
    be32,
    be64,
    read,
    write_file_header,
    write_xattrs,
)

STAGE = "extensions/p2p/stage"
COMMIT = "(a{sv}aya(say)sstayay)"
DIRTREE = "(a(say)a(sayay))"
DIRMETA = "(uuua(ayay))"
FILEZ = "(tuuuusa(ayay))"

_OBJECT = re.compile(r"(?:^|/)([0-9a-f]{2})/([0-9a-f]{62})\.([a-z-]+)$")
_METADATA = {
    "commit": COMMIT,
    "dirtree": DIRTREE,
    "dirmeta": DIRMETA,
    "file-xattrs": "a(ayay)",
}
_DETACHED = {"commitmeta": "a{sv}", "tombstone-commit": "a{sv}"}


class DamageError(Exception):
    """An object is not what its name says."""


@dataclass(frozen=True, slots=True)
class Report:
    """How many object files were recomputed, and what is wrong, one line each."""

    checked: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closure:
    """What a commit reaches, as names like `<checksum>.dirtree`."""

    reachable: frozenset[str]
    missing: frozenset[str]


def repo_mode(repo: Path) -> str:
    """The mode from the repository's own configuration."""
    parser = RawConfigParser(strict=False)
    parser.read(repo / "config")
    mode = parser["core"]["mode"]
    return "archive" if mode == "archive-z2" else mode


def object_files(repo: Path) -> Iterator[tuple[Path, str, str]]:
    """Every file under `objects/` and the stage: path, checksum, extension.

    A file under any `objects/` with another name has neither.
    """
    for top in (repo / "objects", repo / STAGE):
        for folder, directories, names in os.walk(top):
            # os.walk counts a link to a directory among the directories.
            for path in (Path(folder, name) for name in directories + names):
                if not path.is_symlink() and path.is_dir():
                    continue
                if found := _OBJECT.search(path.as_posix()):
                    first, rest, extension = found.groups()
                    yield path, first + rest, extension
                elif "objects" in path.relative_to(repo).parts:
                    yield path, "", ""


def walk_objects(repo: Path) -> Report:
    """Recompute every object file of the repository and its staging store."""
    mode = repo_mode(repo)
    checked = 0
    problems = []
    for path, checksum, extension in object_files(repo):
        try:
            checked += 1
            _check(path, checksum, extension, mode)
        except (DamageError, VariantError, OSError) as error:
            problems.append(f"{path.relative_to(repo)}: {error}")
    return Report(checked, tuple(sorted(problems)))


def _check(path: Path, checksum: str, extension: str, mode: str) -> None:
    if extension in _METADATA:
        data = path.read_bytes()
        read(_METADATA[extension], data)
        _compare(hashlib.sha256(data).hexdigest(), checksum)
    elif extension in _DETACHED:
        read(_DETACHED[extension], path.read_bytes())
    elif extension == "filez" and mode == "archive":
        _compare(_filez_checksum(path.read_bytes()), checksum)
    elif extension == "file" and mode != "archive":
        _compare(_file_checksum(path, mode), checksum)
    elif extension == "file-xattrs-link" and mode == "bare-split-xattrs":
        read("a(ayay)", path.read_bytes())
    elif extension == "payload-link":
        content = path.resolve(strict=True).read_bytes()
        _compare(hashlib.sha256(content).hexdigest(), checksum)
    else:
        raise DamageError(f"not an object of mode {mode}")


def _compare(actual: str, checksum: str) -> None:
    if actual != checksum:
        raise DamageError(f"its content has the checksum {actual}")


def content_checksum(header: bytes, content: bytes) -> str:
    """The checksum of a file object: framed header, then the content."""
    framed = len(header).to_bytes(4, "big") + bytes(4) + header
    return hashlib.sha256(framed + content).hexdigest()


def _filez_checksum(data: bytes) -> str:
    length = int.from_bytes(data[:4], "big")
    if data[4:8] != bytes(4) or len(data) < 8 + length:
        raise DamageError("broken framing of the header")
    size, uid, gid, mode, rdev, target, xattrs = read(FILEZ, data[8 : 8 + length])
    if rdev:
        raise DamageError(f"device number {rdev}")
    compressed = data[8 + length :]
    content = b""
    if stat.S_ISREG(be32(mode)):
        inflate = zlib.decompressobj(wbits=-15)
        try:
            content = inflate.decompress(compressed)
        except zlib.error as error:
            raise DamageError(str(error)) from error
        if not inflate.eof or inflate.unused_data:
            raise DamageError("compressed content is cut short or followed by more")
    elif compressed:
        raise DamageError("a link with content")
    if len(content) != be64(size):
        raise DamageError(f"{len(content)} bytes where the header says {be64(size)}")
    header = write_file_header(
        be32(uid),
        be32(gid),
        be32(mode),
        target.encode(),
        write_xattrs([(name[:-1], value) for name, value in xattrs]),
    )
    return content_checksum(header, content)


def _file_checksum(path: Path, repo_mode_name: str) -> str:
    status = path.lstat()
    mode = status.st_mode
    uid, gid, xattrs = status.st_uid, status.st_gid, b""
    if repo_mode_name == "bare":
        xattrs = inode_xattrs(path)
    elif repo_mode_name == "bare-split-xattrs":
        xattrs = path.with_suffix(".file-xattrs-link").read_bytes()
    elif repo_mode_name == "bare-user-only":
        uid = gid = 0
    elif repo_mode_name == "bare-user":
        if not stat.S_ISREG(mode):
            raise DamageError("no regular file")
        meta = os.getxattr(path, "user.ostreemeta")
        uid, gid, mode, pairs = read(DIRMETA, meta)
        uid, gid, mode = be32(uid), be32(gid), be32(mode)
        xattrs = write_xattrs([(name[:-1], value) for name, value in pairs])
    target, content = _payload(path, mode)
    return content_checksum(write_file_header(uid, gid, mode, target, xattrs), content)


def _payload(path: Path, mode: int) -> tuple[bytes, bytes]:
    """Link target and content of an object file whose recorded mode this is."""
    if stat.S_ISLNK(path.lstat().st_mode):
        return os.fsencode(os.readlink(path)), b""
    content = path.read_bytes()
    if stat.S_ISREG(mode):
        return b"", content
    if not stat.S_ISLNK(mode):
        raise DamageError(f"neither file nor link: mode {mode:o}")
    if content[-1:] != b"\0":
        raise DamageError("a link's target without its NUL")
    return content[:-1], b""


def inode_xattrs(path: Path) -> bytes:
    """All attributes of a file or link itself, serialised as OSTree does."""
    names = sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False)))
    return write_xattrs(
        [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    )


@dataclass(slots=True)
class _Reach:
    """Walks down from commits; what was seen once is not read again."""

    objects: Path
    file_extension: str
    reachable: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)

    def add(self, checksum: str, extension: str) -> bytes | None:
        """Note an object; its bytes if it is metadata, there and new."""
        name = f"{checksum}.{extension}"
        if name in self.reachable:
            return None
        self.reachable.add(name)
        path = self.objects / name[:2] / name[2:]
        if not os.path.lexists(path):
            self.missing.add(name)
            return None
        return path.read_bytes() if extension in ("commit", "dirtree") else None

    def commit(self, checksum: str) -> None:
        data = self.add(checksum, "commit")
        if data is None:
            return
        *_, root_tree, root_meta = read(COMMIT, data)
        self.add(root_meta.hex(), "dirmeta")
        waiting = [root_tree.hex()]
        while waiting:
            tree = self.add(waiting.pop(), "dirtree")
            if tree is None:
                continue
            files, directories = read(DIRTREE, tree)
            for _, content in files:
                self.add(content.hex(), self.file_extension)
            for _, subtree, meta in directories:
                self.add(meta.hex(), "dirmeta")
                waiting.append(subtree.hex())


def _reach(repo: Path) -> _Reach:
    extension = "filez" if repo_mode(repo) == "archive" else "file"
    return _Reach(repo / "objects", extension)


def closure(repo: Path, commit: str) -> Closure:
    """What the commit reaches (not its parent) and what of it is not there."""
    reach = _reach(repo)
    reach.commit(commit)
    return Closure(frozenset(reach.reachable), frozenset(reach.missing))


def dangling(repo: Path) -> list[str]:
    """Refs without a commit, and commits that lack objects and are not partial.

    A commit is partial where `state/<commit>.commitpartial` says so.
    """
    problems = []
    for path in sorted((repo / "refs").rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(repo)
        target = path.read_text().strip() if path.exists() else "nothing"
        commit = repo / "objects" / target[:2] / f"{target[2:]}.commit"
        if not commit.exists():
            problems.append(f"{name} points at {target}, which is not there")
    for path, checksum, extension in object_files(repo):
        if extension != "commit" or repo / STAGE in path.parents:
            continue
        if (repo / "state" / f"{checksum}.commitpartial").exists():
            continue
        missing = closure(repo, checksum).missing
        if missing:
            example = min(missing)
            problems.append(f"{checksum} lacks {len(missing)} objects, {example} first")
    return problems
