"""What may be deployed: a complete commit that its remote vouches for, now."""

from __future__ import annotations

import time
from pathlib import Path

from p2p.errors import DeployError, FormatError, ObjectNotFoundError
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.ostree.publish import is_complete
from p2p.ostree.refs import check_ref, remote_ref
from p2p.ostree.repo import Repo
from p2p.trust.clock import device_clock
from p2p.trust.verify import Verifier


def split_refspec(refspec: str) -> tuple[str, str]:
    """Return remote and branch of `REMOTE:REF`; FormatError unless it is that."""
    remote, colon, ref = refspec.partition(":")
    if not colon:
        raise FormatError(
            f"not REMOTE:REF: {refspec[:100]!r}",
            hint="Name the remote too: what is deployed follows its branch.",
        )
    remote_ref(remote, ref)
    return remote, check_ref(ref)


def verify_deployable(repo: Repo, refspec: str, commit: Checksum) -> None:
    """Return if a commit may be deployed as `REMOTE:REF`.

    The remote's configuration and keys are read again: they may have changed since
    the commit was published.

    Raises:
        DeployError: the ref does not name this commit.
        ObjectNotFoundError: the commit is not here as a whole.
        TrustError: the remote does not vouch for it (any more).
        ConfigError, FormatError: no such remote, or no `REMOTE:REF`.

    """
    remote, branch = split_refspec(refspec)
    repo = Repo.open(repo.path)
    verifier = Verifier.for_remote(repo.remote(remote), directories=[Path(repo.path)])
    check_names(repo, refspec, commit)
    if not is_complete(repo, commit):
        raise ObjectNotFoundError(
            f"{repo.path}: commit {commit} is not here as a whole",
            hint="Pull it first: `p2p pull`.",
        )
    verifier.verify_commit(
        repo.load_metadata(ObjectName(commit, ObjectType.COMMIT)),
        repo.load_commitmeta(commit),
        checksum=commit,
        ref=branch,
        clock=device_clock(repo)(time.time()),
    )


def check_names(repo: Repo, refspec: str, commit: Checksum) -> None:
    """Return if the ref names the commit now; DeployError otherwise."""
    found = repo.refs.get(remote_ref(*split_refspec(refspec)))
    if found != commit:
        raise DeployError(
            f"{refspec} names {found or 'no commit'} here, not {commit}",
            hint="Pull it, or ask again for the commit that it names now.",
        )
