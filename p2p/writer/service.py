"""Carries out an agent's requests on one repository, believing nothing it says.

It has no network and no threads: one request, one reply. In `p2p.writer.process` it
runs alone in a process that may write the system; `p2p pull` into a repository that
the user owns calls it on a thread.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Self

from p2p.deploy.updater import Updater
from p2p.errors import (
    DeployError,
    Error,
    FormatError,
    IntegrityError,
    LimitError,
    LockedError,
)
from p2p.ostree.cache import keep_commit, trim
from p2p.ostree.config import RemoteConfig
from p2p.ostree.disk import disk_error
from p2p.ostree.libostree import publisher_for
from p2p.ostree.messages import (
    AbortObject,
    AddPiece,
    BeginObject,
    Deploy,
    Deployed,
    Done,
    Failed,
    Form,
    Keep,
    KeepSummary,
    Publish,
    Rejection,
    Reply,
    Request,
    Resume,
    Rollback,
    StageObjects,
    StageSignatures,
    Sync,
)
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, parse_metadata
from p2p.ostree.publish import NewCommit, Publication, is_complete
from p2p.ostree.refs import RefPath, check_ref, mirror_ref
from p2p.ostree.repo import Repo
from p2p.ostree.stage import Stage
from p2p.ostree.summary import keep_summary
from p2p.ostree.upload import Upload
from p2p.trust.clock import device_clock
from p2p.trust.policy import Head, Source, check_bindings, check_not_older
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

    def __init__(self, repo: Repo, updater: Updater | None = None) -> None:
        """Open the staging store; errors as `Stage`.

        `updater` deploys for this writer; None refuses to deploy.
        """
        self.repo = repo
        self._updater = updater
        self.stage = Stage(repo)
        self._uploads: dict[ObjectName, Upload] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop unfinished objects and let go of the store."""
        with self.stage:
            for name in list(self._uploads):
                self._drop(name)

    def handle(self, request: Request) -> Reply:
        """Carry out one request; what goes wrong comes back as `Failed`."""
        try:
            return self._dispatch(request)
        except Error as error:
            return Failed.of(error)
        except OSError as error:
            return Failed.of(disk_error(self.repo.path, error))

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
            case KeepSummary() | Keep():
                self._keep(request)
            case Deploy() | Rollback() | Resume():
                return self._deploy(request)
        return Done()

    # -- staging ---------------------------------------------------------------

    def _stage_objects(self, request: StageObjects) -> Done:
        rejected = []
        for name, form, data in request.objects:
            if name.type not in _STAGEABLE:
                raise FormatError(f"{name} cannot be staged as an object")
            if name.type is ObjectType.COMMIT and is_complete(self.repo, name.checksum):
                continue
            try:
                if form is Form.CANONICAL:
                    self.stage.put(name, data)
                elif not self.stage.has(name):
                    self._put_in_form(name, form, data)
            except (FormatError, IntegrityError) as error:
                rejected.append(Rejection(name, str(error)))
        return Done(tuple(rejected))

    def _put_in_form(self, name: ObjectName, form: Form, data: bytes) -> None:
        upload = Upload(self.stage, name, form, len(data))
        try:
            upload.write(data)
            upload.finish()
        finally:
            upload.discard()

    def _begin(self, request: BeginObject) -> Done:
        self._drop(request.name)
        if len(self._uploads) >= MAX_UPLOADS:
            raise LimitError(f"more than {MAX_UPLOADS} objects at once")
        self.repo.check_free_space(request.size or 0)
        self._uploads[request.name] = Upload(
            self.stage, request.name, request.form, request.size
        )
        return Done()

    def _add_piece(self, request: AddPiece) -> Done:
        upload = self._uploads.pop(request.name, None)
        if upload is None:
            # A piece behind the one that was rejected: nothing more to say.
            return Done((Rejection(request.name, "was not begun"),))
        try:
            upload.write(request.data)
            if request.last:
                upload.finish()
            else:
                self._uploads[request.name] = upload
        except (FormatError, IntegrityError) as error:
            return Done((Rejection(request.name, str(error)),))
        finally:
            if request.name not in self._uploads:
                upload.discard()
        return Done()

    def _drop(self, name: ObjectName) -> None:
        upload = self._uploads.pop(name, None)
        if upload is not None:
            upload.discard()

    def _stage_signatures(self, commit: Checksum, data: bytes) -> None:
        check_commitmeta_size(data)
        parse_metadata(data)
        self.stage.put_commitmeta(commit, data)

    # -- publishing ------------------------------------------------------------

    def _publish(self, request: Publish) -> None:
        # Read again: what the configuration demands may have changed.
        remote = Repo.open(self.repo.path).remote(request.remote)
        verifier = Verifier.for_remote(remote, directories=[Path(self.repo.path)])
        commits: dict[Checksum, NewCommit] = {}
        for checksum, ref in request.commits:
            commits[checksum] = self._verify(verifier, checksum, ref)
        for path, checksum in request.refs:
            branch, collection = _branch(path, remote)
            if (checksum, branch) not in request.commits:
                raise FormatError(f"ref {path}: its commit was not named for it")
            check_bindings(
                commits[checksum].commit,
                ref=branch,
                collection_id=collection,
                source=Source.ORIGIN,
            )
            if not request.allow_older:
                self._check_not_older(path, commits[checksum])
        publisher_for(self.stage).publish(
            Publication(
                commits=tuple(commits.values()),
                refs=request.refs,
                metadata_only=request.metadata_only,
                fsync=request.fsync,
            )
        )

    def _keep(self, request: KeepSummary | Keep) -> None:
        repo = Repo.open(self.repo.path)
        remote = repo.remote(request.remote)
        match request:
            case KeepSummary(_, data, signature):
                directories = [Path(self.repo.path)]
                verifier = Verifier.for_remote(remote, directories=directories)
                verifier.verify_summary(data, signature)
                keep_summary(self.repo, data, signature)
            case Keep(_, commit, max_bytes):
                if commit is not None:
                    keep_commit(repo, remote.name, commit)
                trim(repo, max_bytes)

    def _verify(
        self, verifier: Verifier, checksum: Checksum, ref: str | None
    ) -> NewCommit:
        holdings = self.stage.holdings
        name = ObjectName(checksum, ObjectType.COMMIT)
        detached = holdings.load_commitmeta(checksum)
        verified = verifier.verify_commit(
            holdings.load_metadata(name),
            detached,
            checksum=checksum,
            ref=ref,
            clock=device_clock(self.repo)(time.time()),
        )
        return NewCommit(checksum=checksum, commit=verified.commit, detached=detached)

    def _check_not_older(self, ref: RefPath, new: NewCommit) -> None:
        current = self.repo.refs.get(ref)
        if current is None or not self.repo.has(ObjectName(current, ObjectType.COMMIT)):
            return
        check_not_older(
            Head(new.checksum, new.commit.timestamp),
            Head(current, self.repo.load_commit(current).timestamp),
            Source.ORIGIN,
        )

    # -- deploying -------------------------------------------------------------

    def _deploy(self, request: Deploy | Rollback | Resume) -> Done:
        if self._updater is None:
            raise DeployError(
                f"the writer of {self.repo.path} was told no place to deploy to",
                hint="Start it with --tree=DIR, or with --sysroot=DIR.",
            )
        if isinstance(request, Resume):
            with contextlib.suppress(LockedError):  # another process is at it
                self._updater.go_on()
            return Done()
        if isinstance(request, Rollback):
            outcome = self._updater.rollback()
        else:
            outcome = self._updater.deploy(request.refspec, request.commit)
        deployed = Deployed(outcome.deployment.id, outcome.changed, outcome.notes)
        return Done(deployed=deployed)


def _branch(ref: RefPath, remote: RemoteConfig) -> tuple[str, str | None]:
    """Return the branch kept in a ref, and what its commit must be bound to.

    FormatError unless this remote may set it.
    """
    demanded = remote.collection_id
    for place in ("heads/", f"remotes/{remote.name}/"):
        if ref.startswith(place):
            return check_ref(ref.removeprefix(place)), demanded
    if ref.startswith("mirrors/"):
        _, collection, branch = (*ref.split("/", 2), "")[:3]
        if demanded in (None, collection) and ref == mirror_ref(collection, branch):
            return branch, collection
    raise FormatError(f"ref {ref[:100]!r} is not for remote {remote.name!r} to set")
