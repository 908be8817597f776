"""Directory trees to commit: small, random, nasty, and one that can be deployed.

Every factory makes the directory it is given and is deterministic: the same
arguments give the same names, content, modes and extended attributes.
"""

import os
import random
import stat
import struct
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB

ODD_NAMES = (
    " leading space",
    "trailing space ",
    "a b",
    "-rf",
    "--",
    ".hidden",
    "..three",
    "...",
    "new\nline",
    "tab\tname",
    "\x01control\x7f",
    "back\\slash",
    "quote\"'`",
    "*?[glob]",
    "%41%2f",
    "#fragment?query=1&x",
    "README",
    "readme",
    "caf\u00e9",  # one code point
    "cafe\u0301",  # the same to a reader, other bytes
    "\u65e5\u672c\u8a9e",
    "\u202eright to left",
    "\U0001f980",
    "n" * 255,
    "\u00e9" * 127 + "x",  # 255 bytes
)
FILE_MODES_USER = (0o400, 0o444, 0o500, 0o600, 0o640, 0o644, 0o755, 0o777)
FILE_MODES_ROOT = (0, 0o001, 0o111, 0o222, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777)
DIRECTORY_MODES_USER = (0o500, 0o700, 0o750, 0o755, 0o777, 0o1777)
DIRECTORY_MODES_ROOT = (0, 0o111, 0o2755, 0o4700, 0o7777)


def _noise(seed: int, size: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(size)


def _write(path: Path, content: bytes = b"", *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def small_tree(path: Path) -> None:
    """A dozen plain files, links and directories: quick, and valid in every mode."""
    _write(path / "usr/bin/hello", b"#!/bin/sh\necho hello\n", mode=0o755)
    _write(path / "usr/lib/os-release", b"ID=small\nPRETTY_NAME=Small\n")
    _write(path / "usr/share/doc/hello/copyright", b"Public domain.\n" * 100)
    _write(path / "usr/share/empty")
    _write(path / "usr/share/noise", _noise(1, 10_000))
    _write(path / "usr/share/same-1", b"the same content\n")
    _write(path / "usr/share/same-2", b"the same content\n")
    _write(path / "etc/hostname", b"small\n")
    (path / "var/empty").mkdir(parents=True)
    (path / "bin").symlink_to("usr/bin")
    (path / "usr/bin/hi").symlink_to("hello")
    _settle_directories(path)


def random_tree(path: Path, *, seed: int, files: int, size: int) -> None:
    """`files` files of together about `size` bytes, log-normally distributed.

    One in four is executable, half of the content compresses well, and about one
    link is added for every fifty files.
    """
    rng = random.Random(seed)
    weights = [rng.lognormvariate(0, 1.5) for _ in range(files)]
    scale = size / sum(weights)
    path.mkdir(parents=True)
    for number, weight in enumerate(weights):
        branch, leaf = divmod(number, 24)
        folder = path / f"d{branch % 16:x}" / f"d{branch:x}"
        length = int(weight * scale)
        content = rng.randbytes(length)
        if number % 2:
            content = (rng.randbytes(48).hex().encode() * (length // 96 + 1))[:length]
        _write(folder / f"f{leaf}", content, mode=0o755 if number % 4 == 0 else 0o644)
        if number % 50 == 0:
            (folder / f"link{leaf}").symlink_to(f"f{leaf}")
    _settle_directories(path)


def change_files(path: Path, *, seed: int, files: int) -> None:
    """Give that many of the tree's regular files new content of the same size.

    Each gets a new inode, so a hard link elsewhere keeps the old content.
    """
    rng = random.Random(seed)
    regular = sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    for chosen in rng.sample(regular, files):
        old = chosen.stat()
        chosen.unlink()
        _write(chosen, rng.randbytes(max(old.st_size, 16)))
        os.chown(chosen, old.st_uid, old.st_gid)
        chosen.chmod(stat.S_IMODE(old.st_mode))


def canonical_tree(path: Path) -> None:
    """Odd names and sizes without anything that bare-user-only cannot hold."""
    path.mkdir(parents=True)
    _odd_names(path / "names")
    _sizes(path / "sizes")
    _links(path / "links")
    _depth(path / "depth")
    _settle_directories(path)


def nasty_tree(path: Path, *, root: bool) -> None:
    """Everything a file system can hold and OSTree can commit.

    With `root`, also what only root can make: other owners, special mode bits,
    files and directories without any permission, capabilities, security labels
    and trusted attributes.
    """
    canonical_tree(path)
    _modes(path / "modes", root=root)
    _user_attributes(path / "attributes")
    if root:
        _owners(path / "owners")
        _root_attributes(path / "root-attributes")
    path.chmod(0o755)


def os_tree(path: Path, *, version: str) -> None:
    """A tree that `ostree admin deploy` accepts; its files are not real programs."""
    kernel = f"usr/lib/modules/6.1.0-{version}"
    _write(path / kernel / "vmlinuz", _noise(2, 64 * KIB) + version.encode())
    _write(path / kernel / "initramfs.img", _noise(3, 128 * KIB) + version.encode())
    release = f'ID=tree\nVERSION_ID={version}\nPRETTY_NAME="Tree{version}"\n'
    _write(path / "usr/lib/os-release", release.encode())
    _write(path / "usr/bin/init", b"#!/bin/sh\n", mode=0o755)
    _write(path / "usr/etc/hostname", b"tree\n")
    _write(path / "usr/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    for name in ("boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"):
        (path / name).mkdir()
    (path / "ostree").symlink_to("sysroot/ostree")
    _settle_directories(path)


def _settle_directories(path: Path) -> None:
    """Fix directory modes, whatever the umask was."""
    path.chmod(0o755)
    for directory, names, _ in os.walk(path):
        for name in names:
            child = Path(directory, name)
            if not child.is_symlink():
                child.chmod(0o755)


def _odd_names(path: Path) -> None:
    for number, name in enumerate(ODD_NAMES):
        _write(path / "files" / name, f"file {number}\n".encode())
        _write(path / "directories" / name / "inside", b"")
        (path / "links").mkdir(exist_ok=True)
        (path / "links" / name).symlink_to(name)


def _sizes(path: Path) -> None:
    _write(path / "empty")
    _write(path / "one", b"x")
    _write(path / "two-same-1", _noise(10, 5000))
    _write(path / "two-same-2", _noise(10, 5000))
    _write(path / "3MiB-noise", _noise(11, 3 * MIB))
    _write(path / "3MiB-text", (b"the same line again\n" * 160_000)[: 3 * MIB])
    _write(path / "512KiB", _noise(12, 512 * KIB))
    _write(path / "512KiB+1", _noise(13, 512 * KIB + 1))
    _write(path / "256KiB-1", _noise(14, 256 * KIB - 1))
    _write(path / "zeros", bytes(2 * MIB))
    with (path / "sparse").open("wb") as sparse:
        sparse.truncate(4 * MIB)
        sparse.seek(2 * MIB)
        sparse.write(b"an island")
    (path / "sparse").chmod(0o644)
    (path / "empty-directory").mkdir()


def _links(path: Path) -> None:
    _write(path / "target", b"linked\n", mode=0o755)
    (path / "other").mkdir()
    os.link(path / "target", path / "hard-1")
    os.link(path / "target", path / "other/hard-2")
    symbolic = {
        "relative": "target",
        "up": "../links/target",
        "dangling": "nowhere/at/all",
        "absolute": "/usr/bin/env",
        "self": "self",
        "unicode": "\u65e5\u672c/\u8a9e \U0001f980",
        "newline": "a\nb",
        "dot": ".",
        "slashes": "..//.//target",
        "long": "/".join(["long" * 50] * 20),  # 4019 bytes; the limit is 4095
    }
    for name, target in symbolic.items():
        (path / name).symlink_to(target)


def _depth(path: Path) -> None:
    deep = path
    for level in range(60):
        deep = deep / f"{level:x}"
    _write(deep / "bottom", b"deep\n")
    for number in range(300):
        _write(path / "wide" / f"{number:03}", str(number % 7).encode())


def _modes(path: Path, *, root: bool) -> None:
    for mode in FILE_MODES_USER + (FILE_MODES_ROOT if root else ()):
        _write(path / "files" / f"{mode:04o}", f"{mode:o}\n".encode(), mode=mode)
    for mode in DIRECTORY_MODES_USER + (DIRECTORY_MODES_ROOT if root else ()):
        directory = path / "directories" / f"{mode:04o}"
        _write(directory / "inside", b"the same in each\n")
        directory.chmod(mode)
    for directory in (path, path / "files", path / "directories"):
        directory.chmod(0o755)


def _user_attributes(path: Path) -> None:
    files: dict[str, dict[str, bytes]] = {
        "one": {"user.a": b"1"},
        "sorted": {"user.b": b"2", "user.a": b"1", "user.B": b"3", "user.aa": b"4"},
        "empty-value": {"user.empty": b""},
        "binary": {"user.binary": bytes(range(256))},
        "large": {"user.large": _noise(20, 2000)},
        "unicode": {"user.\u00fcn\u00ef": "\u65e5\u672c".encode()},
    }
    for name, attributes in files.items():
        _write(path / name, b"with attributes\n")
        for key, value in attributes.items():
            os.setxattr(path / name, key, value)
    os.link(path / "one", path / "one-hard-link")
    (path / "directory").mkdir(mode=0o755)
    os.setxattr(path / "directory", "user.on-directory", b"yes")
    path.chmod(0o755)


def _owners(path: Path) -> None:
    owners = ((0, 12), (1000, 1000), (65534, 65534), (2**31 + 5, 2**32 - 2))
    for uid, gid in owners:
        name = f"{uid}-{gid}"
        _write(path / "files" / name, name.encode())
        os.chown(path / "files" / name, uid, gid)
        (path / "files" / f"{name}-setuid").write_bytes(name.encode())
        os.chown(path / "files" / f"{name}-setuid", uid, gid)
        (path / "files" / f"{name}-setuid").chmod(0o6755)
        directory = path / "directories" / name
        _write(directory / "inside", b"")
        os.chown(directory, uid, gid)
        directory.chmod(0o2775)
        link = path / f"link-{name}"
        link.symlink_to("files")
        os.lchown(link, uid, gid)
    for directory in (path, path / "files", path / "directories"):
        directory.chmod(0o755)


def capability(number: int) -> bytes:
    """A `security.capability` value, version 2, that permits one capability.

    See `struct vfs_cap_data` in linux/capability.h; all numbers little-endian.
    """
    version_2_effective = 0x02000001
    return struct.pack("<5I", version_2_effective, 1 << number, 0, 0, 0)


def _root_attributes(path: Path) -> None:
    cap_net_raw = capability(13)
    _write(path / "ping", b"\x7fELF ping", mode=0o755)
    os.setxattr(path / "ping", "security.capability", cap_net_raw)
    _write(path / "owned-ping", b"\x7fELF ping", mode=0o755)
    os.chown(path / "owned-ping", 1000, 1000)
    (path / "owned-ping").chmod(0o4750)  # a change of owner clears mode bits
    os.setxattr(path / "owned-ping", "security.capability", cap_net_raw)
    os.setxattr(path / "owned-ping", "user.note", b"and a user attribute")
    _write(path / "labelled", b"labelled\n")
    label = b"system_u:object_r:usr_t:s0\0"
    os.setxattr(path / "labelled", "security.selinux", label)
    _write(path / "trusted", b"trusted\n")
    os.setxattr(path / "trusted", "trusted.note", b"root only")
    (path / "link").symlink_to("trusted")
    os.setxattr(path / "link", "trusted.on-link", b"yes", follow_symlinks=False)
    (path / "directory").mkdir(mode=0o755)
    os.setxattr(path / "directory", "trusted.on-directory", b"yes")
    path.chmod(0o755)
