"""A repository on disk, in every mode: configuration, objects, refs, partial state.

Reading needs no lock: an object that vanishes while it is looked for is simply not
there. Writing objects goes through `stage` and `publish`.
Source of the layout: libostree `ostree-repo.c` and docs/repo.md.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from p2p.errors import (
    ConfigError,
    DamagedObjectError,
    FormatError,
    NoSpaceError,
    ObjectNotFoundError,
    RefNotFoundError,
)
from p2p.ostree import config as configuration
from p2p.ostree.config import RemoteConfig, RepoConfig, RepoMode
from p2p.ostree.content import ContentReader, ContentStyle
from p2p.ostree.disk import exists, write_file, writing
from p2p.ostree.keyfile import KeyFile
from p2p.ostree.lock import locked
from p2p.ostree.objects import (
    MAX_METADATA_BYTES,
    Checksum,
    Commit,
    DirTree,
    ObjectName,
    ObjectType,
    checksum_of,
    parse_checksum,
    parse_object_path,
)
from p2p.ostree.refs import Refs, parse_refspec

_SKELETON = (
    "objects",
    "refs/heads",
    "refs/mirrors",
    "refs/remotes",
    "state",
    "tmp/cache",
    "extensions",
)
_MAX_DETACHED_BYTES = 128 << 20


class Repo:
    """An OSTree repository; all paths below it are made from `path`."""

    def __init__(self, path: str, keys: KeyFile) -> None:
        """Use `open` or `init` instead."""
        self.path = path
        self.keys = keys
        self.config = RepoConfig.parse(keys)
        self.objects = os.path.join(path, "objects")
        self.refs = Refs(os.path.join(path, "refs"), fsync=self.config.fsync)
        self.style = ContentStyle(
            self.config.mode,
            disable_xattrs=self.config.disable_xattrs,
            zlib_level=self.config.zlib_level,
        )
        self._archive = self.config.mode is RepoMode.ARCHIVE

    def __repr__(self) -> str:
        return f"<Repo {self.path} {self.config.mode}>"

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], settings: Mapping[str, str] | None = None
    ) -> Repo:
        """Return the repository at path; ConfigError if there is none it can use.

        `settings` are keys of `[core]` that count instead of the file's.
        """
        path = os.path.abspath(path)
        if not os.path.isdir(os.path.join(path, "objects")):
            raise ConfigError(
                path,
                "is not an OSTree repository",
                hint=f"Make one with `p2p init --repo={path} --mode=bare-user`.",
            )
        keys = configuration.load_key_file(Path(path, "config"))
        for key, value in (settings or {}).items():
            keys.set("core", key, value)
        return cls(path, keys)

    @classmethod
    def init(
        cls,
        path: str | os.PathLike[str],
        mode: RepoMode,
        *,
        collection_id: str | None = None,
    ) -> Repo:
        """Make a repository, or return the one that is there if its mode is the same.

        Raises:
            ConfigError: there is one of another mode, or the mode is only read.

        """
        path = os.path.abspath(path)
        if mode is RepoMode.BARE_SPLIT_XATTRS:
            raise ConfigError(path, f"repositories of mode {mode} are only read")
        config = Path(path, "config")
        if not config.exists():
            keys = KeyFile(where=str(config))
            keys.set("core", "repo_version", "1")
            keys.set("core", "mode", mode)
            if collection_id is not None:
                keys.set("core", "collection-id", collection_id)
            RepoConfig.parse(keys)
            with writing(path):
                for directory in _SKELETON:
                    os.makedirs(os.path.join(path, directory), 0o775, exist_ok=True)
                write_file(str(config), str(keys).encode(), fsync=True)
        repo = cls.open(path)
        if repo.config.mode is not mode:
            raise ConfigError(
                f"{config}: [core] mode", f"is {repo.config.mode}, not {mode}"
            )
        return repo

    # -- configuration ---------------------------------------------------------

    def save_config(self) -> None:
        """Write the configuration back, atomically."""
        with writing(self.path):
            write_file(
                os.path.join(self.path, "config"), str(self.keys).encode(), fsync=True
            )
        self.config = RepoConfig.parse(self.keys)

    def remote(self, name: str) -> RemoteConfig:
        """Return a remote of this repository or of /etc/ostree/remotes.d."""
        return configuration.parse_remote(self._all_remotes(), name)

    def remote_names(self) -> list[str]:
        """Return the names of all remotes."""
        return configuration.remote_names(self._all_remotes())

    def _all_remotes(self) -> KeyFile:
        if not self.config.add_remotes_config_dir:
            return self.keys
        merged = KeyFile.parse(str(self.keys), where=self.keys.where)
        configuration.load_system_remotes(merged)
        return merged

    # -- objects ---------------------------------------------------------------

    def object_path(self, name: ObjectName) -> str:
        """Return where an object lies, or would lie."""
        return f"{self.objects}/{name.path(archive=self._archive)}"

    def has(self, name: ObjectName) -> bool:
        """Tell whether the object is here (or in the parent repository)."""
        for repo in self.lineage:  # noqa: SIM110 - asked for every object
            if exists(repo.object_path(name)):
                return True
        return False

    @functools.cached_property
    def lineage(self) -> tuple[Repo, ...]:
        """This repository and those of `core.parent`, one behind the other."""
        lineage = [self]
        while (parent := lineage[-1].config.parent) is not None:
            repo = Repo.open(os.path.join(lineage[-1].path, parent))
            if any(os.path.samefile(repo.path, other.path) for other in lineage):
                raise ConfigError(f"{repo.keys.where}: [core] parent", "is a circle")
            lineage.append(repo)
        return tuple(lineage)

    def load_metadata(self, name: ObjectName) -> bytes:
        """Return a metadata object's bytes, checked against its name.

        Raises:
            ObjectNotFoundError: it is not here.
            DamagedObjectError: its bytes do not have that checksum.

        """
        data = self._read_metadata(name, MAX_METADATA_BYTES)
        if checksum_of(data) != name.checksum:
            raise DamagedObjectError(f"{self.object_path(name)}: damaged")
        return data

    def _read_metadata(self, name: ObjectName, limit: int) -> bytes:
        for repo in self.lineage:
            path = repo.object_path(name)
            try:
                with open(path, "rb") as file:
                    data = file.read(limit + 1)
            except FileNotFoundError:
                continue
            if len(data) > limit:
                raise DamagedObjectError(f"{path}: larger than {limit} bytes")
            return data
        raise ObjectNotFoundError(f"{self.path}: no object {name}")

    def load_commit(self, checksum: Checksum) -> Commit:
        """Return a commit; errors as `load_metadata`."""
        name = ObjectName(checksum, ObjectType.COMMIT)
        return Commit.parse(self.load_metadata(name))

    def load_dirtree(self, checksum: Checksum) -> DirTree:
        """Return a directory; errors as `load_metadata`."""
        name = ObjectName(checksum, ObjectType.DIRTREE)
        return DirTree.parse(self.load_metadata(name))

    def load_commitmeta(self, checksum: Checksum) -> bytes | None:
        """Return a commit's detached metadata, or None; nothing vouches for it."""
        name = ObjectName(checksum, ObjectType.COMMITMETA)
        try:
            return self._read_metadata(name, _MAX_DETACHED_BYTES)
        except ObjectNotFoundError:
            return None

    def open_content(self, checksum: Checksum) -> ContentReader:
        """Open a file object; its content is not checked before it is read.

        Raises:
            ObjectNotFoundError: it is not here.
            FormatError: the file is no object of this mode.

        """
        name = ObjectName(checksum, ObjectType.FILE)
        for repo in self.lineage:
            try:
                return repo.style.open(repo.object_path(name))
            except FileNotFoundError:
                continue
        raise ObjectNotFoundError(f"{self.path}: no object {name}")

    def all_objects(self) -> Iterator[ObjectName]:
        """Yield the names of all objects here, without reading them."""
        yield from list_objects(self.objects)

    # -- refs and commits ------------------------------------------------------

    def resolve(self, rev: str) -> Checksum:
        """Return the commit that a checksum, `REF` or `REMOTE:REF` names.

        A `^` behind it means the parent, as in `ostree rev-parse`.
        """
        base = rev.rstrip("^")
        if len(base) == 64 and not base.strip("0123456789abcdef"):
            commit = parse_checksum(base)
        else:
            commit = self._resolve_ref(base)
        for _ in range(len(rev) - len(base)):
            parent = self.load_commit(commit).parent
            if parent is None:
                raise RefNotFoundError(f"{rev}: commit {commit} has no parent")
            commit = parent
        return commit

    def _resolve_ref(self, refspec: str) -> Checksum:
        commit = self.refs.get(parse_refspec(refspec))
        if commit is None and ":" not in refspec:
            # libostree also finds `REF` among the remotes when no head has the name.
            found = {
                commit
                for ref, commit in self.refs.all("remotes/")
                if ref.split("/", 2)[2] == refspec
            }
            if len(found) == 1:
                return found.pop()
        if commit is None:
            raise RefNotFoundError(f"{self.path}: there is no ref {refspec!r}")
        return commit

    def partial_path(self, commit: Checksum) -> str:
        """Return the file whose existence says that a commit is incomplete."""
        return os.path.join(self.path, "state", f"{commit}.commitpartial")

    def is_partial(self, commit: Checksum) -> bool:
        """Tell whether a commit's objects may be missing."""
        return os.path.exists(self.partial_path(commit))

    def is_tombstoned(self, commit: Checksum) -> bool:
        """Tell whether a commit was deleted on purpose."""
        return self.has(ObjectName(commit, ObjectType.TOMBSTONE_COMMIT))

    # -- the disk --------------------------------------------------------------

    def check_free_space(self, needed_bytes: int = 0) -> int:
        """Return how many bytes can be written before the reserve is reached.

        Raises:
            NoSpaceError: fewer than are needed.

        """
        status = os.statvfs(self.objects)
        free = status.f_bavail * status.f_frsize
        reserve = self.config.min_free_space_bytes
        if reserve is None:
            percent = self.config.min_free_space_percent
            reserve = status.f_blocks * status.f_frsize * percent // 100
        if free - needed_bytes < reserve:
            raise NoSpaceError(
                f"{self.path}: {_mebibytes(needed_bytes)} are needed, "
                f"{_mebibytes(free)} are free and {_mebibytes(reserve)} must stay "
                "free (core.min-free-space-*)"
            )
        return free - reserve

    def disk_size(self, name: ObjectName) -> int:
        """Return how long an object's file is; 0 if it is not here."""
        try:
            return os.lstat(self.object_path(name)).st_size
        except FileNotFoundError:
            return 0

    def lock(self, *, exclusive: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that holds the lock stock `ostree` honours."""
        if not self.config.locking:
            return contextlib.nullcontext()
        return locked(
            os.path.join(self.path, ".lock"),
            exclusive=exclusive,
            timeout_seconds=self.config.lock_timeout_seconds,
        )


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def list_objects(directory: str) -> Iterator[ObjectName]:
    """Yield the names of the objects in an `objects/` directory, sorted."""
    for prefix in sorted(os.listdir(directory)):
        if len(prefix) != 2 or prefix.strip("0123456789abcdef"):
            continue
        for name in sorted(os.listdir(os.path.join(directory, prefix))):
            try:
                yield parse_object_path(f"{prefix}/{name}")
            except FormatError:
                # Temporary files of other programs lie here too.
                continue
