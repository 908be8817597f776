"""A repository's `config` and its remotes, with libostree's keys and defaults.

Source of names and defaults: ostree.repo-config(5) and `ostree-repo.c`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from p2p.errors import ConfigError
from p2p.ostree.keyfile import KeyFile

REMOTE_NAME = re.compile(r"[A-Za-z0-9_][-._A-Za-z0-9]*")
# D-Bus interface names, which libostree takes for collection ids.
COLLECTION_ID = re.compile(r"(?=.{1,255}$)[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
# Keys of [core] whose meaning is implemented here. With any other key, or a group
# [ex-…], a repository is published to by libostree instead (see `publish`).
CORE_KEYS = frozenset(
    {
        "add-remotes-config-dir",
        "auto-update-summary",
        "collection-id",
        "commit-update-summary",
        "default-repo-finders",
        "disable-xattrs",
        "fsync",
        "indexed-deltas",
        "lock-timeout-secs",
        "locking",
        "min-free-space-percent",
        "min-free-space-size",
        "mode",
        "no-deltas-in-summary",
        "parent",
        "per-object-fsync",
        "repo_version",
        "tmp-expiry-secs",
        "tombstone-commits",
    }
)
_SIZE_UNITS = {"MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
SYSTEM_REMOTES = Path("/etc/ostree/remotes.d")


class RepoMode(StrEnum):
    """How content objects lie on disk; the values are those of `core.mode`."""

    ARCHIVE = "archive-z2"
    BARE = "bare"
    BARE_USER = "bare-user"
    BARE_USER_ONLY = "bare-user-only"
    BARE_SPLIT_XATTRS = "bare-split-xattrs"

    @classmethod
    def parse(cls, text: str, *, where: str) -> RepoMode:
        """Return the mode of that name; `archive` is `archive-z2`'s other name."""
        try:
            return cls("archive-z2" if text == "archive" else text)
        except ValueError:
            raise ConfigError(
                where,
                f"unknown repository mode {text!r}",
                hint="Nothing is read or written in a mode this program does not know.",
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteConfig:
    """One `[remote "NAME"]` group; `options` holds every key as written."""

    name: str
    url: str
    content_url: str | None = None
    gpg_verify: bool = True
    gpg_verify_summary: bool = False
    sign_verify: tuple[str, ...] = ()
    sign_verify_summary: tuple[str, ...] = ()
    collection_id: str | None = None
    branches: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def tls(self) -> dict[str, str]:
        """Options that name TLS files, and `tls-permissive`."""
        return {k: v for k, v in self.options.items() if k.startswith("tls-")}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoConfig:
    """The settings of `[core]` that matter here."""

    mode: RepoMode
    fsync: bool = True
    per_object_fsync: bool = False
    min_free_space_percent: int = 3
    min_free_space_bytes: int | None = None
    locking: bool = True
    lock_timeout_seconds: int = 30
    tmp_expiry_seconds: int = 86400
    collection_id: str | None = None
    parent: str | None = None
    disable_xattrs: bool = False
    update_summary: bool = False
    tombstone_commits: bool = False
    add_remotes_config_dir: bool = True
    zlib_level: int = 6
    unknown: tuple[str, ...] = ()

    @classmethod
    def parse(cls, keys: KeyFile) -> RepoConfig:
        """Return the configuration; ConfigError names file, key and reason."""
        core = "core"
        version = keys.integer(core, "repo_version", default=1)
        if version != 1:
            raise ConfigError(keys.where, f"repository version {version} is not known")
        mode = keys.string(core, "mode") or "bare"
        size = keys.string(core, "min-free-space-size")
        percent = keys.integer(core, "min-free-space-percent", default=3)
        if percent > 99:
            raise ConfigError(keys.where, f"min-free-space-percent={percent}")
        collection = keys.string(core, "collection-id")
        if collection is not None and not COLLECTION_ID.fullmatch(collection):
            raise ConfigError(keys.where, f"collection-id={collection} is not one")
        return cls(
            mode=RepoMode.parse(mode, where=f"{keys.where}: [core] mode"),
            fsync=keys.boolean(core, "fsync", default=True),
            per_object_fsync=keys.boolean(core, "per-object-fsync", default=False),
            min_free_space_percent=percent,
            min_free_space_bytes=_parse_size(size, keys.where) if size else None,
            locking=keys.boolean(core, "locking", default=True),
            lock_timeout_seconds=_timeout(keys),
            tmp_expiry_seconds=keys.integer(core, "tmp-expiry-secs", default=86400),
            collection_id=collection,
            parent=keys.string(core, "parent"),
            disable_xattrs=keys.boolean(core, "disable-xattrs", default=False),
            update_summary=keys.boolean(core, "auto-update-summary", default=False)
            or keys.boolean(core, "commit-update-summary", default=False),
            tombstone_commits=keys.boolean(core, "tombstone-commits", default=False),
            add_remotes_config_dir=keys.boolean(
                core, "add-remotes-config-dir", default=True
            ),
            zlib_level=keys.integer("archive", "zlib-level", default=6),
            unknown=_unknown_keys(keys),
        )


def _timeout(keys: KeyFile) -> int:
    # libostree takes -1 for "no limit".
    if keys.raw("core", "lock-timeout-secs") == "-1":
        return -1
    return keys.integer("core", "lock-timeout-secs", default=30)


def _parse_size(text: str, where: str) -> int:
    number, unit = text[:-2], text[-2:]
    if unit not in _SIZE_UNITS or not number.isdigit():
        raise ConfigError(where, f"min-free-space-size={text}: give it as 500MB or 2GB")
    return int(number) * _SIZE_UNITS[unit]


def _unknown_keys(keys: KeyFile) -> tuple[str, ...]:
    unknown = [f"core.{key}" for key in keys.keys("core") if key not in CORE_KEYS]
    unknown += [
        f"{group}.{key}"
        for group in keys.groups()
        if group.startswith("ex-")
        for key in keys.keys(group)
        if keys.raw(group, key) not in ("false", "no", "0")
    ]
    return tuple(unknown)


def remote_group(name: str) -> str:
    """Return the group that holds a remote; ConfigError for an impossible name."""
    if not REMOTE_NAME.fullmatch(name):
        raise ConfigError(f"remote {name[:80]!r}", "not a valid remote name")
    return f'remote "{name}"'


def remote_names(keys: KeyFile) -> list[str]:
    """Return the names of all remotes in a key file."""
    return [g[8:-1] for g in keys.groups() if g.startswith('remote "') and g[-1] == '"']


def parse_remote(keys: KeyFile, name: str) -> RemoteConfig:
    """Return a remote's configuration; ConfigError if it is missing or wrong."""
    group = remote_group(name)
    if group not in keys.groups():
        raise ConfigError(
            keys.where,
            f"there is no remote {name!r}",
            hint=f"Add it with `p2p remote add --repo=REPO {name} URL`.",
        )
    options = dict(keys.items(group))
    url = keys.string(group, "url") or keys.string(group, "metalink")
    if not url:
        raise ConfigError(f"{keys.where}: [{group}] url", "missing")
    if "metalink" in options:
        raise ConfigError(f"{keys.where}: [{group}] metalink", "is not supported")
    if backend := keys.string(group, "custom-backend"):
        raise ConfigError(
            f"{keys.where}: [{group}] custom-backend",
            f"this remote is fetched by another program: {backend}",
        )
    return RemoteConfig(
        name=name,
        url=url,
        content_url=keys.string(group, "contenturl"),
        gpg_verify=keys.boolean(group, "gpg-verify", default=True),
        gpg_verify_summary=keys.boolean(group, "gpg-verify-summary", default=False),
        sign_verify=_sign_types(keys, group, "sign-verify"),
        sign_verify_summary=_sign_types(keys, group, "sign-verify-summary"),
        collection_id=keys.string(group, "collection-id"),
        branches=keys.strings(group, "branches") or (),
        options=options,
    )


def _sign_types(keys: KeyFile, group: str, key: str) -> tuple[str, ...]:
    """Return the signature types that must verify: `true` means any known one."""
    value = keys.raw(group, key)
    if value in (None, "false", "0"):
        return ()
    if value in ("true", "1"):
        return ("ed25519",)
    types = keys.strings(group, key) or ()
    for name in types:
        if name != "ed25519":
            raise ConfigError(
                f"{keys.where}: [{group}] {key}",
                f"signature type {name!r} cannot be verified here",
            )
    return types


def load_key_file(path: Path) -> KeyFile:
    """Return the key file at path; ConfigError if it cannot be read."""
    try:
        text = path.read_bytes()[: 2 << 20].decode()
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not UTF-8") from None
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error)) from None
    return KeyFile.parse(text, where=str(path))


def load_system_remotes(into: KeyFile, directory: Path = SYSTEM_REMOTES) -> None:
    """Merge the remotes of `*.conf` in a directory, as libostree does."""
    if not directory.is_dir():
        return
    for entry in sorted(os.listdir(directory)):
        if entry.endswith(".conf"):
            into.merge(load_key_file(directory / entry))
