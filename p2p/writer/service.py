"""Carries out an agent's requests on one repository, believing nothing it says.

It has no network and no threads: one request, one reply. In `p2p.writer.process` it
runs alone in a process that may write the system; `p2p pull` into a repository that
the user owns calls it on a thread.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self

from p2p.errors import (
    Error,
    FormatError,
    IntegrityError,
    LimitError,
    RevokedError,
)
from p2p.ostree.messages import (
    AbortObject,
    AddPiece,
    BeginObject,
    Done,
    Failed,
    Publish,
    Rejection,
    Reply,
    Request,
    StageObjects,
    StageSignatures,
    Sync,
)
from p2p.ostree.objects import Checksum, Commit, ObjectName, ObjectType
from p2p.ostree.publish import Publication, publisher_for
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage, Upload
from p2p.trust.policy import Clock
from p2p.trust.sign import check_commitmeta_size
from p2p.trust.verify import Verifier

# One large object a neighbour, and some; each holds a file and a hash state.
MAX_UPLOADS = 64
# Kinds an agent may stage as objects; detached metadata comes as StageSignatures.
_STAGEABLE = frozenset(
    {ObjectType.FILE, ObjectType.DIRTREE, ObjectType.DIRMETA, ObjectType.COMMIT}
)


class WriterService:
    """Owns the staging store and the repository behind it."""

    def __init__(self, repo: Repo) -> None:
        """Open the staging store; errors as `Stage`."""
        self.repo = repo
        self.stage = Stage(repo)
        self._uploads: dict[ObjectName, Upload] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop unfinished objects and let go of the store."""
        for upload in self._uploads.values():
            upload.discard()
        self._uploads.clear()
        self.stage.close()

    def handle(self, request: Request) -> Reply:
        """Carry out one request; what goes wrong comes back as `Failed`."""
        try:
            return self._dispatch(request)
        except Error as error:
            return Failed.of(error)

    def _dispatch(self, request: Request) -> Reply:
        match request:
            case StageObjects():
                return self._stage_objects(request)
            case BeginObject():
                return self._begin(request)
            case AddPiece():
                return self._add_piece(request)
            case AbortObject(name):
                self._drop(name)
            case StageSignatures(commit, data):
                self._stage_signatures(commit, data)
            case Sync():
                self.stage.sync()
            case Publish():
                self._publish(request)
        return Done()

    # -- staging ---------------------------------------------------------------

    def _stage_objects(self, request: StageObjects) -> Done:
        rejected = []
        for name, form, data in request.objects:
            _require_stageable(name)
            try:
                self.stage.put(name, form, data)
            except (FormatError, IntegrityError) as error:
                rejected.append(Rejection(name, str(error)))
        return Done(tuple(rejected))

    def _begin(self, request: BeginObject) -> Done:
        _require_stageable(request.name)
        self._drop(request.name)
        if len(self._uploads) >= MAX_UPLOADS:
            raise LimitError(f"more than {MAX_UPLOADS} objects at once")
        self.repo.check_free_space(request.size)
        self._uploads[request.name] = Upload(
            self.stage, request.name, request.form, request.size
        )
        return Done()

    def _add_piece(self, request: AddPiece) -> Done:
        upload = self._uploads.get(request.name)
        if upload is None:
            # A piece behind the one that was rejected: nothing more to say.
            return Done((Rejection(request.name, "was not begun"),))
        try:
            upload.write(request.data)
            if request.last:
                upload.finish()
                del self._uploads[request.name]
        except (FormatError, IntegrityError) as error:
            self._drop(request.name)
            return Done((Rejection(request.name, str(error)),))
        return Done()

    def _drop(self, name: ObjectName) -> None:
        upload = self._uploads.pop(name, None)
        if upload is not None:
            upload.discard()

    def _stage_signatures(self, commit: Checksum, data: bytes) -> None:
        check_commitmeta_size(data)
        self.stage.put_commitmeta(commit, data)

    # -- publishing ------------------------------------------------------------

    def _publish(self, request: Publish) -> None:
        remote = self.repo.remote(request.remote)
        verifier = Verifier.for_remote(remote, directories=[Path(self.repo.path)])
        commits = tuple(
            (checksum, self._verify(verifier, checksum, ref))
            for checksum, ref in request.commits
        )
        publisher_for(self.stage).publish(
            Publication(
                commits=commits,
                refs=request.refs,
                metadata_only=request.metadata_only,
                fsync=request.fsync,
            )
        )

    def _verify(
        self, verifier: Verifier, checksum: Checksum, ref: str | None
    ) -> Commit:
        if self.repo.is_tombstoned(checksum):
            raise RevokedError(f"commit {checksum} was deleted here on purpose")
        holdings = self.stage.holdings
        verified = verifier.verify_commit(
            holdings.load_metadata(ObjectName(checksum, ObjectType.COMMIT)),
            holdings.load_commitmeta(checksum),
            checksum=checksum,
            ref=ref,
            clock=Clock(time.time(), trusted=True),
        )
        return verified.commit


def _require_stageable(name: ObjectName) -> None:
    if name.type not in _STAGEABLE:
        raise FormatError(f"{name} cannot be staged as an object")
