"""Every error of the project, grouped by whose fault it is and what to do next.

Each class carries an ``exit_code`` for the command line and a ``hint``: one
sentence that tells a person what to do. The module imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterator


class Error(Exception):
    """Root of all errors that are reported to a person instead of a traceback."""

    exit_code: int = 1
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class ConfigError(Error):
    """A configuration file or option is wrong; ``where`` names the file and key."""

    exit_code = 2
    hint = "Correct the named setting; nothing was changed."

    def __init__(self, where: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{where}: {reason}", hint=hint)
        self.where = where
        self.reason = reason


class OutputError(Error):
    """The result cannot be written to standard output; the work itself was done."""

    exit_code = 3
    hint = "What was asked for was done, but nobody could be told."


class UnsupportedOptionError(Error):
    """An option of `ostree` that this program does not take, and the reason."""

    exit_code = 2
    hint = "Use `ostree` itself for this option."


# -- bytes that are not what they claim ----------------------------------------


class FormatError(Error):
    """Bytes are not a valid value of the type they claim to be."""

    exit_code = 40
    hint = "The data is broken or hostile; it was not stored. Fetch it elsewhere."


class LimitError(FormatError):
    """Data is well formed so far but larger, deeper or longer than is allowed."""

    exit_code = 42
    hint = "The data exceeds a safety limit; look at who published it."


class IntegrityError(Error):
    """Content does not have the checksum or size that names it."""

    exit_code = 41
    hint = "The copy is damaged or forged; it was not stored. Another source may do."

    def __init__(self, what: str, *, expected: str, got: str) -> None:
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.what = what
        self.expected = expected
        self.got = got


# -- whom we do not believe -----------------------------------------------------


class TrustError(Error):
    """A commit or metadata must not be used, whoever offers it."""

    exit_code = 10
    hint = "The update was refused and the current state kept."


class UnsignedError(TrustError):
    """No signature of a kind that the remote's configuration demands."""

    exit_code = 11
    hint = (
        "Sign the commit (`p2p commit --sign-key`), or configure the key that "
        "signed it (`p2p remote add --sign-verify`)."
    )


class SignatureError(TrustError):
    """Signatures are there, but none verifies with a trusted key."""

    exit_code = 12
    hint = "Check that the remote's verification key is the publisher's."


class RevokedError(TrustError):
    """The signing key or the commit itself was revoked."""

    exit_code = 13
    hint = "The publisher withdrew this key or build; wait for a new one."


class BindingError(TrustError):
    """The commit is bound to another ref or collection than the one asked for."""

    exit_code = 14
    hint = "The commit was made for another branch; check the ref's name."


class RollbackError(TrustError):
    """The commit is older than the one this repository already has."""

    exit_code = 15
    hint = "Give the commit by its checksum if going back is really wanted."


class FutureError(TrustError):
    """The commit's timestamp lies further ahead than a trusted clock allows."""

    exit_code = 16
    hint = "Check this device's clock and the build machine's."


class StaleError(TrustError):
    """The origin has said for too long nothing, and neighbours alone do not count."""

    exit_code = 17
    hint = "Let this device reach its origin once, or raise `max-offline-age`."


# -- the other side of a conversation -------------------------------------------


class ProtocolError(Error):
    """Abstract: a peer conversation broke its rules; see the two subclasses."""

    exit_code = 24


class LocalProtocolError(ProtocolError):
    """This program used the protocol wrongly: a bug here."""

    hint = "This is a bug; please report it."


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol."""

    hint = "The other side is broken or hostile; it was disconnected."


class TransportError(Error):
    """A connection could not be made or did not last."""

    exit_code = 20
    hint = "Check the network and the address, then run the command again."


class ConnectError(TransportError):
    """No connection: name not resolved, refused, unreachable or TLS not accepted."""

    exit_code = 23


class TransportTimeoutError(TransportError):
    """The other side accepted the connection but went silent or too slow."""

    exit_code = 22


class TransportClosedError(TransportError):
    """The other side closed the connection in the middle of an answer."""


class NoSourceError(TransportError):
    """Nobody who can be reached has what is needed."""

    exit_code = 27
    hint = "Check that neighbours are up (`p2p peers`), or allow the origin."


class OriginError(Error):
    """The origin answered, but not with what was asked; ``status`` is HTTP's."""

    exit_code = 25
    hint = "Look at the origin server's log; what was fetched is kept."

    def __init__(
        self, message: str, *, status: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class OriginNotFoundError(OriginError):
    """The origin does not have the ref or object (404, 403 or 410)."""

    exit_code = 21
    hint = "Check the ref's name and that the push to the origin was complete."


class CredentialsError(OriginError):
    """The origin wants credentials that are missing or were not accepted."""

    exit_code = 26
    hint = "Check treehub.json or credentials.zip and whether they have expired."


# -- the repository and its disk -------------------------------------------------


class RepositoryError(Error):
    """The local repository cannot do what was asked."""

    exit_code = 30
    hint = "Nothing was changed in the repository."


class RefNotFoundError(RepositoryError):
    """The repository has no such ref or commit."""

    exit_code = 35
    hint = "List what is there with `p2p ls --refs --repo=REPO`."


class ObjectNotFoundError(RepositoryError):
    """The repository does not hold an object it needs."""

    exit_code = 36
    hint = "Pull the commit again, or run `p2p fsck --repair`."


class PathNotFoundError(RepositoryError):
    """A commit has no such path."""

    exit_code = 37
    hint = "List what is there with `p2p ls --repo=REPO REF`."


class NoSpaceError(RepositoryError):
    """The filesystem is full or would fall below the configured reserve."""

    exit_code = 31
    hint = "Free some space (`p2p prune`), then run it again: what is staged is kept."


class ReadOnlyError(RepositoryError):
    """The repository cannot be written: permissions or a read-only filesystem."""

    exit_code = 32
    hint = "Run as the repository's owner, or remount the filesystem read-write."


class DamagedObjectError(RepositoryError):
    """An object stored in the repository no longer has its checksum."""

    exit_code = 33
    hint = "Run `p2p fsck --repair` to fetch a good copy."


class LockedError(RepositoryError):
    """Another process holds the repository's lock for longer than we wait."""

    exit_code = 34
    hint = "Wait for the other command, or raise core.lock-timeout-secs."


class SourceTreeError(Error):
    """A directory to commit cannot be read, or holds what OSTree cannot keep."""

    exit_code = 38
    hint = "Nothing was committed; correct or skip the named file."


class DeployError(Error):
    """A verified commit could not be turned into a running system."""

    exit_code = 50
    hint = "The current deployment is unchanged."


class UnhealthyError(DeployError):
    """An update was deployed and is ill: it was gone back from, or is about to be."""

    exit_code = 53
    hint = "`p2p history` shows why; a newer commit is deployed again."


class WriterError(Error):
    """The writer process failed or vanished."""

    exit_code = 51
    hint = "Run the command again: what was staged is kept."


class AgentError(Error):
    """The running agent cannot be asked, or gave no answer."""

    exit_code = 52
    hint = "Start it with `p2p agent`, or `systemctl start ostree-p2p`."


# -- errors from elsewhere -----------------------------------------------------------


def error_named(kind: str, message: str, hint: str, *, default: type[Error]) -> Error:
    """Return an error that another process reported, of the same class if known."""
    found = globals().get(kind)
    if not (isinstance(found, type) and issubclass(found, Error)):
        found = default
    error = found.__new__(found)
    Error.__init__(error, message, hint=hint)
    return error


# -- errors of tasks side by side --------------------------------------------------


def single_error(group: BaseExceptionGroup[BaseException]) -> Error | None:
    """Return the first error of a group that holds nothing but errors of ours."""
    errors = list(_leaves(group))
    ours = [error for error in errors if isinstance(error, Error)]
    return ours[0] if ours and len(ours) == len(errors) else None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
