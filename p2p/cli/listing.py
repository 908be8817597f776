"""`p2p ls`: the files of a commit, in the words of `ostree ls`."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

import click

from p2p.cli.options import print_line, repo_option
from p2p.errors import PathNotFoundError
from p2p.ostree.objects import Checksum, DirMeta, ObjectName, ObjectType, Xattrs
from p2p.ostree.repo import Repo


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """What is printed of each path."""

    checksums: bool
    xattrs: bool
    names_only: bool


@click.command
@repo_option
@click.option("--refs", is_flag=True, help="List the refs instead.")
@click.option("-d", "--dironly", is_flag=True, help="Not what is in directories.")
@click.option("-R", "--recursive", is_flag=True, help="Also what is deeper in them.")
@click.option("-C", "--checksum", "checksums", is_flag=True, help="Print checksums.")
@click.option("-X", "--xattrs", is_flag=True, help="Print attributes, in hex.")
@click.option(
    "--nul-filenames-only", is_flag=True, help="Print names only, a NUL behind each."
)
@click.argument("rev", required=False)
@click.argument("paths", nargs=-1)
def ls(  # noqa: PLR0913 - one argument an option
    *,
    repo_path: str,
    refs: bool,
    dironly: bool,
    recursive: bool,
    checksums: bool,
    xattrs: bool,
    nul_filenames_only: bool,
    rev: str | None,
    paths: tuple[str, ...],
) -> None:
    """List the files of a commit as `ostree ls` does, or the refs."""
    repo = Repo.open(repo_path)
    if refs:
        for ref, commit in repo.refs.all():
            print_line(f"{commit} {_refspec(ref)}")
        return
    if rev is None:
        raise click.UsageError("give a commit or a ref, or --refs")
    lister = _Lister(
        repo,
        _Format(checksums=checksums, xattrs=xattrs, names_only=nul_filenames_only),
    )
    for path in paths or ("/",):
        for line in lister.list(
            repo.resolve(rev), path, entries=not dironly, recursive=recursive
        ):
            if nul_filenames_only:
                print_line(line, end="\0")
            else:
                print_line(line)


def _refspec(ref: str) -> str:
    """Return a ref as people write it, from its path below `refs/`."""
    kind, _, rest = ref.partition("/")
    if kind == "heads":
        return rest
    name, _, branch = rest.partition("/")
    return f"{name}:{branch}"


class _Lister:
    """Formats directory entries: kind and mode, owner, size, checksums, name."""

    def __init__(self, repo: Repo, form: _Format) -> None:
        self._repo = repo
        self._form = form

    def list(
        self, commit: Checksum, path: str, *, entries: bool, recursive: bool
    ) -> Iterator[str]:
        """Yield the line of a path, and those of what is in it.

        Raises:
            PathNotFoundError: the commit has no such path.

        """
        found = self._repo.load_commit(commit)
        tree, meta = found.root_dirtree, found.root_dirmeta
        parts = [part for part in path.split("/") if part]
        for depth, part in enumerate(parts, 1):
            directory = self._repo.load_dirtree(tree)
            files = dict(directory.files)
            if part in files and depth == len(parts):
                yield self._file(files[part], "/" + "/".join(parts))
                return
            below = {name: (t, m) for name, t, m in directory.dirs}
            if part not in below:
                raise PathNotFoundError(f"commit {commit} has no {path}")
            tree, meta = below[part]
        at = "/" + "/".join(parts)
        yield self._directory(tree, meta, at)
        if entries:
            yield from self._entries(tree, at, recursive=recursive)

    def _entries(self, tree: Checksum, at: str, *, recursive: bool) -> Iterator[str]:
        """Yield the lines of what is in a directory; deep ones need no recursion."""
        walks = [self._lines(tree, at)]
        while walks:
            found = next(walks[-1], None)
            if found is None:
                walks.pop()
                continue
            line, subtree, path = found
            yield line
            if recursive and subtree is not None:
                walks.append(self._lines(subtree, path))

    def _lines(
        self, tree: Checksum, at: str
    ) -> Iterator[tuple[str, Checksum | None, str]]:
        """Yield each entry's line, its tree if it is a directory, and its path."""
        directory = self._repo.load_dirtree(tree)
        prefix = "" if at == "/" else at
        for name, checksum in directory.files:
            path = f"{prefix}/{name}"
            yield self._file(checksum, path), None, path
        for name, subtree, meta in directory.dirs:
            path = f"{prefix}/{name}"
            yield self._directory(subtree, meta, path), subtree, path

    def _file(self, checksum: Checksum, path: str) -> str:
        if self._form.names_only:
            return path
        with self._repo.open_content(checksum) as reader:
            header = reader.header
            kind = "l" if header.is_symlink else "-"
            target = f" -> {header.symlink_target}" if header.is_symlink else ""
            owner = f"{header.uid} {header.gid}"
            extra = f" {checksum}" if self._form.checksums else ""
            extra += self._attributes(header.xattrs)
            mode = stat.S_IMODE(header.mode)
            return f"{kind}{mode:05o} {owner} {reader.size:6}{extra} {path}{target}"

    def _directory(self, tree: Checksum, meta: Checksum, path: str) -> str:
        if self._form.names_only:
            return path
        data = self._repo.load_metadata(ObjectName(meta, ObjectType.DIRMETA))
        inode = DirMeta.parse(data)
        extra = f" {tree} {meta}" if self._form.checksums else ""
        extra += self._attributes(inode.xattrs)
        mode = stat.S_IMODE(inode.mode)
        return f"d{mode:05o} {inode.uid} {inode.gid} {0:6}{extra} {path}"

    def _attributes(self, xattrs: Xattrs) -> str:
        if not self._form.xattrs:
            return ""
        pairs = (f"{name.decode(errors='replace')}={v.hex()}" for name, v in xattrs)
        return " {" + ", ".join(pairs) + "}"
