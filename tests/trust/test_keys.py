import os
import stat
from pathlib import Path

import pytest

from p2p.errors import ConfigError, NoSpaceError
from p2p.ostree.config import RemoteConfig
from p2p.trust import keys
from p2p.trust.keys import (
    generate_key_pair,
    import_keys,
    keyring_path,
    load_ed25519_keys,
    load_gpg_keys,
    load_key_file,
    load_secret_key,
)
from p2p.trust.openpgp import Certificate, parse_keyring
from p2p.trust.sign import PublicKey
from tests.trust.samples import ALICE, BOB, CAROL
from tests.trust.vectors import ARMOURED_GOOD, KEYBOX, KEYS, certificates


def remote(**options: object) -> RemoteConfig:
    """A remote with these options; `_` stands for `-` in their names."""
    named = {name.replace("_", "-"): str(value) for name, value in options.items()}
    return RemoteConfig(name="os", url="http://localhost", options=named)


def put(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def put_bytes(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# -- key files -------------------------------------------------------------------------


def test_a_key_file_holds_one_key_a_line(tmp_path: Path) -> None:
    path = put(
        tmp_path / "f", "# the builder's, of 2026 für alle", ALICE.public, "", "  ",
        f"  {BOB.public}\r", ALICE.public,
    )  # fmt: skip
    assert load_key_file(path) == (ALICE.public, BOB.public)


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "f", ALICE.public, "", f"{str(BOB.public)[:-2]}")
    with pytest.raises(ConfigError, match=f"^{path}:3: not a key in base64"):
        load_key_file(path)


def test_a_secret_key_among_trusted_ones_is_refused_without_being_shown(
    tmp_path: Path,
) -> None:
    path = put(tmp_path / "f", ALICE.to_text())
    with pytest.raises(ConfigError, match=":1: an ed25519 secret key") as caught:
        load_key_file(path)
    assert ALICE.to_text()[:16] not in str(caught.value)


def test_a_key_behind_a_comment_sign_is_refused_as_libostree_would_use_it(
    tmp_path: Path,
) -> None:
    path = put(tmp_path / "f", ALICE.public, f"#  {BOB.public}")
    with pytest.raises(ConfigError, match=r":2: a key behind `#`"):
        load_key_file(path)


def test_files_that_cannot_be_keys_are_refused(tmp_path: Path) -> None:
    binary = put_bytes(tmp_path / "binary", b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a text file"):
        load_key_file(binary)
    large = put_bytes(tmp_path / "large", bytes(keys.MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load_key_file(large)
    with pytest.raises(ConfigError, match="No such file"):
        load_key_file(tmp_path / "missing")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_key_file(tmp_path)


def test_what_never_ends_or_never_answers_is_not_read_as_a_key_file(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (Path("/dev/zero"), tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="is not a regular file"):
            load_key_file(path)


# -- ed25519 keys of a remote ----------------------------------------------------------


def test_a_remotes_own_keys_replace_those_of_the_system(tmp_path: Path) -> None:
    put(tmp_path / "etc/ostree/trusted.ed25519", CAROL.public)
    file = put(tmp_path / "pub", ALICE.public)
    config = remote(verification_ed25519_file=file, verification_ed25519_key=BOB.public)
    assert load_ed25519_keys(config, root=tmp_path).trusted == (
        ALICE.public,
        BOB.public,
    )
    alone = remote(verification_ed25519_file=file)
    assert load_ed25519_keys(alone, root=tmp_path).trusted == (ALICE.public,)
    alone = remote(verification_ed25519_key=BOB.public)
    assert load_ed25519_keys(alone, root=tmp_path).trusted == (BOB.public,)


@pytest.mark.parametrize("place", ["etc/ostree", "usr/share/ostree"])
@pytest.mark.parametrize("name", ["trusted.ed25519", "trusted.ed25519.d/any name"])
def test_the_systems_keys_are_found_in_each_place(
    tmp_path: Path, place: str, name: str
) -> None:
    put(tmp_path / place / name, ALICE.public)
    assert load_ed25519_keys(remote(), root=tmp_path).trusted == (ALICE.public,)


def test_the_systems_places_add_up(tmp_path: Path) -> None:
    put(tmp_path / "usr/share/ostree/trusted.ed25519.d/vendor", ALICE.public)
    put(tmp_path / "etc/ostree/trusted.ed25519", BOB.public, ALICE.public)
    put(tmp_path / "etc/ostree/trusted.ed25519.d/site", CAROL.public)
    (tmp_path / "etc/ostree/trusted.ed25519.d/directory").mkdir()
    trusted = load_ed25519_keys(remote(), root=tmp_path).trusted
    assert set(trusted) == {ALICE.public, BOB.public, CAROL.public}
    assert len(trusted) == 3


@pytest.mark.parametrize("place", ["etc/ostree", "usr/share/ostree"])
@pytest.mark.parametrize("name", ["revoked.ed25519", "revoked.ed25519.d/x"])
def test_revoked_keys_count_for_a_remote_with_keys_of_its_own_too(
    tmp_path: Path, place: str, name: str
) -> None:
    put(tmp_path / place / name, BOB.public)
    config = remote(verification_ed25519_key=BOB.public)
    found = load_ed25519_keys(config, root=tmp_path)
    assert found.revoked == frozenset({BOB.public})


def test_a_remote_that_trusts_nobody_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'remote "os": .* no trusted ed25519 key'):
        load_ed25519_keys(remote(), root=tmp_path)


def test_errors_in_a_remotes_options_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="verification-ed25519-key: not a key"):
        load_ed25519_keys(remote(verification_ed25519_key="?"), root=tmp_path)
    with pytest.raises(ConfigError, match="file: 'pub' is not an absolute path"):
        load_ed25519_keys(remote(verification_ed25519_file="pub"), root=tmp_path)
    empty = put(tmp_path / "empty", "")
    with pytest.raises(ConfigError, match="empty: no key in it"):
        load_ed25519_keys(remote(verification_ed25519_file=empty), root=tmp_path)
    missing = remote(verification_ed25519_file=tmp_path / "missing")
    with pytest.raises(ConfigError, match="missing: No such file"):
        load_ed25519_keys(missing, root=tmp_path)


def test_a_wrong_line_in_a_system_file_is_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "etc/ostree/trusted.ed25519", ALICE.public)
    put(tmp_path / "etc/ostree/revoked.ed25519.d/typo", "nonsense")
    with pytest.raises(ConfigError, match=r"revoked.ed25519.d/typo:1"):
        load_ed25519_keys(remote(), root=tmp_path)


# -- GPG keys of a remote --------------------------------------------------------------


def gpg_keys(
    root: Path, *directories: Path, **options: object
) -> tuple[Certificate, ...]:
    return load_gpg_keys(remote(**options), directories, root=root)


def test_the_first_keyring_of_the_remote_wins_over_all_others(tmp_path: Path) -> None:
    put_bytes(tmp_path / "usr/share/ostree/trusted.gpg.d/x.gpg", KEYS["expired"])
    repo, remotes, parent = tmp_path / "repo", tmp_path / "remotes.d", tmp_path / "p"
    put_bytes(keyring_path("other", repo), KEYS["expired"])
    put_bytes(keyring_path("os", remotes), KEYS["good"])
    put_bytes(keyring_path("os", parent), KEYS["subkey"])
    assert gpg_keys(tmp_path, repo, remotes, parent) == certificates("good")


def test_without_a_keyring_of_its_own_a_remote_trusts_the_systems(
    tmp_path: Path,
) -> None:
    place = tmp_path / "usr/share/ostree/trusted.gpg.d"
    put_bytes(place / "a.gpg", KEYS["good"])
    put_bytes(place / "b.gpg", KEYBOX)
    put_bytes(place / "c.asc", b"not looked at")
    put_bytes(place / "trustdb.gpg", b"not looked at")
    put_bytes(place / "secring.gpg", b"not looked at")
    (place / "link.gpg").symlink_to(put_bytes(tmp_path / "x", KEYS["stranger"]))
    (place / "directory.gpg").mkdir()
    assert gpg_keys(tmp_path, tmp_path) == certificates("good", "subkey")


@pytest.mark.parametrize("separator", [";", ","])
def test_gpgkeypath_adds_files_and_directories(tmp_path: Path, separator: str) -> None:
    armoured = put(tmp_path / "good.asc", ARMOURED_GOOD)
    directory = tmp_path / "keys.d"
    put_bytes(directory / "any name", KEYS["subkey"])
    (directory / "link").symlink_to(put_bytes(tmp_path / "x", KEYS["stranger"]))
    (directory / "sub").mkdir()
    paths = f"{armoured}{separator} {directory}{separator}"
    place = tmp_path / "usr/share/ostree/trusted.gpg.d"
    put_bytes(place / "a.gpg", KEYS["expired"])
    found = gpg_keys(tmp_path, tmp_path, gpgkeypath=paths)
    assert found == certificates("expired", "good", "subkey")
    put_bytes(keyring_path("os", tmp_path), KEYS["weak"])
    found = gpg_keys(tmp_path, tmp_path, gpgkeypath=paths)
    assert found == certificates("weak", "good", "subkey")


def test_a_revocation_in_another_place_counts(tmp_path: Path) -> None:
    put_bytes(keyring_path("os", tmp_path), KEYS["revoked, before"])
    later = put_bytes(tmp_path / "later", KEYS["revoked"])
    found = gpg_keys(tmp_path, tmp_path, gpgkeypath=later)
    assert found == certificates("revoked")


def test_a_remote_without_any_gpg_key_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no trusted GPG key") as caught:
        gpg_keys(tmp_path, tmp_path)
    assert "--gpg-import" in caught.value.hint


def test_wrong_keyrings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing: No such file"):
        gpg_keys(tmp_path, gpgkeypath=tmp_path / "missing")
    with pytest.raises(ConfigError, match="gpgkeypath: 'x' is not an absolute path"):
        gpg_keys(tmp_path, gpgkeypath="x")
    path = put_bytes(keyring_path("os", tmp_path), b"junk")
    with pytest.raises(ConfigError, match=f"{path}: not OpenPGP data"):
        gpg_keys(tmp_path, tmp_path)
    put(path, ARMOURED_GOOD)
    with pytest.raises(ConfigError, match=f"{path}: is ASCII-armoured") as caught:
        gpg_keys(tmp_path, tmp_path)
    assert "gpg --dearmor" in caught.value.hint


@pytest.mark.parametrize("data", [KEYS["good"], KEYBOX, ARMOURED_GOOD.encode()])
def test_keys_are_imported_from_every_form(tmp_path: Path, data: bytes) -> None:
    source = put_bytes(tmp_path / "source", data)
    keyring = keyring_path("os", tmp_path)
    imported = import_keys(source, keyring)
    assert imported == parse_keyring(data)
    assert parse_keyring(keyring.read_bytes()) == imported
    assert stat.S_IMODE(keyring.stat().st_mode) == 0o644
    assert sorted(p.name for p in tmp_path.iterdir()) == [keyring.name, "source"]


def test_importing_adds_to_what_is_there_and_keeps_revocations(tmp_path: Path) -> None:
    keyring = put_bytes(keyring_path("os", tmp_path), KEYS["good"] + KEYS["revoked"])
    source = put_bytes(tmp_path / "s", KEYS["revoked, before"] + KEYS["subkey"])
    import_keys(source, keyring)
    assert parse_keyring(keyring.read_bytes()) == certificates(
        "good", "revoked", "subkey"
    )


def test_nothing_is_imported_from_a_file_without_keys(tmp_path: Path) -> None:
    keyring = put_bytes(keyring_path("os", tmp_path), KEYS["good"])
    source = put_bytes(tmp_path / "s", b"junk")
    with pytest.raises(ConfigError, match=f"{source}: not OpenPGP data"):
        import_keys(source, keyring)
    assert keyring.read_bytes() == KEYS["good"]


def test_a_full_disk_leaves_the_keyring_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = put_bytes(keyring_path("os", tmp_path), KEYS["good"])
    source = put_bytes(tmp_path / "s", KEYS["subkey"])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("p2p.ostree.disk.os.fsync", full)
    with pytest.raises(NoSpaceError):
        import_keys(source, keyring)
    assert keyring.read_bytes() == KEYS["good"]
    assert len(list(tmp_path.iterdir())) == 2


# -- the publisher's key ---------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o077])
def test_a_new_key_pair_is_private_and_can_be_read_back(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        pair = generate_key_pair(tmp_path / "new" / "keys")
    finally:
        os.umask(before)
    assert pair.secret_path.name == "signing.key"
    assert pair.public_path.name == "signing.pub"
    assert stat.S_IMODE(pair.secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.public_path.stat().st_mode) == 0o644
    assert load_secret_key(pair.secret_path).public == pair.public
    assert load_key_file(pair.public_path) == (pair.public,)
    assert PublicKey.parse(pair.public_path.read_text()) == pair.public


def test_two_key_pairs_differ(tmp_path: Path) -> None:
    one, two = generate_key_pair(tmp_path / "1"), generate_key_pair(tmp_path / "2")
    assert one.public != two.public


@pytest.mark.parametrize("name", ["signing.key", "signing.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=f"{name}: already exists"):
        generate_key_pair(tmp_path)
    assert (tmp_path / name).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    file = put(tmp_path / "file", "")
    with pytest.raises(ConfigError, match="file/keys: Not a directory"):
        generate_key_pair(file / "keys")


def test_a_public_key_is_no_key_to_sign_with(tmp_path: Path) -> None:
    path = put(tmp_path / "signing.pub", ALICE.public)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="public key where a secret one") as caught:
        load_secret_key(path)
    assert "signing.key" in caught.value.hint


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_secret_key_may_be_read_by_owner_and_group(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path / "k", ALICE.to_text())
    path.chmod(mode)
    assert load_secret_key(path) == ALICE


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620])
def test_a_secret_key_that_others_can_reach_is_refused(
    tmp_path: Path, mode: int
) -> None:
    path = put(tmp_path / "k", ALICE.to_text())
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}") as caught:
        load_secret_key(path)
    assert f"chmod 600 {path}" in caught.value.hint


def test_a_directory_of_keys_that_cannot_be_listed_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "etc/ostree/trusted.ed25519", ALICE.public)
    loop = tmp_path / "etc/ostree/revoked.ed25519.d"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match=r"revoked.ed25519.d: Too many levels"):
        load_ed25519_keys(remote(), root=tmp_path)
