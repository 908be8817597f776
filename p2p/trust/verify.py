"""The verdict on a commit: every check, in one order, for whoever brought it.

Sizes, checksum and withdrawal come first, then signatures; only then are the bytes
parsed, and bindings, clock and age are looked at. Both the pull and the writer call
this, each for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from p2p.errors import TrustError, UnsignedError
from p2p.ostree.config import RemoteConfig
from p2p.ostree.objects import (
    Checksum,
    Commit,
    ObjectName,
    ObjectType,
    check_metadata,
)
from p2p.trust.gpg import verify_gpg
from p2p.trust.keys import Ed25519Keys, load_ed25519_keys, load_gpg_keys
from p2p.trust.openpgp import Certificate
from p2p.trust.policy import (
    Clock,
    ClockCheck,
    Head,
    Source,
    check_bindings,
    check_clock,
    check_not_older,
    check_not_revoked,
)
from p2p.trust.sign import (
    KeyId,
    VerifiedSignature,
    check_commitmeta_size,
    verify_ed25519,
)
from p2p.trust.withdrawn import load_withdrawn


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCommit:
    """A commit that passed; `signatures` is empty if the remote demands none."""

    commit: Commit
    checksum: Checksum
    signatures: tuple[VerifiedSignature, ...]
    clock_check: ClockCheck

    @property
    def signed_by(self) -> tuple[KeyId, ...]:
        """The keys whose signatures verified; empty means that none was checked."""
        return tuple(dict.fromkeys(signature.key for signature in self.signatures))

    @property
    def head(self) -> Head:
        """What a ref that names this commit is compared by."""
        return Head(self.checksum, self.commit.timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """What one remote's configuration demands of a commit.

    Attributes:
        remote: its name, for messages.
        ed25519: keys, one of which must have signed; None demands no such signature.
        gpg: the same for GPG. With both, both kinds of signature are demanded.
        collection_id: what commits must be bound to, or None.
        withdrawn: commits that the publisher took back.
        summary_ed25519, summary_gpg: the same demands on the origin's summary.

    """

    remote: str
    ed25519: Ed25519Keys | None = None
    gpg: tuple[Certificate, ...] | None = None
    collection_id: str | None = None
    withdrawn: frozenset[Checksum] = frozenset()
    summary_ed25519: Ed25519Keys | None = None
    summary_gpg: tuple[Certificate, ...] | None = None

    @classmethod
    def for_remote(
        cls,
        remote: RemoteConfig,
        *,
        directories: Sequence[Path],
        root: Path = Path("/"),
    ) -> Verifier:
        """Return the verifier of a remote, its keys read from their files.

        Args:
            remote: `gpg-verify` and `sign-verify` say what is demanded.
            directories: see `load_gpg_keys`; the repository comes first.
            root: where the system's own keys, and its list of commits that were
                withdrawn, are looked for.

        Raises:
            ConfigError: such a file is wrong, or a demanded kind has no key.

        """
        ed25519 = gpg = None
        if remote.sign_verify or remote.sign_verify_summary:
            ed25519 = load_ed25519_keys(remote, root=root)
        if remote.gpg_verify or remote.gpg_verify_summary:
            gpg = load_gpg_keys(remote, directories, root=root)
        return cls(
            remote=remote.name,
            ed25519=ed25519 if remote.sign_verify else None,
            gpg=gpg if remote.gpg_verify else None,
            collection_id=remote.collection_id,
            withdrawn=load_withdrawn(root),
            summary_ed25519=ed25519 if remote.sign_verify_summary else None,
            summary_gpg=gpg if remote.gpg_verify_summary else None,
        )

    @property
    def demands_signatures(self) -> bool:
        """Whether any signature is checked at all."""
        return self.ed25519 is not None or self.gpg is not None

    @property
    def demands_signed_summary(self) -> bool:
        """Whether refs count only as a signed summary has them."""
        return self.summary_ed25519 is not None or self.summary_gpg is not None

    def bound_to(self, collection_id: str | None) -> Verifier:
        """Return a verifier that also demands this collection, if it is not None."""
        if collection_id in (None, self.collection_id):
            return self
        return replace(self, collection_id=collection_id)

    def verify_summary(self, summary: bytes | None, signature: bytes | None) -> None:
        """Check the signatures of a summary, as far as the remote demands any.

        Args:
            summary: the bytes of `summary`, None if the origin has none.
            signature: those of `summary.sig`, likewise.

        Raises:
            TrustError: a demanded signature is missing or does not verify.
            FormatError, LimitError: the signature is broken or too large.

        """
        if not self.demands_signed_summary:
            return
        if summary is None:
            raise UnsignedError(
                f'remote "{self.remote}" demands a signed summary; the origin has none',
                hint="Have the publisher run `ostree summary -u` with its key.",
            )
        try:
            _verify_signatures(
                summary, signature, ed25519=self.summary_ed25519, gpg=self.summary_gpg
            )
        except TrustError as error:
            error.args = (f"the origin's summary is not believed: {error}",)
            raise

    def verify_commit(
        self,
        commit: bytes,
        commitmeta: bytes | None,
        *,
        checksum: Checksum,
        clock: Clock,
        ref: str | None = None,
        source: Source = Source.ORIGIN,
        current: Head | None = None,
    ) -> VerifiedCommit:
        """Return the commit if it may be used; blocking where GPG is demanded.

        Args:
            commit: the bytes of the `.commit` object.
            commitmeta: those of its `.commitmeta`, or None if there is none.
            checksum: the name under which the commit was asked for.
            clock: what is known about the time.
            ref: the ref whose head it is to be, without the remote; None if the
                commit was asked for by its checksum.
            source: who named the checksum as the head of the ref.
            current: the head it is to replace; None compares nothing.

        Raises:
            LimitError: commit or metadata are too large, or too much work.
            IntegrityError: the bytes are not the commit of that name.
            TrustError: its subclass says which rule was broken.
            FormatError: what was signed is no commit, or the metadata is broken.
            ConfigError: gpgv is missing.

        """
        check_commitmeta_size(commitmeta)
        check_metadata(ObjectName(checksum, ObjectType.COMMIT), commit)
        check_not_revoked(checksum, self.withdrawn)
        if source is Source.NEIGHBOUR and ref is not None:
            self._check_neighbour_may_speak(ref)
        signatures = _verify_signatures(
            commit, commitmeta, ed25519=self.ed25519, gpg=self.gpg
        )
        parsed = Commit.parse(commit)
        check_bindings(parsed, ref=ref, collection_id=self.collection_id, source=source)
        clock_check = check_clock(parsed.timestamp, clock)
        check_not_older(Head(checksum, parsed.timestamp), current, source)
        return VerifiedCommit(
            commit=parsed,
            checksum=checksum,
            signatures=signatures,
            clock_check=clock_check,
        )

    def _check_neighbour_may_speak(self, ref: str) -> None:
        if not self.demands_signatures:
            raise UnsignedError(
                f'a neighbour named a head for {ref!r}, but remote "{self.remote}" '
                "checks no signatures, so anybody could have made it",
                hint="Ask the origin, or sign commits and set up the remote's key.",
            )


def _verify_signatures(
    data: bytes,
    detached: bytes | None,
    *,
    ed25519: Ed25519Keys | None,
    gpg: tuple[Certificate, ...] | None,
) -> tuple[VerifiedSignature, ...]:
    signatures: tuple[VerifiedSignature, ...] = ()
    if ed25519 is not None:
        signatures += verify_ed25519(
            data, detached, trusted=ed25519.trusted, revoked=ed25519.revoked
        )
    if gpg is not None:
        signatures += verify_gpg(data, detached, gpg)
    return signatures
