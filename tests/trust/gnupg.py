"""A GnuPG home of its own, whose clock is set by each command."""

import os
import subprocess
from pathlib import Path

NOW = "20240101T000000!"


class GnuPG:
    """Makes keys and signatures with the real gpg; `close` ends its agent."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.home = home

    def close(self) -> None:
        """End the agent that gpg started for this home."""
        self._run(["gpgconf", "--homedir", str(self.home), "--kill", "all"])

    def gpg(self, *arguments: str, when: str = NOW, data: bytes = b"") -> bytes:
        """Run gpg at a time such as 20240101T000000!; its standard output."""
        options = ["--batch", "--quiet", "--yes", "--ignore-time-conflict"]
        options += ["--pinentry-mode", "loopback", "--passphrase", ""]
        options += ["--homedir", str(self.home), "--faked-system-time", when]
        return self._run(["gpg", *options, *arguments], data)

    def _run(self, command: list[str], data: bytes = b"") -> bytes:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, input=data, capture_output=True, check=False, env=environment
        )
        assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
        return done.stdout

    def make_key(
        self,
        name: str,
        algorithm: str = "ed25519",
        *,
        when: str = NOW,
        expires: str = "never",
    ) -> str:
        """Make a key that can sign; its fingerprint."""
        self.gpg("--quick-gen-key", name, algorithm, "sign", expires, when=when)
        return self.fingerprints(name)[0]

    def add_subkey(self, key: str, *, expires: str = "never") -> str:
        """Add a signing subkey to a key; its fingerprint."""
        self.gpg("--quick-add-key", key, "ed25519", "sign", expires)
        return self.fingerprints(key)[-1]

    def fingerprints(self, key: str) -> list[str]:
        """The fingerprints of a key and its subkeys."""
        listed = self.gpg("--list-keys", "--with-colons", key).decode()
        lines = [line.split(":") for line in listed.splitlines()]
        return [fields[9] for fields in lines if fields[0] == "fpr"]

    def sign(self, data: bytes, key: str, *options: str, when: str = NOW) -> bytes:
        """A detached signature by exactly this key or subkey."""
        return self.gpg(
            *options, "-u", f"{key}!", "--detach-sign", "-o", "-", when=when, data=data
        )

    def revoke(self, key: str) -> None:
        """Revoke a key with the certificate that gpg wrote when it was made."""
        path = self.home / "openpgp-revocs.d" / f"{key}.rev"
        text = path.read_text().replace(":-----BEGIN", "-----BEGIN")
        self.gpg("--import", data=text.encode())

    def revoke_subkey(self, key: str) -> None:
        """Revoke the first subkey of a key."""
        answers = b"key 1\nrevkey\ny\n0\n\ny\nsave\n"
        self.gpg("--command-fd", "0", "--no-tty", "--edit-key", key, data=answers)

    def export(self, *keys: str, armour: bool = False) -> bytes:
        """The public keys of these names or fingerprints."""
        return self.gpg(*(["--armor"] if armour else []), "--export", *keys)
