"""`p2p commit`, `show` and `ls`: trees into commits, and a look at what is there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from p2p.cli.options import json_option, print_json, refuse, repo_option
from p2p.errors import ConfigError, FormatError
from p2p.ostree.commit import CommitOptions, Signer, commit_tree
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    DirMeta,
    Metadata,
    ObjectName,
    ObjectType,
    parse_metadata,
)
from p2p.ostree.repo import Repo
from p2p.ostree.source import SourceOptions
from p2p.trust.keys import load_secret_key
from p2p.trust.policy import format_time
from p2p.trust.sign import (
    SecretKey,
    SignatureKind,
    add_signature,
    parse_signatures,
    sign_commit,
)


@click.command
@repo_option
@click.option("-b", "--branch", metavar="REF", help="The branch to set.")
@click.option("--orphan", is_flag=True, help="Set no branch.")
@click.option("-s", "--subject", default="", metavar="TEXT")
@click.option("-m", "--body", default="", metavar="TEXT")
@click.option("--parent", default="auto", metavar="CHECKSUM|none")
@click.option("--timestamp", metavar="TIME", help="ISO 8601, or @SECONDS.")
@click.option("--add-metadata-string", "strings", metavar="KEY=VALUE", multiple=True)
@click.option("--add-detached-metadata-string", "detached", multiple=True)
@click.option("--bind-ref", "bind_refs", metavar="REF", multiple=True)
@click.option("--no-bindings", is_flag=True, help="Do not say for which refs it is.")
@click.option("--generate-sizes", is_flag=True, help="Add every object's sizes.")
@click.option("--no-xattrs", is_flag=True, help="Leave out extended attributes.")
@click.option("--owner-uid", type=click.IntRange(0, (1 << 32) - 1), metavar="UID")
@click.option("--owner-gid", type=click.IntRange(0, (1 << 32) - 1), metavar="GID")
@click.option("--canonical-permissions", is_flag=True)
@click.option(
    "--sign-key",
    "sign_keys",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Sign with this ed25519 key (see `p2p keygen`).",
)
@click.option("--push", metavar="URL|CREDENTIALS", help="Push the branch afterwards.")
@refuse("--gpg-sign", reason="sign with `ostree gpg-sign` after the commit")
@refuse("--tree", reason="give one directory; use `ostree commit` to combine trees")
@refuse("--fsync", reason="the repository's core.fsync decides")
@click.argument("tree", type=click.Path(exists=True, file_okay=False))
def commit(  # noqa: PLR0913
    *,
    repo_path: str,
    branch: str | None,
    orphan: bool,
    subject: str,
    body: str,
    parent: str,
    timestamp: str | None,
    strings: tuple[str, ...],
    detached: tuple[str, ...],
    bind_refs: tuple[str, ...],
    no_bindings: bool,
    generate_sizes: bool,
    no_xattrs: bool,
    owner_uid: int | None,
    owner_gid: int | None,
    canonical_permissions: bool,
    sign_keys: tuple[Path, ...],
    push: str | None,
    tree: str,
) -> None:
    """Commit the directory TREE and print the commit's checksum."""
    if (branch is None) is not orphan:
        raise click.UsageError("give either --branch=REF or --orphan")
    if push is not None and branch is None:
        raise click.UsageError("--push needs a branch")
    repo = Repo.open(repo_path)
    options = CommitOptions(
        branch=branch,
        subject=subject,
        body=body,
        parent=parent,
        timestamp=None if timestamp is None else parse_time(timestamp),
        metadata=_strings(strings),
        detached=_strings(detached),
        bindings=not no_bindings,
        bind_refs=bind_refs,
        sizes=generate_sizes,
        sign=_signer([load_secret_key(path) for path in sign_keys]),
    )
    source = SourceOptions(
        xattrs=not no_xattrs,
        owner_uid=owner_uid,
        owner_gid=owner_gid,
        canonical_permissions=canonical_permissions,
    )
    checksum = commit_tree(repo, tree, options, source)
    click.echo(checksum)
    if push is not None and branch is not None:
        from p2p.cli.push import push_ref  # noqa: PLC0415

        push_ref(repo, branch, push)


def parse_time(text: str) -> int:
    """Return seconds since 1970 from ISO 8601 or `@SECONDS`."""
    try:
        if text.startswith("@"):
            return int(text[1:])
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "--timestamp", f"{text!r} is neither ISO 8601 nor @SECONDS"
        ) from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _strings(options: tuple[str, ...]) -> Metadata:
    entries = []
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise click.BadParameter(f"{option!r} is not KEY=VALUE")
        entries.append((key, Variant("s", value)))
    return tuple(entries)


def _signer(keys: list[SecretKey]) -> Signer | None:
    if not keys:
        return None

    def sign(data: bytes) -> Metadata:
        meta: bytes | None = None
        for key in keys:
            meta = add_signature(meta, sign_commit(data, key))
        return parse_metadata(meta or b"")

    return sign


@click.command
@repo_option
@click.argument("rev")
@json_option
def show(*, repo_path: str, rev: str, as_json: bool) -> None:
    """Print what a commit says of itself."""
    repo = Repo.open(repo_path)
    checksum = repo.resolve(rev)
    found = repo.load_commit(checksum)
    signatures = _count_signatures(repo, checksum)
    if as_json:
        print_json(
            {
                "commit": checksum,
                "parent": found.parent,
                "timestamp": found.timestamp,
                "subject": found.subject,
                "body": found.body,
                "root": [found.root_dirtree, found.root_dirmeta],
                "metadata": {k: _json_value(v.value) for k, v in found.metadata},
                "signatures": signatures,
                "partial": repo.is_partial(checksum),
            }
        )
        return
    for line in _describe(checksum, found):
        click.echo(line)
    for kind, count in signatures.items():
        click.echo(f"Signatures:  {count} {kind}")
    if repo.is_partial(checksum):
        click.echo("Partial:  some of its objects are not here")


def _describe(checksum: Checksum, found: Commit) -> Iterator[str]:
    yield f"commit {checksum}"
    if found.parent is not None:
        yield f"Parent:  {found.parent}"
    yield f"ContentChecksum:  {found.root_dirtree}"
    yield f"Date:  {format_time(found.timestamp)}"
    for key, variant in found.metadata:
        if variant.type in {"s", "as"}:
            yield f"Metadata:  {key} = {variant.value}"
        else:
            yield f"Metadata:  {key} ({variant.type})"
    if found.subject:
        yield ""
        yield f"    {found.subject}"
    if found.body:
        yield ""
        yield from (f"    {line}" for line in found.body.splitlines())


def _json_value(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Variant):
        return _json_value(value.value)
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return value


def _count_signatures(repo: Repo, checksum: Checksum) -> dict[str, int]:
    """Return how many signatures of each kind are there; nobody verified them."""
    data = repo.load_commitmeta(checksum)
    counts = {kind.name.lower(): parse_signatures(data, kind) for kind in SignatureKind}
    return {name: len(found) for name, found in counts.items() if found}


@click.command
@repo_option
@click.option("--refs", is_flag=True, help="List the refs instead.")
@click.option("-R", "--recursive", is_flag=True)
@click.option("-C", "--checksum", "checksums", is_flag=True, help="Print checksums.")
@click.option("-X", "--xattrs", is_flag=True, help="Print extended attributes.")
@click.argument("rev", required=False)
@click.argument("paths", nargs=-1)
def ls(
    *,
    repo_path: str,
    refs: bool,
    recursive: bool,
    checksums: bool,
    xattrs: bool,
    rev: str | None,
    paths: tuple[str, ...],
) -> None:
    """List the files of a commit as `ostree ls` does, or the refs."""
    repo = Repo.open(repo_path)
    if refs:
        for ref, commit_checksum in repo.refs.all():
            click.echo(f"{commit_checksum} {_refspec(ref)}")
        return
    if rev is None:
        raise click.UsageError("give a commit or a ref, or --refs")
    lister = _Lister(repo, checksums=checksums, xattrs=xattrs)
    for path in paths or ("/",):
        for line in lister.list(repo.resolve(rev), path, recursive=recursive):
            click.echo(line)


def _refspec(ref: str) -> str:
    kind, _, rest = ref.partition("/")
    if kind == "heads":
        return rest
    name, _, branch = rest.partition("/")
    return f"{name}:{branch}"


class _Lister:
    """Formats directory entries: kind and mode, owner, size, checksums, name."""

    def __init__(self, repo: Repo, *, checksums: bool, xattrs: bool) -> None:
        self._repo = repo
        self._checksums = checksums
        self._xattrs = xattrs

    def list(self, commit: Checksum, path: str, *, recursive: bool) -> Iterator[str]:
        """Yield the line of a path, and of what is in it."""
        found = self._repo.load_commit(commit)
        tree, meta = found.root_dirtree, found.root_dirmeta
        at = "/"
        for part in [part for part in path.split("/") if part]:
            directory = self._repo.load_dirtree(tree)
            below = {name: (t, m) for name, t, m in directory.dirs}
            files = dict(directory.files)
            if part in files and os.path.join(at, part) == path:
                yield self._file(files[part], path)
                return
            if part not in below:
                raise FormatError(
                    f"{path}: no such file or directory in {commit}",
                    hint="Paths begin at the root of the commit, such as /usr/bin.",
                )
            at = os.path.join(at, part)
            tree, meta = below[part]
        yield self._directory(tree, meta, at)
        yield from self._entries(tree, at, recursive=recursive)

    def _entries(self, tree: Checksum, at: str, *, recursive: bool) -> Iterator[str]:
        stack: list[tuple[Checksum, str]] = [(tree, at)]
        while stack:
            current, path = stack.pop()
            directory = self._repo.load_dirtree(current)
            for name, checksum in directory.files:
                yield self._file(checksum, os.path.join(path, name))
            for name, subtree, meta in directory.dirs:
                yield self._directory(subtree, meta, os.path.join(path, name))
            if recursive:
                stack += [
                    (subtree, os.path.join(path, name))
                    for name, subtree, _ in reversed(directory.dirs)
                ]

    def _file(self, checksum: Checksum, path: str) -> str:
        with self._repo.open_content(checksum) as reader:
            header = reader.header
            kind = "l" if header.is_symlink else "-"
            target = f" -> {header.symlink_target}" if header.is_symlink else ""
            extra = f" {checksum}" if self._checksums else ""
            if self._xattrs:
                extra += f" {_format_xattrs(header.xattrs)}"
            return (
                f"{kind}{stat.S_IMODE(header.mode):05o} {header.uid} {header.gid} "
                f"{reader.size:6}{extra} {path}{target}"
            )

    def _directory(self, tree: Checksum, meta: Checksum, path: str) -> str:
        data = self._repo.load_metadata(ObjectName(meta, ObjectType.DIRMETA))
        inode = DirMeta.parse(data)
        extra = f" {tree} {meta}" if self._checksums else ""
        if self._xattrs:
            extra += f" {_format_xattrs(inode.xattrs)}"
        mode = stat.S_IMODE(inode.mode)
        return f"d{mode:05o} {inode.uid} {inode.gid} {0:6}{extra} {path}"


def _format_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> str:
    pairs = (f"{name.decode(errors='replace')}={value.hex()}" for name, value in xattrs)
    return "{" + ", ".join(pairs) + "}"
