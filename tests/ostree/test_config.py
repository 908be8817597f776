"""Configuration: libostree's keys and defaults, and errors that name file and key."""

from pathlib import Path

import pytest

from p2p.errors import ConfigError
from p2p.ostree.config import (
    RepoConfig,
    RepoMode,
    load_key_file,
    load_system_remotes,
    parse_remote,
    remote_group,
    remote_names,
)
from p2p.ostree.keyfile import KeyFile


def core(text: str) -> RepoConfig:
    return RepoConfig.parse(KeyFile.parse(f"[core]\n{text}", where="config"))


def test_the_defaults_are_those_of_libostree() -> None:
    config = core("repo_version=1\nmode=archive")
    assert config.mode is RepoMode.ARCHIVE
    assert config.fsync
    assert not config.per_object_fsync
    assert config.min_free_space_percent == 3
    assert config.min_free_space_bytes is None
    assert config.locking
    assert config.lock_timeout_seconds == 30
    assert config.tmp_expiry_seconds == 86_400
    assert config.zlib_level == 6
    assert config.add_remotes_config_dir
    assert not config.update_summary
    assert not config.tombstone_commits
    assert config.unknown == ()
    assert core("").mode is RepoMode.BARE


def test_every_key_is_read() -> None:
    text = """
mode=bare-user-only
fsync=false
per-object-fsync=true
min-free-space-percent=10
min-free-space-size=2GB
locking=false
lock-timeout-secs=-1
tmp-expiry-secs=60
collection-id=org.example.Os
parent=../other
disable-xattrs=true
commit-update-summary=true
tombstone-commits=true
add-remotes-config-dir=false
[archive]
zlib-level=9
"""
    assert core(text) == RepoConfig(
        mode=RepoMode.BARE_USER_ONLY,
        fsync=False,
        per_object_fsync=True,
        min_free_space_percent=10,
        min_free_space_bytes=2 << 30,
        locking=False,
        lock_timeout_seconds=-1,
        tmp_expiry_seconds=60,
        collection_id="org.example.Os",
        parent="../other",
        disable_xattrs=True,
        update_summary=True,
        tombstone_commits=True,
        add_remotes_config_dir=False,
        zlib_level=9,
    )
    assert core("lock-timeout-secs=5").lock_timeout_seconds == 5
    assert core("auto-update-summary=true").update_summary


def test_what_is_not_known_is_told() -> None:
    config = core("payload-link-threshold=1\n[ex-integrity]\nfsverity=yes\nold=false")
    assert config.unknown == ("core.payload-link-threshold", "ex-integrity.fsverity")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("mode=tar", "unknown repository mode"),
        ("repo_version=2", "version 2"),
        ("min-free-space-percent=100", "min-free-space-percent"),
        ("min-free-space-size=5", "give it as"),
        ("min-free-space-size=GB", "give it as"),
        ("min-free-space-size=5KB", "give it as"),
        ("collection-id=nodots", "collection-id"),
        ("fsync=maybe", "neither true nor false"),
    ],
)
def test_wrong_values_are_errors(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        core(text)
    assert "config" in caught.value.where


REMOTES = """\
[remote "origin"]
url=https://example.org/repo
contenturl=mirrorlist=https://example.org/mirrors
gpg-verify=false
gpg-verify-summary=true
sign-verify=ed25519
collection-id=org.example.Os
branches=a;b
tls-permissive=true
tls-ca-path=/etc/ca.pem

[remote "plain"]
url=http://example.org
"""


def remotes(extra: str = "") -> KeyFile:
    return KeyFile.parse(f"{REMOTES}{extra}", where="config")


def test_remotes_are_read() -> None:
    keys = remotes()
    assert remote_names(keys) == ["origin", "plain"]
    origin = parse_remote(keys, "origin")
    assert origin.url == "https://example.org/repo"
    assert origin.content_url == "mirrorlist=https://example.org/mirrors"
    assert not origin.gpg_verify
    assert origin.gpg_verify_summary
    assert origin.sign_verify == ("ed25519",)
    assert origin.collection_id == "org.example.Os"
    assert origin.branches == ("a", "b")
    assert origin.tls == {"tls-permissive": "true", "tls-ca-path": "/etc/ca.pem"}
    plain = parse_remote(keys, "plain")
    assert plain.gpg_verify
    assert plain.sign_verify == ()
    assert plain.tls == {}


@pytest.mark.parametrize(
    "value, types",
    [("true", ("ed25519",)), ("1", ("ed25519",)), ("false", ()), ("0", ())],
)
def test_sign_verify_may_be_a_truth_value(value: str, types: tuple[str, ...]) -> None:
    keys = KeyFile.parse(f'[remote "r"]\nurl=u\nsign-verify={value}', where="config")
    assert parse_remote(keys, "r").sign_verify == types


@pytest.mark.parametrize(
    "text, reason",
    [
        ("gpg-verify=false", "url: missing"),
        ("metalink=https://example.org/m", "metalink: is not supported"),
        ("url=u\nmetalink=https://example.org/m", "metalink: is not supported"),
        ("url=u\ncustom-backend=oci", "another program: oci"),
        ("url=u\nsign-verify=spki", "'spki' cannot be verified"),
        ("url=u\ngpg-verify=x", "neither true nor false"),
    ],
)
def test_remotes_that_cannot_be_used_are_errors(text: str, reason: str) -> None:
    keys = KeyFile.parse(f'[remote "r"]\n{text}', where="config")
    with pytest.raises(ConfigError, match=reason):
        parse_remote(keys, "r")


def test_a_missing_remote_is_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="no remote 'other'") as caught:
        parse_remote(remotes(), "other")
    assert "p2p remote add" in caught.value.hint


@pytest.mark.parametrize("name", ["", "-x", 'a"b', "a/b", "a b"])
def test_impossible_names_of_remotes_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not a valid remote name"):
        remote_group(name)


def test_a_file_is_loaded_or_its_error_told(tmp_path: Path) -> None:
    path = tmp_path / "config"
    with pytest.raises(ConfigError, match="No such file"):
        load_key_file(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_key_file(path)
    path.write_text("[core]\nmode=bare\n")
    assert load_key_file(path).string("core", "mode") == "bare"


def test_system_remotes_are_merged(tmp_path: Path) -> None:
    keys = remotes()
    load_system_remotes(keys, tmp_path / "nowhere")
    (tmp_path / "b.conf").write_text('[remote "b"]\nurl=b\n[remote "plain"]\nurl=no\n')
    (tmp_path / "c.txt").write_text("not a configuration")
    load_system_remotes(keys, tmp_path)
    assert remote_names(keys) == ["origin", "plain", "b"]
    assert parse_remote(keys, "plain").url == "http://example.org"
