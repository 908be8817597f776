"""Which keys a remote trusts and which are revoked, from libostree's own places.

Ed25519: the remote's options `verification-ed25519-key` and `-file`; without them
`trusted.ed25519` and `trusted.ed25519.d/*` below /etc/ostree and /usr/share/ostree.
`revoked.ed25519[.d]` in the same places counts for every remote; libostree reads it
only for remotes without keys of their own.
GPG: `REMOTE.trustedkeys.gpg` in the repository or beside the remote's configuration,
else /usr/share/ostree/trusted.gpg.d/*.gpg; the files of the option `gpgkeypath` are
added to either.
Sources: `ostree-sign-ed25519.c`, `ostree-repo-pull-verify.c`, ostree(1).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2p.errors import ConfigError, FormatError
from p2p.ostree.config import RemoteConfig
from p2p.ostree.disk import sync_directory, write_file, writing
from p2p.trust.openpgp import (
    MAX_KEYRING_BYTES,
    Certificate,
    is_armoured,
    merge_keyrings,
    parse_keyring,
    serialize_keyring,
)
from p2p.trust.sign import SEED_BYTES, PublicKey, SecretKey

KEY_PLACES = (Path("etc/ostree"), Path("usr/share/ostree"))
GPG_PLACE = Path("usr/share/ostree/trusted.gpg.d")
SIGNING_KEY = "signing.key"
SIGNING_PUB = "signing.pub"
# A key is a line of 45 bytes: room for twenty thousand.
MAX_KEY_FILE_BYTES = 1 << 20
_ED25519 = "verification-ed25519-"
# Files of a GnuPG home that are no keyrings of public keys.
_NO_KEYRINGS = frozenset({"trustdb.gpg", "secring.gpg"})
_OTHERS = stat.S_IWGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Ed25519Keys:
    """The keys whose signatures count, and those whose signatures never do."""

    trusted: tuple[PublicKey, ...]
    revoked: frozenset[PublicKey]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files of a new key pair, and its public half."""

    secret_path: Path
    public_path: Path
    public: PublicKey


# -- ed25519 ---------------------------------------------------------------------------


def load_ed25519_keys(remote: RemoteConfig, *, root: Path = Path("/")) -> Ed25519Keys:
    """Return the ed25519 keys of a remote; ConfigError if it trusts none.

    Args:
        remote: its options are read; a path in them is taken as it is.
        root: where the system's own places are looked for.

    """
    trusted = _configured_keys(remote)
    if trusted is None:
        trusted = _system_keys(root, "trusted")
    if not trusted:
        raise ConfigError(
            f'remote "{remote.name}"',
            "sign-verify is on, but there is no trusted ed25519 key",
            hint="Give one with `p2p remote add --sign-verify=ed25519=file:PUB`, or "
            "put it into /etc/ostree/trusted.ed25519.d/.",
        )
    return Ed25519Keys(trusted, frozenset(_system_keys(root, "revoked")))


def load_key_file(path: Path) -> tuple[PublicKey, ...]:
    """Return the public keys of a file with one a line.

    Empty lines and comments that begin with `#` are skipped, as libostree skips
    whatever is no key; any other line is a ConfigError, so that a key that was
    mistyped is not just missing.
    """
    keys = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        where = f"{path}:{number}"
        text = line.strip()
        if text.startswith("#"):
            _check_comment(text, where)
        elif text:
            keys.append(_parse_public(text, where))
    return tuple(dict.fromkeys(keys))


def _check_comment(text: str, where: str) -> None:
    try:
        PublicKey.parse(text.lstrip("# \t"))
    except FormatError:
        return
    raise ConfigError(
        where,
        "a key behind `#`: libostree would use it all the same",
        hint="Remove the line, or the `#` before the key.",
    )


def _parse_public(text: str, where: str) -> PublicKey:
    try:
        return PublicKey.parse(text)
    except FormatError as error:
        raise ConfigError(where, str(error)) from None


def _configured_keys(remote: RemoteConfig) -> tuple[PublicKey, ...] | None:
    """Return the keys that the remote's own options give, None if it has none."""
    file = remote.options.get(f"{_ED25519}file")
    key = remote.options.get(f"{_ED25519}key")
    if file is None and key is None:
        return None
    keys: tuple[PublicKey, ...] = ()
    if file is not None:
        path = _absolute(file, remote, f"{_ED25519}file")
        keys = load_key_file(path)
        if not keys:
            raise ConfigError(str(path), "no key in it")
    if key is not None:
        keys += (_parse_public(key, f'remote "{remote.name}": {_ED25519}key'),)
    return tuple(dict.fromkeys(keys))


def _system_keys(root: Path, kind: str) -> tuple[PublicKey, ...]:
    keys: list[PublicKey] = []
    for place in KEY_PLACES:
        single = root / place / f"{kind}.ed25519"
        several = _entries(single.with_name(f"{single.name}.d"))
        for path in (single, *several):
            if path.is_file():
                keys += load_key_file(path)
    return tuple(dict.fromkeys(keys))


# -- GPG -------------------------------------------------------------------------------


def load_gpg_keys(
    remote: RemoteConfig, directories: Sequence[Path], *, root: Path = Path("/")
) -> tuple[Certificate, ...]:
    """Return the OpenPGP keys of a remote; ConfigError if it trusts none.

    Args:
        remote: its option `gpgkeypath` names files, or directories of files.
        directories: where `REMOTE.trustedkeys.gpg` may be; the first there wins. For
            libostree: the repository, /etc/ostree/remotes.d if it is the system's,
            then its parent.
        root: where the system's own place is looked for.

    """
    certificates: list[Certificate] = []
    own = [keyring_path(remote.name, directory) for directory in directories]
    if keyring := next((path for path in own if path.is_file()), None):
        certificates += _load_keyring(keyring)
    else:
        for path in _entries(root / GPG_PLACE):
            if _is_keyring(path):
                certificates += _load_keyring(path)
    for path in _gpg_key_paths(remote):
        certificates += _load_keyring(path, armour=True)
    if not certificates:
        raise ConfigError(
            f'remote "{remote.name}"',
            "gpg-verify is on, but there is no trusted GPG key",
            hint="Import one with `p2p remote add --gpg-import=FILE`, or set "
            "gpg-verify=false if the commits are signed in another way.",
        )
    return merge_keyrings(certificates)


def keyring_path(remote: str, directory: Path) -> Path:
    """Return where a directory holds a remote's own keyring."""
    return directory / f"{remote}.trustedkeys.gpg"


def import_keys(source: Path, keyring: Path) -> tuple[Certificate, ...]:
    """Add the public keys of a file to a remote's keyring; return what was added.

    The source may be an export of gpg, armoured or not, or a keybox. What the
    keyring knew of a key, a revocation above all, is kept. Written in the form of
    gpg's exports, which stock ostree reads, and replaced in one step.
    """
    new = _load_keyring(source, armour=True)
    known = _load_keyring(keyring) if keyring.exists() else ()
    data = serialize_keyring(merge_keyrings((*known, *new)))
    with writing(str(keyring)):
        write_file(str(keyring), data, fsync=True)
    return new


def _load_keyring(path: Path, *, armour: bool = False) -> tuple[Certificate, ...]:
    data = _read(path, MAX_KEYRING_BYTES)
    if is_armoured(data) and not armour:
        raise ConfigError(
            str(path),
            "is ASCII-armoured; neither gpg nor libostree reads such a keyring",
            hint="Import it with `p2p remote add --gpg-import=FILE`, or convert it "
            "with `gpg --dearmor`.",
        )
    try:
        return parse_keyring(data)
    except FormatError as error:
        raise ConfigError(str(path), str(error)) from None


def _is_keyring(path: Path) -> bool:
    if path.suffix != ".gpg" or path.name in _NO_KEYRINGS:
        return False
    return path.is_file() and not path.is_symlink()


def _gpg_key_paths(remote: RemoteConfig) -> list[Path]:
    option = remote.options.get("gpgkeypath", "")
    separator = "," if "," in option and ";" not in option else ";"
    paths = []
    for text in filter(None, map(str.strip, option.split(separator))):
        path = _absolute(text, remote, "gpgkeypath")
        if path.is_dir():
            inside = _entries(path)
            paths += [p for p in inside if p.is_file() and not p.is_symlink()]
        else:
            paths.append(path)
    return paths


# -- the publisher's own key -----------------------------------------------------------


def generate_key_pair(directory: Path) -> KeyPair:
    """Make a key pair, `signing.key` (mode 0600) and `signing.pub`, in a directory.

    The directory is made if it is not there. ConfigError if either file is: a key
    is never overwritten.
    """
    secret_path, public_path = directory / SIGNING_KEY, directory / SIGNING_PUB
    key = SecretKey.from_seed(secrets.token_bytes(SEED_BYTES))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The public half first: a key nobody can sign with yet does no harm.
        _write_new(public_path, f"{key.public}\n".encode(), 0o644)
        try:
            _write_new(secret_path, f"{key.to_text()}\n".encode(), 0o600)
        except BaseException:
            public_path.unlink()
            raise
        sync_directory(str(directory))
    except FileExistsError as error:
        raise ConfigError(
            str(error.filename),
            "already exists; a key is never overwritten",
            hint="Choose another directory, or move the old key away yourself.",
        ) from None
    except OSError as error:
        raise _cannot(directory, error) from None
    return KeyPair(secret_path, public_path, key.public)


def load_secret_key(path: Path) -> SecretKey:
    """Return the key of a file in libostree's form: one line of base64.

    ConfigError if it is no secret key, or if others than its owner and group can
    read it.
    """
    text = _read_text(path, private=True).strip()
    try:
        return SecretKey.parse(text)
    except FormatError as error:
        raise ConfigError(
            str(path),
            str(error),
            hint=f"Give the file {SIGNING_KEY} that `p2p keygen DIR` wrote.",
        ) from None


# -- files -----------------------------------------------------------------------------


def _absolute(text: str, remote: RemoteConfig, option: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigError(
            f'remote "{remote.name}": {option}', f"{text!r} is not an absolute path"
        )
    return path


def _entries(directory: Path) -> list[Path]:
    """Return what is in a directory, sorted; nothing if there is none."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _cannot(directory, error) from None


def _read(path: Path, limit: int, *, private: bool = False) -> bytes:
    try:
        # Not blocking, so that a named pipe cannot hold us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            _check_mode(path, os.fstat(descriptor).st_mode, private=private)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _cannot(path, error) from None
    if len(data) > limit:
        raise ConfigError(str(path), f"is larger than {limit} bytes")
    return data


def _check_mode(path: Path, mode: int, *, private: bool) -> None:
    if not stat.S_ISREG(mode):
        raise ConfigError(str(path), "is not a regular file")
    if private and mode & _OTHERS:
        raise ConfigError(
            str(path),
            f"others can read or change this secret key: mode {mode & 0o777:o}",
            hint=f"Run `chmod 600 {path}`; if others may have read it, make a new key.",
        )


def _read_text(path: Path, *, private: bool = False) -> str:
    data = _read(path, MAX_KEY_FILE_BYTES, private=private)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not a text file with keys") from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that was not there, durably and with exactly this mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _cannot(path: Path, error: OSError) -> ConfigError:
    return ConfigError(str(path), error.strerror or str(error))
