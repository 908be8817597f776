"""A TreeHub server in a test, and small commits to send to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from p2p.ostree.config import RepoMode
from p2p.ostree.filez import FilezReader, from_content
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirMeta,
    DirTree,
    FileHeader,
    ObjectName,
    ObjectType,
    checksum_of,
)
from p2p.ostree.refs import head
from p2p.ostree.repo import Repo
from p2p.web.treehub.api import serve_treehub
from tests.web.server.talk import Answer, Running

PLAIN = FileHeader(0, 0, 0o100644)
DIRMETA = DirMeta(0, 0, 0o40755).serialize()


@dataclass(slots=True)
class Objects:
    """Objects as an archive repository keeps them, children before parents."""

    commit: Checksum
    stored: dict[ObjectName, bytes] = field(default_factory=dict)

    @property
    def commit_name(self) -> ObjectName:
        return ObjectName(self.commit, ObjectType.COMMIT)


def filez(content: bytes, *, header: FileHeader = PLAIN, level: int = 6) -> bytes:
    return b"".join(from_content(header, len(content), [content], level=level))


def file_name(content: bytes, *, header: FileHeader = PLAIN) -> ObjectName:
    return ObjectName(checksum_of(header.frame() + content), ObjectType.FILE)


def make_commit(
    files: Mapping[str, bytes], *, parent: Checksum | None = None, time: int = 1
) -> Objects:
    """A commit of one directory with these files."""
    stored: dict[ObjectName, bytes] = {}
    entries = []
    for name in sorted(files):
        file = file_name(files[name])
        stored[file] = filez(files[name])
        entries.append((name, file.checksum))
    tree = DirTree(files=tuple(entries)).serialize()
    meta_name = ObjectName(checksum_of(DIRMETA), ObjectType.DIRMETA)
    tree_name = ObjectName(checksum_of(tree), ObjectType.DIRTREE)
    stored |= {meta_name: DIRMETA, tree_name: tree}
    data = Commit(
        root_dirtree=tree_name.checksum,
        root_dirmeta=meta_name.checksum,
        timestamp=time,
        parent=parent,
    ).serialize()
    commit = ObjectName(checksum_of(data), ObjectType.COMMIT)
    return Objects(commit.checksum, stored | {commit: data})


@dataclass(slots=True)
class Hub(Running):
    """A running TreeHub server."""

    store: Path = Path()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def repo(self) -> Repo:
        return Repo.open(self.store)

    async def post(
        self, name: ObjectName, data: bytes, *, prefix: str = "", **headers: str
    ) -> Answer:
        lines = [(key.replace("_", "-"), value) for key, value in headers.items()]
        target = f"{prefix}/objects/{name.path(archive=True)}"
        return await self.ask("POST", target, headers=lines, body=data)

    async def upload(self, objects: Objects) -> None:
        for name, data in objects.stored.items():
            assert (await self.post(name, data)).status in (204, 409)

    async def set_ref(
        self, ref: str, commit: str, *, force: bool = False, prefix: str = ""
    ) -> Answer:
        return await self.ask(
            "POST",
            f"{prefix}/refs/{ref}",
            headers=[("x-ats-ostree-force", "true")] if force else [],
            body=commit.encode(),
        )

    def files(self) -> set[str]:
        """Every file below objects, tmp, refs and state, but for lock files."""
        return {
            str(path.relative_to(self.store))
            for top in ("objects", "tmp", "refs", "state", "namespaces")
            for path in (self.store / top).rglob("*")
            if path.is_file() and path.name not in (".lock", "config")
        }


@asynccontextmanager
async def treehub(store: Path, **options: Any) -> AsyncIterator[Hub]:
    """Run a TreeHub server on a free port of the loopback interface."""
    shutdown = trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve_treehub(
            str(store),
            "127.0.0.1:0",
            shutdown=shutdown,
            task_status=task_status,
            **options,
        )

    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(run)
        yield Hub(int(url.rpartition(":")[2]), shutdown, store)
        nursery.cancel_scope.cancel()


def make_repo(path: Path, *commits: Objects, mode: RepoMode = RepoMode.ARCHIVE) -> Repo:
    """A repository with these commits; `main` is the last."""
    repo = Repo.init(path, mode)
    for objects in commits:
        for name, data in objects.stored.items():
            _store(repo, name, data)
        repo.refs.set(head("main"), objects.commit)
    return repo


def _store(repo: Repo, name: ObjectName, data: bytes) -> None:
    place = Path(repo.object_path(name))
    place.parent.mkdir(parents=True, exist_ok=True)
    if name.type is not ObjectType.FILE or repo.config.mode is RepoMode.ARCHIVE:
        place.write_bytes(data)
        return
    reader = FilezReader(limit=1 << 40)
    _, *content = reader.feed(data)
    if not place.exists():
        writer = repo.style.create(str(place), PLAIN, reader.size)
        for piece in content:
            writer.write(piece)
        writer.finish()
