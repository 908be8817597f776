"""Carries updates out, step by step, and writes each step down first.

It is the only one that changes what is deployed, for the commands as for the agent's
writer. `go_on` takes up what a crash or a boot has left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from p2p.deploy.boot_count import BootCounter
from p2p.deploy.deployment import Deployer, Deployment, Outcome, State
from p2p.deploy.journal_file import JournalFile
from p2p.deploy.machine import Act, Facts, Job, Step, abandon, decide, finish, plan
from p2p.errors import DeployError, Error, UnhealthyError
from p2p.ostree.disk import disk_error
from p2p.ostree.objects import Checksum

_log = logging.getLogger(__name__)
# How long another process may need for an update that is under way.
_TURN_SECONDS = 60.0
# What a process that is shut off from the network must leave to another.
_OUTSIDE = frozenset({Act.CHECK, Act.MARK_GOOD, Act.REBOOT})
# Steps from which a reboot may be the next thing done.
_REBOOT_NEXT = frozenset(
    {Step.FETCHED, Step.DEPLOYED, Step.REBOOTING, Step.ROLLING_BACK}
)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Return what tells this boot from all others."""
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


def leave_reboots_to_people() -> str:
    """Return why no reboot of ours is ever due."""
    return "reboots are left to people"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What an update needs beside the place it goes to.

    Attributes:
        verify: raises unless a commit may be deployed as `REMOTE:REF`.
        check: returns what is wrong with a commit that runs; empty if nothing is.
        hold: returns why this is no time to reboot; empty if it is.
        reboot: asks for a reboot.
        ready: tells who waits for a confirmed update; returns what went wrong.
        counter: of boots; None: the boot loader comes back from nothing.
        hand_over: has another process check and reboot; None: this one does.
        clock: the time, for people.
        boot: the id of this boot.

    """

    verify: Callable[[str, Checksum], None]
    check: Callable[[Checksum], str]
    hold: Callable[[], str] = leave_reboots_to_people
    reboot: Callable[[], None] = lambda: None
    ready: Callable[[], tuple[str, ...]] = tuple
    counter: BootCounter | None = None
    hand_over: Callable[[], None] | None = None
    clock: Callable[[], float] = time.time
    boot: Callable[[], str] = boot_id


class Updater:
    """Updates one place of deployments; every call blocks."""

    def __init__(self, place: Deployer, journal: JournalFile, means: Means) -> None:
        """Update this place; nothing is read or written yet."""
        self.place = place
        self._file = journal
        self._means = means
        self._error: Error | None = None
        self._notes: tuple[str, ...] = ()

    # -- what is asked for -------------------------------------------------------

    def deploy(self, refspec: str, commit: Checksum) -> Outcome:
        """Update to a commit, as far as that goes now: also one that had failed.

        Raises:
            DeployError: it could not be deployed; what ran before does.
            UnhealthyError: it was deployed, and gone back from.
            Error: it may not be deployed; nothing has changed.

        """
        with self._file.changing(timeout_seconds=_TURN_SECONDS):
            self._explain()
            job = self._resume()
            if job is not None and job.committed:
                raise _under_way(job)
            facts = self._facts()
            if facts.default == commit and (job is None or job.ended):
                self._means.verify(refspec, commit)
                return self.place.deploy(refspec, commit)
            if job is not None and not job.ended:
                if job.commit == commit:
                    return self._outcome(changed=False)
                self._save(abandon(job, facts, f"{commit} is to run instead"))
            uncounted = facts.boots and self._means.counter is None
            journal = replace(self._file.journal.forgiven(commit), uncounted=uncounted)
            self._file.save(journal)
            return self._conclude(self._run(plan(refspec, commit, facts)))

    def rollback(self) -> Outcome:
        """Go back to the deployment before, as a person asks for.

        Raises:
            DeployError: there is none, or an update is just being booted.

        """
        with self._file.changing(timeout_seconds=_TURN_SECONDS):
            self._explain()
            job = self._file.journal.job
            if job is not None and job.step is Step.CONFIRMING:
                said = "a person went back"
                return self._conclude(
                    self._run(finish(job, Act.CHECK, self._facts(), said))
                )
            if job is not None and job.committed:
                raise _under_way(job)
            outcome = self.place.rollback()
            if job is not None and not job.ended:
                self._save(abandon(job, self._facts(), "a person went back"))
            else:
                self._note(f"a person went back to {outcome.deployment.commit}")
            return outcome

    def go_on(self, *, timeout_seconds: float = 0.0) -> Job | None:
        """Take up the update that is under way, if one is; return it as it is then.

        Raises:
            LockedError: another process is at it, for longer than that.

        """
        with self._file.changing(timeout_seconds=timeout_seconds):
            self._explain()
            return self._resume()

    # -- how it is done ----------------------------------------------------------

    def _resume(self) -> Job | None:
        job = self._file.journal.job
        return job if job is None or job.ended else self._run(job)

    def _run(self, job: Job) -> Job:
        """Carry an update out until it waits or has ended."""
        self._error, self._notes = None, ()
        while True:
            after, act = decide(job, self._facts(job))
            if act in _OUTSIDE and self._means.hand_over is not None:
                self._count(after)
                self._save(replace(after, tries=max(0, after.tries - 1)))
                self._means.hand_over()
                return after
            job = after
            self._save(job)
            self._count(job)
            if act is None:
                return job
            error = self._carry_out(act, job)
            job = finish(job, act, self._facts(), error)
            self._save(job)
            if act is Act.REBOOT:
                return job

    def _carry_out(self, act: Act, job: Job) -> str:
        """Do it, and return what went wrong."""
        try:
            match act:
                case Act.VERIFY:
                    self._means.verify(job.refspec, job.commit)
                case Act.DEPLOY:
                    self._tell(self.place.deploy(job.refspec, job.commit))
                case Act.REBOOT:
                    self._means.reboot()
                case Act.CHECK:
                    return self._means.check(job.commit)
                case Act.MARK_GOOD:
                    self._mark_good()
                case Act.ROLL_BACK:
                    self._tell(self.place.rollback(job.before))
        except Error as error:
            self._error = error
        except OSError as error:
            self._error = disk_error("this system", error)
        else:
            return ""
        return str(self._error)

    def _mark_good(self) -> None:
        """Have the boot loader stay with what runs, then tell who waits for it."""
        if self._means.counter is not None:
            self._means.counter.disarm()
        for said in self._means.ready():
            self._note(said)

    def _count(self, job: Job) -> None:
        """Have the boot loader count boots of what was not confirmed, and no others."""
        counter = self._means.counter
        if counter is None or job.step in (Step.PLAN, Step.FETCHED, Step.CONFIRMING):
            return
        is_wanted = job.step in (Step.DEPLOYED, Step.REBOOTING)
        is_gone = job.ended or self.place.standing().default != job.commit
        try:
            if is_wanted and not counter.is_armed():
                counter.arm()
            elif is_gone and not is_wanted and counter.is_armed():
                counter.disarm()
        except Error as error:
            self._note(f"{counter.name} was not told of the update: {error}")

    def _tell(self, outcome: Outcome) -> None:
        self._notes += outcome.notes
        for note in outcome.notes:
            self._note(note)

    def _facts(self, job: Job | None = None) -> Facts:
        """Return what the system shows; who may reboot next asks whether now."""
        standing = self.place.standing()
        may_reboot = job is not None and job.step in _REBOOT_NEXT
        return Facts(
            boot=self._means.boot(),
            running=standing.running,
            default=standing.default,
            kept=standing.kept,
            boots=standing.boots,
            hold=self._means.hold() if may_reboot else "nobody asked",
        )

    # -- what is said of it ------------------------------------------------------

    def _conclude(self, job: Job) -> Outcome:
        """Return what became of an update that was asked for, or raise why not."""
        if job.step is Step.FAILED and self._error is not None:
            raise self._error
        if job.step in (Step.FAILED, Step.ROLLING_BACK) or job.bad:
            raise UnhealthyError(f"{job.commit} is {job.step}: {job.cause}")
        return self._outcome(changed=True)

    def _outcome(self, *, changed: bool) -> Outcome:
        return Outcome(_in_force(self.place.list()), changed=changed, notes=self._notes)

    def _save(self, job: Job) -> None:
        journal = self._file.journal
        after = journal.with_job(job, time=self._means.clock())
        if after != journal:
            self._file.save(after)
        for event in after.events[-1:]:
            if event not in journal.events:
                _log.info("%s: %s: %s", event.commit, event.step, event.cause)

    def _note(self, text: str) -> None:
        _log.warning("%s", text)
        journal = self._file.journal
        self._file.save(
            journal.with_note(text, time=self._means.clock(), boot=self._means.boot())
        )

    def _explain(self) -> None:
        """Write down that the journal could not be read, once, and make it anew."""
        if self._file.replaced:
            text, self._file.replaced = self._file.replaced, ""
            self._note(text)
            job = self._found()
            if job is not None:
                self._save(job)

    def _found(self) -> Job | None:
        """Return the update that the boot loader counts boots of, if it does.

        Else nobody would tell it to stop, and some day it would go back.
        """
        counter = self._means.counter
        there = {each.state: each for each in self.place.list()}
        new = there.get(State.PENDING, there.get(State.CURRENT))
        if counter is None or new is None or not counter.is_armed():
            return None
        is_booted = new.state is State.CURRENT
        before = there.get(State.PREVIOUS if is_booted else State.CURRENT)
        return Job(
            refspec=new.refspec or "",
            commit=new.commit,
            before=None if before is None else before.commit,
            step=Step.CONFIRMING if is_booted else Step.DEPLOYED,
            cause="it was found with its boots counted, and no journal of it",
            boot=self._means.boot(),
        )


def _in_force(deployments: tuple[Deployment, ...]) -> Deployment:
    """Return what runs, or will from the next boot on."""
    for deployment in deployments:
        if deployment.state in (State.PENDING, State.CURRENT):
            return deployment
    raise DeployError("nothing is deployed yet")


def _under_way(job: Job) -> DeployError:
    return DeployError(
        f"the update to {job.commit} is {job.step} and must come to its end first",
        hint="`p2p history` shows how far it is.",
    )
