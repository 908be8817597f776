"""Pushes a commit to TreeHub: children first, the commit last, then the ref.

What is where is asked of the origin, so a push that was interrupted goes on where it
was. Objects of the commit the origin's ref names already are not asked about: a ref
only names what is complete.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import trio

from p2p.errors import (
    DamagedObjectError,
    Error,
    FormatError,
    ObjectNotFoundError,
    OriginError,
    RefNotFoundError,
)
from p2p.ostree.objects import Checksum, ObjectName, ObjectType, parse_metadata
from p2p.ostree.refs import RefPath, head
from p2p.ostree.repo import Repo
from p2p.web.treehub.client import RefRefusedError, TreeHubClient
from p2p.web.treehub.completeness import commits_between
from p2p.web.treehub.detached import is_newer
from p2p.web.treehub.packing import IN_MEMORY_BYTES, Package, pack
from p2p.web.treehub.push_plan import PushPlan

# So many objects in a row that the origin lacked: the next are sent unasked, and a
# 409 tells if that was wrong.
_ABSENT_STREAK = 32
_PACKERS = 4
_GROUP = 16
# What the packages of a group may take up together, but for the last one.
_GROUP_BYTES = 4 << 20

Signatures = Literal["none", "present", "sent", "refused"]


class NotFastForwardError(OriginError):
    """The origin's ref has moved to where the pushed commit does not come from."""

    hint = (
        "Somebody else pushed: pull first and commit on top of it, or replace what is "
        "there with --force."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """What to push.

    Attributes:
        ref: a branch, or a commit's checksum, which sets no ref.
        force: set the ref wherever it is now.
        walk_tree: ask about every object, whatever the origin's ref names.

    """

    ref: str
    force: bool = False
    walk_tree: bool = False


@dataclass(slots=True)
class PushStatus:
    """How far a push is, for whoever draws it; changed as it goes on.

    Attributes:
        phase: `check`, `objects`, `ref` or `done`.
        total_objects: how many objects the origin may lack, as far as is known.
        done_objects: how many of them it has now.

    """

    phase: str = "check"
    total_objects: int = 0
    done_objects: int = 0
    sent_objects: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What a push did.

    Attributes:
        commit: what was pushed.
        ref: the branch that names it now; None when a checksum was pushed.
        previous: what the branch named before.
        commits: how many commits were sent.
        sent_objects: how many objects were sent, of `sent_bytes` together.
        present_objects: how many the origin turned out to have.
        signatures: what became of the commit's detached metadata; `refused` by a
            server that keeps for ever what came first.
        seconds: how long it took.

    """

    commit: Checksum
    ref: str | None
    previous: Checksum | None
    commits: int
    sent_objects: int
    sent_bytes: int
    present_objects: int
    signatures: Signatures
    seconds: float


@dataclass(slots=True)
class _Tally:
    commits: int = 0
    present: int = 0
    absent_streak: int = 0


class Push:
    """One push; `run` it once."""

    def __init__(
        self, *, repo: Repo, client: TreeHubClient, request: PushRequest
    ) -> None:
        """Push from a repository of any mode; nothing is written to it."""
        self.status = PushStatus()
        self._repo = repo
        self._client = client
        self._request = request
        self._tally = _Tally()
        self._packers = trio.CapacityLimiter(_PACKERS)

    async def run(self) -> PushResult:
        """Push.

        Raises:
            RefNotFoundError, ObjectNotFoundError: the repository lacks the commit or
                something it needs.
            DamagedObjectError: something it needs is damaged; its commit was not sent.
            NotFastForwardError: the origin's ref would leave its history.
            CredentialsError, OriginError, TransportError: the origin did not do it.

        """
        began = trio.current_time()
        commit, ref = self._resolve()
        previous = await self._client.get_ref(ref) if ref else None
        commits = await trio.to_thread.run_sync(self._commits, commit, ref, previous)
        signatures = await self._push_all(
            commits, previous, walk_tree=self._request.walk_tree
        )
        if ref is not None:
            self.status.phase = "ref"
            await self._set_ref(ref, commit, previous, commits)
        self.status.phase = "done"
        return PushResult(
            commit=commit,
            ref=self._request.ref if ref else None,
            previous=previous,
            commits=self._tally.commits,
            sent_objects=self.status.sent_objects,
            sent_bytes=self.status.sent_bytes,
            present_objects=self._tally.present,
            signatures=signatures,
            seconds=trio.current_time() - began,
        )

    # -- what to push --------------------------------------------------------------

    def _resolve(self) -> tuple[Checksum, RefPath | None]:
        """Return the commit and the ref to set."""
        wanted = self._request.ref
        if len(wanted) == 64 and not wanted.strip("0123456789abcdef"):
            return Checksum(wanted), None
        ref = head(wanted)
        commit = self._repo.refs.get(ref)
        if commit is None:
            raise RefNotFoundError(f"{self._repo.path}: there is no branch {wanted}")
        return commit, ref

    def _commits(
        self, commit: Checksum, ref: RefPath | None, previous: Checksum | None
    ) -> tuple[Checksum, ...]:
        """Return the commits to push, oldest first: all after the origin's.

        So that its history has no gaps.
        """
        commits: tuple[Checksum, ...] | None = (commit,)
        if previous not in (None, commit) and not self._request.force:
            commits = commits_between(self._repo, previous, commit)
        if commits is None:
            raise NotFastForwardError(
                f"{self._client.url}: {ref} is at {previous}, which is not among the "
                f"ancestors of {commit} here"
            )
        for each in commits:
            self._repo.load_commit(each)
            if self._repo.is_partial(each):
                raise ObjectNotFoundError(
                    f"{self._repo.path}: commit {each} is not complete here",
                    hint="Pull it completely, then push again.",
                )
        return commits

    # -- objects -------------------------------------------------------------------

    async def _push_all(
        self,
        commits: Sequence[Checksum],
        previous: Checksum | None,
        *,
        walk_tree: bool,
    ) -> Signatures:
        """Send the commits in this order; return what became of the signatures."""
        self.status.phase = "objects"
        plan = PushPlan(self._repo)
        signatures: Signatures = "none"
        if not walk_tree:
            base = previous or await self._parent_at_origin(commits[0])
            if base is not None:
                await trio.to_thread.run_sync(plan.add_known, base)
        for commit in commits:
            name = ObjectName(commit, ObjectType.COMMIT)
            missing = not await self._client.has(name)
            if missing or walk_tree:
                steps = await trio.to_thread.run_sync(plan.add_commit, commit)
                self.status.total_objects += sum(map(len, steps))
                for names in steps:
                    await self._ensure_all(names)
            else:
                await trio.to_thread.run_sync(plan.add_known, commit)
            signatures = await self._push_detached(commit)
            if missing:
                await self._send(name)
                self._tally.commits += 1
        return signatures

    async def _parent_at_origin(self, commit: Checksum) -> Checksum | None:
        """Return a commit's parent if the origin has that under another ref."""
        parent = self._repo.load_commit(commit).parent
        if parent is None:
            return None
        has = await self._client.has(ObjectName(parent, ObjectType.COMMIT))
        return parent if has else None

    async def _ensure_all(self, names: Sequence[ObjectName]) -> None:
        """Have the origin hold these objects; the first error ends it."""
        groups = [names[at : at + _GROUP] for at in range(0, len(names), _GROUP)]
        # More than are asked and sent at once, so that some can be packed meanwhile.
        await _for_each(groups, self._ensure_group, 1 + -(-self._client.jobs // _GROUP))

    async def _ensure_group(self, names: Sequence[ObjectName]) -> None:
        """Have the origin hold a few objects, packed together: threads are dear."""
        absent: list[ObjectName] = []

        async def ask(name: ObjectName) -> None:
            if not await self._client.has(name):
                absent.append(name)
                self._tally.absent_streak += 1
                return
            self._tally.present += 1
            self._tally.absent_streak = 0
            self.status.done_objects += 1

        large = [name for name in names if self._is_large(name)]
        small = [name for name in names if name not in large]
        asked = large
        if self._tally.absent_streak < _ABSENT_STREAK:
            asked, small = [*small, *large], []
        await _for_each(asked, ask, _GROUP)
        small += [name for name in absent if name not in large]
        while small:
            packed = await trio.to_thread.run_sync(
                _pack_some, self._repo, small, limiter=self._packers
            )
            small = small[len(packed) :]
            try:
                await _for_each(packed, self._upload, _GROUP)
            finally:
                for _, package in packed:
                    package.close()
        for name in absent:
            if name in large:
                await self._send(name)

    def _is_large(self, name: ObjectName) -> bool:
        try:
            size = os.lstat(self._repo.object_path(name)).st_size
        except FileNotFoundError:
            # Perhaps in a parent repository; packing will tell.
            return False
        return size > IN_MEMORY_BYTES

    async def _send(self, name: ObjectName) -> None:
        package = await trio.to_thread.run_sync(
            pack, self._repo, name, limiter=self._packers
        )
        try:
            await self._upload((name, package))
        finally:
            package.close()

    async def _upload(self, item: tuple[ObjectName, Package]) -> None:
        name, package = item
        if await self._client.upload(name, package):
            self.status.sent_objects += 1
            self.status.sent_bytes += package.size
            self._tally.absent_streak += 1
        else:
            self._tally.present += 1
            self._tally.absent_streak = 0
        if name.type is not ObjectType.COMMIT:
            self.status.done_objects += 1

    async def _push_detached(self, commit: Checksum) -> Signatures:
        """Send detached metadata if it has what the origin's lacks."""
        local = await trio.to_thread.run_sync(self._repo.load_commitmeta, commit)
        if local is None:
            return "none"
        name = ObjectName(commit, ObjectType.COMMITMETA)
        try:
            parse_metadata(local)
        except FormatError as error:
            path = self._repo.object_path(name)
            raise DamagedObjectError(f"{path}: damaged: {error}") from None
        if not await self._lacks(commit, local):
            return "present"
        if await self._client.upload(name, Package(local, len(local))):
            self.status.sent_bytes += len(local)
            return "sent"
        return "refused" if await self._lacks(commit, local) else "present"

    async def _lacks(self, commit: Checksum, local: bytes) -> bool:
        remote = await self._client.get_detached(commit)
        try:
            return is_newer(local, remote)
        except FormatError:
            # The origin's is damaged or full; it may say so itself.
            return True

    # -- the ref -------------------------------------------------------------------

    async def _set_ref(
        self,
        ref: RefPath,
        commit: Checksum,
        previous: Checksum | None,
        commits: Sequence[Checksum],
    ) -> None:
        force = self._request.force
        try:
            await self._client.set_ref(ref, commit, force=force)
        except RefRefusedError as error:
            if error.code == "commit_incomplete" and not self._request.walk_tree:
                # What the origin's own ref names was not all there.
                await self._push_all(commits, previous, walk_tree=True)
                await self._client.set_ref(ref, commit, force=force)
            elif force or error.code in ("commit_missing", "commit_incomplete"):
                raise
            else:
                raise await self._explain(ref, previous, error) from None

    async def _explain(
        self, ref: RefPath, previous: Checksum | None, error: RefRefusedError
    ) -> OriginError:
        """Return why a ref was refused that was to move forward when we looked."""
        now = await self._client.get_ref(ref)
        if now != previous:
            return NotFastForwardError(
                f"{self._client.url}: {ref} was moved to {now} during the push",
                status=error.status,
            )
        error.hint = (
            "TreeHub refuses to move a branch forward because it looks for the parent "
            f"in the wrong place. {ref} is at {previous}, where this commit comes "
            "from, so --force is safe."
        )
        return error


_Item = TypeVar("_Item")


async def _for_each(
    items: Sequence[_Item], do: Callable[[_Item], Awaitable[None]], tasks: int
) -> None:
    """Do something for all items, several at once; the first Error ends it."""
    waiting = iter(items)
    errors: list[Error] = []

    async def work(scope: trio.CancelScope) -> None:
        try:
            for item in waiting:
                await do(item)
        except Error as error:
            errors.append(error)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(min(tasks, len(items))):
            nursery.start_soon(work, nursery.cancel_scope)
    if errors:
        raise errors[0]


def _pack_some(
    repo: Repo, names: Sequence[ObjectName]
) -> list[tuple[ObjectName, Package]]:
    """Pack the first of these small objects, as many as fit into memory well."""
    packed: list[tuple[ObjectName, Package]] = []
    size = 0
    for name in names:
        package = pack(repo, name)
        packed.append((name, package))
        size += package.size
        if size > _GROUP_BYTES:
            break
    return packed


async def push(repo: Repo, client: TreeHubClient, request: PushRequest) -> PushResult:
    """Push once without looking at how far it is; see `Push.run`."""
    return await Push(repo=repo, client=client, request=request).run()
