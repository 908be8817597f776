"""The one door to `gpgv`: OpenPGP signatures of commits, with given keys only.

Each signature is given to its own gpgv, so that one that is broken cannot hide a
good one behind it. Data, signature and keyring are passed as anonymous files: gpgv
sees no home directory, no agent and no keyring of a user.
What counts is what libostree 2022.7 accepts: a good signature by a key that is
neither expired nor revoked, and that has not expired itself. The exit status says
less: it is 0 for expired and revoked keys.
Blocking, a few milliseconds a signature: call it on a thread. Status lines: GnuPG
`doc/DETAILS`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from p2p.errors import ConfigError, RevokedError, SignatureError, UnsignedError
from p2p.ostree.objects import checksum_of
from p2p.trust.openpgp import Certificate, serialize_keyring
from p2p.trust.sign import (
    MAX_SIGNATURE_BYTES,
    KeyId,
    SignatureKind,
    VerifiedSignature,
    parse_signatures,
)

GPGV = "gpgv"
# A verification takes 3 ms; a machine so busy that it takes this long is stuck.
TIMEOUT_SECONDS = 30
_PREFIX = "[GNUPG:] "
# All good, a bad signature, anything else that is wrong with a signature.
_EXIT_STATUSES = frozenset({0, 1, 2})


class Verdict(StrEnum):
    """What gpgv says of one signature; it gives exactly one of these for each."""

    GOOD = "GOODSIG"
    BAD = "BADSIG"
    EXPIRED = "EXPSIG"
    KEY_EXPIRED = "EXPKEYSIG"
    KEY_REVOKED = "REVKEYSIG"
    UNCHECKED = "ERRSIG"


_REASONS = {
    Verdict.GOOD: "good",
    Verdict.BAD: "does not fit the commit",
    Verdict.EXPIRED: "has expired",
    Verdict.KEY_EXPIRED: "by a key that has expired",
    Verdict.KEY_REVOKED: "by a key that was revoked",
    Verdict.UNCHECKED: "cannot be checked",
}
# The reason codes of ERRSIG that have a plain meaning.
_ERRSIG_REASONS = {
    "4": "uses an algorithm that gpgv does not know",
    "5": "uses a digest that is not accepted any more",
    "6": "by a key that is not usable (yet)",
    "9": "by a key that is not trusted here",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """gpgv's verdict on one signature, the key that made it, and why."""

    verdict: Verdict
    key: KeyId
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


def verify_gpg(
    commit: bytes, commitmeta: bytes | None, keys: Iterable[Certificate]
) -> tuple[VerifiedSignature, ...]:
    """Return every good signature by one of the keys: at least one.

    Raises:
        UnsignedError: there is no OpenPGP signature at all.
        RevokedError: none is good, and a revoked key made one.
        SignatureError: none is good; the message says why of each.
        ConfigError: gpgv is not installed or does not work.
        FormatError, LimitError: the detached metadata is broken or too large.

    """
    signatures = parse_signatures(commitmeta, SignatureKind.GPG)
    if not signatures:
        raise UnsignedError(f"commit {checksum_of(commit)} has no GPG signature")
    good = []
    refused: list[Judgement] = []
    with ExitStack() as stack:
        keyring = _anonymous_file(stack, serialize_keyring(keys))
        data = _anonymous_file(stack, commit)
        for signature in signatures:
            judgements = _judge(keyring, data, signature)
            made = [j for j in judgements if j.verdict is Verdict.GOOD]
            good += [_verified(j, signature) for j in made]
            refused += [j for j in judgements if j not in made]
    if good:
        return tuple(good)
    raise _refusal(commit, len(signatures), refused)


def _verified(judgement: Judgement, signature: bytes) -> VerifiedSignature:
    return VerifiedSignature(SignatureKind.GPG, judgement.key, signature)


def _refusal(
    commit: bytes, number: int, refused: Sequence[Judgement]
) -> RevokedError | SignatureError:
    text = "; ".join(dict.fromkeys(map(str, refused))) or "no readable signature"
    message = f"commit {checksum_of(commit)}: no good GPG signature of {number}: {text}"
    if any(j.verdict is Verdict.KEY_REVOKED for j in refused):
        return RevokedError(message)
    return SignatureError(message)


def _judge(keyring: int, data: int, signature: bytes) -> list[Judgement]:
    if len(signature) > MAX_SIGNATURE_BYTES:
        return []
    with ExitStack() as stack:
        descriptor = _anonymous_file(stack, signature)
        return list(parse_status(_run(keyring, descriptor, data)))


def _anonymous_file(stack: ExitStack, data: bytes) -> int:
    """Return a descriptor of the data that other processes can open by path."""
    descriptor = os.memfd_create("p2p-gpgv")
    file = stack.enter_context(os.fdopen(descriptor, "wb"))
    file.write(data)
    file.flush()
    return descriptor


def _run(keyring: int, signature: int, data: int) -> str:
    """Run gpgv and return its status lines."""
    files = (keyring, signature, data)
    paths = [f"/proc/self/fd/{descriptor}" for descriptor in files]
    command = [GPGV, "--homedir", "/nonexistent", "--status-fd", "1"]
    command += ["--keyring", *paths]
    environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=files,
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ConfigError(
            GPGV,
            "is not installed, and the remote demands GPG signatures",
            hint="Install the package `gpgv`, or verify by ed25519 keys instead.",
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(GPGV, f"does not work: {error}") from None
    if done.returncode not in _EXIT_STATUSES:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise ConfigError(GPGV, f"does not work (status {done.returncode}): {said}")
    return done.stdout.decode("utf-8", "replace")


def parse_status(text: str) -> Iterator[Judgement]:
    """Yield the judgement of each signature from gpgv's status lines.

    A signature is good only with both GOODSIG and the VALIDSIG that follows it,
    which names the whole fingerprint.
    """
    blocks: list[list[list[str]]] = []
    # Only a line feed ends a line: gpgv escapes it in what others wrote, such as a
    # user id, but not the line separators of Unicode.
    for line in text.split("\n"):
        words = line.removeprefix(_PREFIX).split(" ")
        if not line.startswith(_PREFIX):
            continue
        if words[0] == "NEWSIG":
            blocks.append([])
        elif blocks:
            blocks[-1].append(words)
    for block in blocks:
        if judgement := _judge_lines(block):
            yield judgement


def _judge_lines(lines: Sequence[Sequence[str]]) -> Judgement | None:
    verdicts = [words for words in lines if words[0] in frozenset(Verdict)]
    if len(verdicts) != 1 or len(verdicts[0]) < 2:
        return None
    verdict, words = Verdict(verdicts[0][0]), verdicts[0]
    valid = next(
        (line[1] for line in lines if line[0] == "VALIDSIG" and line[1:]), None
    )
    if verdict is Verdict.GOOD and valid is None:
        return None
    reason = _REASONS[verdict]
    if verdict is Verdict.UNCHECKED and len(words) > 6:
        reason = _ERRSIG_REASONS.get(words[6], f"{reason} (gpgv code {words[6]})")
    return Judgement(verdict, KeyId(f"{SignatureKind.GPG}:{valid or words[1]}"), reason)
