"""Makes the repository and the remotes that a configuration describes."""

from __future__ import annotations

import os
import re
import urllib.parse

from p2p.agent.config import AgentConfig, Follow
from p2p.errors import ConfigError
from p2p.ostree.config import RepoMode, parse_remote, remote_group
from p2p.ostree.repo import Repo
from p2p.trust.keys import load_ed25519_keys


def ensure_repository(config: AgentConfig) -> Repo:
    """Return the configured repository with the remotes that are followed.

    Where there is nothing, one is made as it suits this user. It writes, so it is for
    whoever writes the repository.

    Raises:
        ConfigError, RepositoryError: it cannot be made, or is something else.

    """
    path = config.repo
    if os.path.lexists(path) and os.listdir(path):
        repo = Repo.open(path)
    else:
        mode = RepoMode.BARE if os.geteuid() == 0 else RepoMode.BARE_USER
        repo = Repo.init(path, mode)
    for follow in config.follow:
        ensure_remote(repo, follow)
    return repo


def remote_name(url: str) -> str:
    """Return a name for the remote at a URL: its server and path, as far as allowed."""
    parts = urllib.parse.urlsplit(url)
    text = f"{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else url
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")
    return name[:64] or "origin"


def ensure_remote(repo: Repo, follow: Follow) -> None:
    """Add a followed branch's remote if it is described and not there yet.

    Only commits that are signed by the key are believed from it.

    Raises:
        ConfigError: there is another remote of that name, the key cannot be read, or
            there is no such remote and nothing describes it.
        RepositoryError: the repository's configuration cannot be written.

    """
    if follow.url is None or follow.key is None:
        repo.remote(follow.remote)
        return
    settings = {
        "url": follow.url,
        "gpg-verify": "false",
        "sign-verify": "ed25519;",
        "verification-ed25519-file": os.path.abspath(follow.key),
    }
    if follow.remote in repo.remote_names():
        options = repo.remote(follow.remote).options
        for key, value in settings.items():
            if options.get(key) != value:
                raise ConfigError(
                    f"remote {follow.remote!r}",
                    f"its {key} is {options.get(key)!r}, not {value!r}",
                    hint="Name the remote otherwise, or `p2p remote delete` it first.",
                )
        return
    group = remote_group(follow.remote)
    for key, value in settings.items():
        repo.keys.set(group, key, value)
    load_ed25519_keys(parse_remote(repo.keys, follow.remote))
    repo.save_config()
