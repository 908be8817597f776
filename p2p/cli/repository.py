"""`p2p init` and `p2p keygen`: what exists before the first commit."""

from __future__ import annotations

from pathlib import Path

import click

from p2p.cli.options import repo_option
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from p2p.trust.keys import generate_key_pair


@click.command
@repo_option
@click.option(
    "--mode",
    default="bare",
    show_default=True,
    type=click.Choice(["archive", "bare", "bare-user", "bare-user-only"]),
    help="How files are kept.",
)
@click.option("--collection-id", metavar="ID", help="Globally unique id, reverse DNS.")
def init(repo_path: str, mode: str, collection_id: str | None) -> None:
    """Make a repository; one that is there already is left as it is."""
    Repo.init(
        repo_path, RepoMode.parse(mode, where="--mode"), collection_id=collection_id
    )


@click.command
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def keygen(directory: Path) -> None:
    """Make an ed25519 key pair: DIRECTORY/signing.key and DIRECTORY/signing.pub.

    Keep signing.key where builds are signed and give signing.pub to the devices.
    Files that exist are never overwritten.
    """
    pair = generate_key_pair(directory)
    click.echo(f"secret key {pair.secret_path} (keep it)")
    click.echo(f"public key {pair.public_path} ({pair.public.id})")
