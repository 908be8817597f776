"""`p2p remote`: where commits come from and whose keys must have signed them."""

from __future__ import annotations

from pathlib import Path

import click

from p2p.cli.options import print_line, refuse, repo_option
from p2p.errors import ConfigError
from p2p.ostree.config import REMOTE_NAME, parse_remote, remote_group
from p2p.ostree.repo import Repo
from p2p.trust.keys import import_keys, keyring_path, load_ed25519_keys


@click.group
def remote() -> None:
    """Configure remotes, as `ostree remote` does."""


@remote.command
@repo_option
@click.argument("name")
@click.argument("url")
@click.argument("branches", nargs=-1)
@click.option(
    "--sign-verify",
    metavar="ed25519=file:PATH|ed25519=inline:KEY",
    multiple=True,
    help="Demand an ed25519 signature by this key.",
)
@click.option(
    "--gpg-import",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Demand a GPG signature by a key of this file.",
)
@click.option("--no-gpg-verify", is_flag=True, help="Demand no GPG signature.")
@click.option(
    "--no-sign-verify", is_flag=True, help="Believe the origin without any signature."
)
@click.option("--contenturl", metavar="URL", help="Fetch objects from here instead.")
@click.option("--collection-id", metavar="ID", help="What commits must be bound to.")
@click.option("--set", "options", metavar="KEY=VALUE", multiple=True)
@click.option("--if-not-exists", is_flag=True, help="Do nothing if it is there.")
@click.option("--force", is_flag=True, help="Replace it if it is there.")
@refuse("--custom-backend", reason="only origins that speak HTTP are fetched from")
@refuse("--sysroot", reason="give --repo=SYSROOT/ostree/repo")
def add(  # noqa: PLR0913 - one argument an option
    *,
    repo_path: str,
    name: str,
    url: str,
    branches: tuple[str, ...],
    sign_verify: tuple[str, ...],
    gpg_import: tuple[Path, ...],
    no_gpg_verify: bool,
    no_sign_verify: bool,
    contenturl: str | None,
    collection_id: str | None,
    options: tuple[str, ...],
    if_not_exists: bool,
    force: bool,
) -> None:
    """Add a remote; one kind of verification must be chosen."""
    repo = Repo.open(repo_path)
    group = remote_group(name)
    if group in repo.keys.groups():
        if if_not_exists:
            return
        if not force:
            raise ConfigError(
                repo.keys.where, f"remote {name!r} exists", hint="Use --force."
            )
        repo.keys.remove_group(group)
    settings = {"url": url}
    if branches:
        settings["branches"] = ";".join(branches) + ";"
    if contenturl is not None:
        settings["contenturl"] = contenturl
    if collection_id is not None:
        settings["collection-id"] = collection_id
    settings |= _verification(
        sign_verify,
        gpg=bool(gpg_import) and not no_gpg_verify,
        none=no_sign_verify,
    )
    settings |= dict(_split_option(option) for option in options)
    for key, value in settings.items():
        repo.keys.set(group, key, value)
    config = parse_remote(repo.keys, name)
    if config.sign_verify:
        load_ed25519_keys(config)
    for source in gpg_import:
        import_keys(source, keyring_path(name, Path(repo.path)))
    repo.save_config()


def _split_option(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not equals:
        raise click.BadParameter(f"{option!r} is not KEY=VALUE", param_hint="--set")
    return key, value


def _verification(
    sign_verify: tuple[str, ...], *, gpg: bool, none: bool
) -> dict[str, str]:
    """Return the options that say what must have signed a commit."""
    if none and (sign_verify or gpg):
        raise click.UsageError("--no-sign-verify contradicts the keys that are given")
    if not (none or sign_verify or gpg):
        raise click.UsageError(
            "whose signature shall be demanded? Give --sign-verify=ed25519=file:PUB "
            "or --gpg-import=FILE, or --no-sign-verify to believe the origin"
        )
    settings = {"gpg-verify": "true" if gpg else "false"}
    if sign_verify:
        settings["sign-verify"] = "ed25519;"
    for option in sign_verify:
        key, value = _parse_sign_verify(option)
        if settings.setdefault(key, value) != value:
            raise click.BadParameter(
                "only one key or file; a file may hold several keys",
                param_hint="--sign-verify",
            )
    return settings


def _parse_sign_verify(option: str) -> tuple[str, str]:
    """Return the configuration key and value of `ed25519=file:…` or `=inline:…`."""
    kind, _, value = option.partition("=")
    how, colon, value = value.partition(":")
    if kind != "ed25519" or not colon or how not in {"file", "inline"}:
        raise click.BadParameter(
            f"{option!r} is neither ed25519=file:PATH nor ed25519=inline:KEY",
            param_hint="--sign-verify",
        )
    if how == "file":
        return "verification-ed25519-file", str(Path(value).absolute())
    return "verification-ed25519-key", value


@remote.command
@repo_option
@click.argument("name")
def delete(repo_path: str, name: str) -> None:
    """Remove a remote and its keyring; refs stay."""
    repo = Repo.open(repo_path)
    if not repo.keys.remove_group(remote_group(name)):
        raise ConfigError(repo.keys.where, f"there is no remote {name!r}")
    repo.save_config()
    keyring_path(name, Path(repo.path)).unlink(missing_ok=True)


@remote.command("list")
@repo_option
@click.option("-u", "--show-urls", is_flag=True, help="Print the URLs too.")
def list_remotes(*, repo_path: str, show_urls: bool) -> None:
    """Print the remotes' names."""
    repo = Repo.open(repo_path)
    for name in repo.remote_names():
        if REMOTE_NAME.fullmatch(name):
            url = f"  {repo.remote(name).url}" if show_urls else ""
            print_line(f"{name}{url}")


@remote.command("show-url")
@repo_option
@click.argument("name")
def show_url(repo_path: str, name: str) -> None:
    """Print a remote's URL."""
    print_line(Repo.open(repo_path).remote(name).url)
