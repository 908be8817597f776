"""`p2p commit` and `show`: a tree into a commit, and what a commit says of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from p2p.cli.options import (
    json_option,
    print_json,
    print_line,
    refuse,
    repo_option,
)
from p2p.errors import ConfigError
from p2p.ostree.commit import CommitOptions, Signer, commit_tree
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import (
    Checksum,
    Commit,
    Metadata,
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
@click.option("--tree", "source_tree", metavar="dir=TREE", help="As `ostree` has it.")
@refuse(*("-F", "--body-file", "-e", "--editor"), reason="give the text as --body=TEXT")
@refuse("--base", reason="give one directory; `ostree commit` combines trees")
@refuse("--add-metadata", reason="only strings; see --add-metadata-string")
@refuse("--keep-metadata", reason="give it again; see --add-metadata-string")
@refuse("--bootable", reason="only `ostree commit` finds the kernel it names")
@refuse(
    *("--mode-ro-executables", "--statoverride", "--skip-list", "--consume"),
    reason="prepare the tree as it shall be",
)
@refuse(
    *("--selinux-policy", "-P", "--selinux-policy-from-base"),
    "--selinux-labeling-epoch",
    reason="labels are taken as they are in the tree",
)
@refuse(
    *("--link-checkout-speedup", "-I", "--devino-canonical"),
    reason="every file is read and hashed",
)
@refuse(
    *("--tar-autocreate-parents", "--tar-pathname-filter"),
    reason="only directories are committed",
)
@refuse("--skip-if-unchanged", reason="compare the roots; see `p2p show --json`")
@refuse("--table-output", reason="see `p2p show --json`")
@refuse(
    *("--gpg-sign", "--gpg-homedir"),
    reason="sign with `ostree gpg-sign` after the commit",
)
@refuse("--sign", "--sign-type", "--sign-from-file", reason="give --sign-key=FILE")
@refuse("--generate-composefs-metadata", reason="use `ostree commit` for composefs")
@refuse("--fsync", reason="the repository's core.fsync decides")
@click.argument("tree", required=False, type=click.Path(exists=True, file_okay=False))
def commit(  # noqa: PLR0913 - one argument an option
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
    source_tree: str | None,
    tree: str | None,
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
    checksum = commit_tree(repo, _tree(tree, source_tree), options, source)
    print_line(checksum)
    if push is not None and branch is not None:
        from p2p.cli.push import push_ref  # noqa: PLC0415 - loads libcurl

        push_ref(repo, branch, push)


def _tree(path: str | None, option: str | None) -> str:
    """Return the one directory that was given, as an argument or as `dir=TREE`."""
    if option is not None:
        kind, _, named = option.partition("=")
        if kind != "dir" or not os.path.isdir(named):
            raise click.BadParameter(
                f"{option!r} is not dir=TREE with a directory TREE",
                param_hint="--tree",
            )
        option = named
    if (path is None) is (option is None):
        raise click.UsageError("give one directory TREE, or --tree=dir=TREE")
    return path or option or ""


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
@refuse("--print-related", "--print-variant-type", "--raw", reason="see --json")
@refuse(
    *("--print-metadata-key", "--print-sizes", "--print-hex", "--list-metadata-keys"),
    reason="see --json",
)
@refuse(
    *("--print-detached-metadata-key", "--list-detached-metadata-keys"),
    reason="signatures are counted; see --json",
)
@refuse("-B", "--no-byteswap", reason="numbers are shown as they are meant")
@refuse(
    *("--gpg-homedir", "--gpg-verify-remote"),
    reason="`p2p pull` verifies; this command shows what is there",
)
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
        print_line(line)
    for kind, count in signatures.items():
        print_line(f"Signatures:  {count} {kind}")
    if repo.is_partial(checksum):
        print_line("Partial:  some of its objects are not here")


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
