"""Keeps followed branches up to date: one check after the other, by clock or by news.

A check is a whole pull of one branch, and a deployment where that is wanted. What
fails is tried again later, at first soon.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import trio

from p2p.agent.company import Company
from p2p.agent.config import AgentConfig, Follow
from p2p.agent.deploying import Deploying
from p2p.agent.limits import Limits
from p2p.agent.pull import Pull, PullStatus
from p2p.agent.request import PullRequest, Wanted
from p2p.agent.state import StateFile, Update
from p2p.agent.writing import Writer
from p2p.errors import Error, NoSourceError
from p2p.ostree.cache import kept_commits
from p2p.ostree.config import RemoteConfig
from p2p.ostree.disk import disk_error
from p2p.ostree.messages import Keep
from p2p.ostree.objects import Checksum
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from p2p.trust.verify import Verifier
from p2p.trust.withdrawn import load_withdrawn
from p2p.web.client.credentials import load_credentials
from p2p.web.client.fetch import Fetcher
from p2p.web.client.options import is_protected
from p2p.web.client.origin import NO_CREDENTIALS, Origin
from p2p.web.client.retry import Retry
from p2p.wire import messages as m

_log = logging.getLogger(__name__)

# After a failure a branch is looked at again after so many seconds, twice as many
# each time, and never later than it would have been anyway.
RETRY_SECONDS = 5.0
# Within a check; the check itself is repeated, and neighbours do not wait so long.
ORIGIN_TRIES = 3
# Polls are spread by this share of the interval, so that a site does not ask at once.
JITTER = 0.1
# Neighbours that finish at once are one piece of news.
NEWS_SECONDS = 0.5
# Between two checks because of news.
REST_SECONDS = 2.0
MAX_HEARD = 4096
# A confirmation that changed nothing is written down no more often than that.
CONFIRMED_SECONDS = 3600.0


@dataclass(slots=True)
class Branch:
    """A followed branch, as it is now.

    Attributes:
        due: when it is checked next, on trio's clock.
        failures: how many checks failed one after the other.
        pull: how far the check is that runs now, if one does.
        last: what the last check brought.
        began: when it began, on trio's clock.
        head: what the last check that succeeded found.
        replaced: the commit before it; neighbours may still have it.

    """

    follow: Follow
    due: float = -math.inf
    failures: int = 0
    pull: PullStatus | None = None
    last: Update | None = None
    began: float = -math.inf
    head: str | None = None
    replaced: str | None = None


class Rules(Protocol):
    """What an operator allows; may change at any time."""

    @property
    def uplink(self) -> str:
        """Why nothing is fetched from origins now; "" if it is."""
        ...

    @property
    def limits(self) -> Limits:
        """What is limited how."""
        ...


class Following:
    """The followed branches of one agent, and the task that checks them."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        state: StateFile,
        writer: Writer,
        fetcher: Fetcher,
        deploying: Deploying,
        rng: random.Random,
        rules: Rules,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Follow what the configuration and the state say.

        Args:
            config: of the agent.
            state: what is remembered; only its `confirmed` and `updates` change here.
            writer: of the repository.
            fetcher: for origins.
            deploying: carries out deployments.
            rng: spreads polls.
            rules: what is allowed.
            now: the time in seconds since 1970.

        """
        self._config = config
        self._state = state
        self._writer = writer
        self._fetcher = fetcher
        self._deploying = deploying
        self._rng = rng
        self._rules = rules
        self._without_origin = rules.uplink
        # How much was last allowed, and what is kept then.
        self._cached: int | None = None
        self._kept: frozenset[Checksum] = frozenset()
        self._checking = trio.CancelScope()
        self._now = now
        self._changed = trio.Event()
        self._branches: dict[str, Branch] = {}
        # When what is on the disk says that heads were confirmed.
        self._written = dict(state.state.confirmed)
        self._heard: dict[tuple[Checksum, bool], None] = {}
        for follow in (*config.follow, *state.state.follows.values()):
            self.add(follow)

    def __repr__(self) -> str:
        return f"<Following {' '.join(self._branches) or 'nothing'}>"

    def branches(self) -> tuple[Branch, ...]:
        """Return the followed branches."""
        return tuple(self._branches.values())

    def get(self, refspec: str) -> Branch | None:
        """Return a followed branch."""
        return self._branches.get(refspec)

    def add(self, follow: Follow) -> None:
        """Follow a branch from now on; one that is followed already is checked."""
        branch = self._branches.setdefault(follow.refspec, Branch(follow))
        branch.follow = follow
        self.check(branch)

    def remove(self, refspec: str) -> None:
        """Follow a branch no more."""
        self._branches.pop(refspec, None)
        self._changed.set()

    def check(self, branch: Branch, *, within: float = 0.0, rest: float = 0.0) -> None:
        """Check a branch soon: at a random time within so many seconds.

        Not before `rest` seconds have passed since the last check began.
        """
        soon = trio.current_time() + self._rng.uniform(0, within)
        soon = max(soon, branch.began + rest)
        branch.due = min(branch.due, soon) if branch.due != -math.inf else soon
        self._changed.set()

    def hear(self, held: m.HeldCommit) -> None:
        """Take note that a neighbour holds a commit: it may be a new head.

        Each commit is news once when somebody begins with it and once when somebody
        has all of it, so that nobody can make us ask the origin again and again.
        """
        news = (held.commit, held.held is m.Held.COMPLETE)
        if news in self._heard:
            return
        self._heard[news] = None
        if len(self._heard) > MAX_HEARD:
            del self._heard[next(iter(self._heard))]
        for branch in self._branches.values():
            if branch.head != held.commit:
                self.check(branch, within=NEWS_SECONDS, rest=REST_SECONDS)

    def limits_changed(self) -> None:
        """Keep to other limits: begin anew if origins may be asked, or no more."""
        self._changed.set()
        if self._without_origin != self._rules.uplink:
            self._without_origin = self._rules.uplink
            self._checking.cancel()
            for branch in self._branches.values():
                self.check(branch)

    # -- checking ----------------------------------------------------------------

    async def run(self, company: Company | None) -> None:
        """Check branches as they are due, until cancelled; alone without company."""
        while True:
            if self._rules.limits.cache != self._cached:
                await self._keep(None, company)
            branch = min(self._branches.values(), key=_due, default=None)
            due = math.inf if branch is None else branch.due
            if branch is not None and due <= trio.current_time():
                await self._check(branch, company)
                continue
            self._changed = trio.Event()
            with trio.move_on_at(due):
                await self._changed.wait()

    async def _check(self, branch: Branch, company: Company | None) -> None:
        refspec = branch.follow.refspec
        branch.due = math.inf
        branch.began = started = trio.current_time()
        pull = None
        update = None
        try:
            with trio.CancelScope() as self._checking:
                pull, update = await self._update(branch, company)
        except (Error, OSError) as error:
            if isinstance(error, OSError):
                error = disk_error(self._config.repo, error)
            update = _failed(refspec, branch.pull, error)
            _log.warning("%s: %s; %s", refspec, error, error.hint)
        except BaseException:
            # Cancelled: whoever runs next begins with it.
            branch.due = -math.inf
            raise
        finally:
            branch.pull = None
        if update is None:
            return  # it is due again
        update = self._timed(update, trio.current_time() - started)
        branch.failures = branch.failures + 1 if update.error else 0
        branch.due = min(branch.due, self._next(branch))
        await self._remember(branch, update)
        if company is not None and pull is not None:
            if not update.error and update.previous not in (None, update.commit):
                await self._keep(branch, company)
            await self._share(pull, company)

    async def _keep(self, branch: Branch | None, company: Company | None) -> None:
        """Keep what a branch's head replaced for neighbours, as far as that may be."""
        self._cached = max_bytes = self._rules.limits.cache
        some = branch or next(iter(self._branches.values()), None)
        if some is None:
            return
        old = None if branch is None or not max_bytes else branch.replaced
        try:
            repo = await trio.to_thread.run_sync(Repo.open, self._config.repo)
            commit = None if old is None else Checksum(old)
            if commit is not None or kept_commits(repo):
                await self._writer.call(Keep(some.follow.remote, commit, max_bytes))
            self._kept = frozenset(kept.commit for kept in kept_commits(repo))
        except (Error, OSError) as error:
            _log.warning("old commits are kept as they are: %s", error)
        if company is not None:
            self._forget_old(company)

    async def _share(self, pull: Pull, company: Company) -> None:
        """Let neighbours have what was pulled, and no more what it replaced."""
        try:
            await pull.share()
        except Error as error:
            _log.warning("not shared: %s; %s", error, error.hint)
        self._forget_old(company)

    def _timed(self, update: Update, seconds: float) -> Update:
        return replace(update, time=self._now(), seconds=round(seconds, 3))

    def _next(self, branch: Branch) -> float:
        seconds = self._config.poll_seconds
        if branch.failures:
            seconds = min(seconds, RETRY_SECONDS * 2 ** (branch.failures - 1))
        spread = self._rng.uniform(1 - JITTER, 1 + JITTER)
        return trio.current_time() + seconds * spread

    async def _remember(self, branch: Branch, update: Update) -> None:
        branch.last = update
        if not update.error:
            branch.head = update.commit
            if update.commit != update.previous:
                branch.replaced = update.previous
        state, refspec = self._state.state, branch.follow.refspec
        if update.confirmed:
            state.confirmed[refspec] = update.time
        is_news = bool(update.error) or update.commit != update.previous
        if is_news:
            state.note(update)
        written = self._written.get(refspec, -math.inf)
        is_due = update.confirmed and update.time - written >= CONFIRMED_SECONDS
        if is_news or is_due:
            self._written[refspec] = state.confirmed.get(refspec, -math.inf)
            await trio.to_thread.run_sync(self._state.save)

    async def _update(
        self, branch: Branch, company: Company | None
    ) -> tuple[Pull, Update]:
        """Pull a branch's head and deploy it where that is wanted."""
        follow = branch.follow
        repo = await trio.to_thread.run_sync(Repo.open, self._config.repo)
        pull = self._make_pull(repo, follow, company)
        branch.pull = pull.status
        try:
            (result,) = await pull.run()
        except NoSourceError as error:
            if not self._rules.uplink:
                raise
            raise NoSourceError(
                f"{error}; the origin is not asked, for {self._rules.uplink}",
                hint="Allow it with `p2p limits set metered=use`, if it may cost.",
            ) from None
        if result.commit != result.previous:
            _log.info("%s: %s", follow.refspec, result.commit)
        if follow.deploy:
            await self._deploying.deploy_if_new(follow.refspec, result.commit)
        update = Update(
            time=0,
            refspec=follow.refspec,
            commit=result.commit,
            previous=result.previous,
            confirmed=result.confirmed,
            origin_bytes=pull.status.origin.bytes,
            origin_objects=pull.status.origin.objects,
            peer_bytes=pull.status.peers.bytes,
            peer_objects=pull.status.peers.objects,
        )
        return pull, update

    def _make_pull(self, repo: Repo, follow: Follow, company: Company | None) -> Pull:
        remote = repo.remote(follow.remote)
        credentials = NO_CREDENTIALS
        path = self._config.credentials.get(follow.remote)
        if path is not None:
            credentials = load_credentials(Path(path))
        if company is not None and not self._may_share(remote):
            company = replace(company, sharing=None)
        return Pull(
            repo=repo,
            origin=None
            if self._rules.uplink
            else Origin(
                self._fetcher,
                remote,
                credentials=credentials,
                retry=Retry(tries=ORIGIN_TRIES),
            ),
            writer=self._writer,
            verifier=Verifier.for_remote(remote, directories=[Path(repo.path)]),
            remote=remote,
            request=PullRequest(
                wanted=(Wanted(follow.ref),), confirmed_only=self.is_stale(follow)
            ),
            now=self._now,
            company=company,
        )

    def is_stale(self, follow: Follow) -> bool:
        """Whether the origin confirmed a branch's head too long ago, or never."""
        most = self._config.max_offline_age
        if not most:
            return False
        confirmed = self._state.state.confirmed.get(follow.refspec)
        return confirmed is None or self._now() - confirmed > most

    def _may_share(self, remote: RemoteConfig) -> bool:
        """Whether everybody who can be met may have what a remote gives."""
        return (
            self._config.fleet is not None
            or self._config.share_protected
            or not (
                remote.name in self._config.credentials
                or is_protected(remote, NO_CREDENTIALS)
            )
        )

    def shareable(self, repo: Repo, follow: Follow) -> tuple[str, str, Checksum] | None:
        """Return what neighbours may have at once: ref, collection, complete commit.

        Blocks on the disk; errors as `Repo.remote` and `Repo.refs`.
        """
        remote = repo.remote(follow.remote)
        if not self._may_share(remote):
            return None
        commit = repo.refs.get(remote_ref(follow.remote, follow.ref))
        if commit is None or repo.is_partial(commit) or commit in load_withdrawn():
            return None
        return follow.ref, remote.collection_id or "", commit

    def shareable_old(self, repo: Repo) -> list[Checksum]:
        """Return the old commits that are kept for neighbours, and may be given.

        Blocks on the disk; errors as `Repo.refs`.
        """
        withdrawn = load_withdrawn()
        names = set(repo.remote_names())
        return [
            kept.commit
            for kept in kept_commits(repo)
            if kept.remote in names
            and self._may_share(repo.remote(kept.remote))
            and kept.commit not in withdrawn
        ]

    def _forget_old(self, company: Company) -> None:
        """Give nobody any more what is neither a branch's head nor the one before."""
        if company.sharing is None:
            return
        branches = self._branches.values()
        if any(branch.head is None for branch in branches):
            # Before the first check of a branch it is not known what it needs.
            return
        kept = {commit for b in branches for commit in (b.head, b.replaced)}
        kept |= self._kept
        for shared in list(company.sharing.commits()):
            if shared.checksum not in kept:
                company.sharing.remove(shared.checksum)


def _due(branch: Branch) -> float:
    return branch.due


def _failed(refspec: str, pull: PullStatus | None, error: Error) -> Update:
    """Return what a check that failed is remembered by."""
    pull = pull or PullStatus()
    return Update(
        time=0,
        refspec=refspec,
        origin_bytes=pull.origin.bytes,
        origin_objects=pull.origin.objects,
        peer_bytes=pull.peers.bytes,
        peer_objects=pull.peers.objects,
        error=type(error).__name__,
        message=str(error),
        hint=error.hint,
    )
