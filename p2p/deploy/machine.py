"""The steps of an update, from the wish to deploy a commit to its end; pure.

`decide` says what holds and what is to be done next, given what was written down and
what the system shows. It is asked again after every action, after a crash and at every
boot, and has no other memory: so wherever the power fails, the update goes on or is
undone. Whoever carries the actions out writes each `Job` down before the action.

    plan ─► fetched ─► deployed ─► rebooting ─► confirming ─► confirmed
      │        │           │           │             │
      └────────┴─► failed ◄┴───────────┴─── rolling-back ─► rolled-back

A tree needs no boot: it is `confirming` as soon as it is deployed. Time is in no
decision, for the clock of a device may say 1970; boots are told apart by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from p2p.ostree.objects import Checksum

MAX_TRIES = 5
"""How often one action is begun: it may be what makes the machine lose its power."""


class Step(StrEnum):
    """How far an update is."""

    PLAN = "plan"
    """Somebody wants it; nothing was looked at."""
    FETCHED = "fetched"
    """The commit is here as a whole, is believed, and there is room for it."""
    DEPLOYED = "deployed"
    """The next boot takes it, or the first boot did and nobody has looked yet."""
    REBOOTING = "rebooting"
    """We asked for a reboot into it."""
    CONFIRMING = "confirming"
    """It runs, and is checked."""
    ROLLING_BACK = "rolling-back"
    """It does not do: what ran before is made what runs."""
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    """It was given up; what ran before does, unless the cause says otherwise."""


NEXT: Mapping[Step, frozenset[Step]] = {
    Step.PLAN: frozenset({Step.FETCHED, Step.FAILED}),
    Step.FETCHED: frozenset({Step.DEPLOYED, Step.FAILED}),
    Step.DEPLOYED: frozenset(
        {
            Step.FETCHED,  # it was staged, and the power failed before it was finished
            Step.REBOOTING,
            Step.CONFIRMING,
            Step.ROLLING_BACK,
            Step.ROLLED_BACK,  # by a person, before it ever ran
            Step.FAILED,
        }
    ),
    Step.REBOOTING: frozenset(
        {Step.FETCHED, Step.CONFIRMING, Step.ROLLING_BACK, Step.FAILED}
    ),
    Step.CONFIRMING: frozenset({Step.CONFIRMED, Step.ROLLING_BACK, Step.FAILED}),
    Step.ROLLING_BACK: frozenset({Step.ROLLED_BACK, Step.FAILED}),
    Step.CONFIRMED: frozenset(),
    Step.ROLLED_BACK: frozenset(),
    Step.FAILED: frozenset(),
}
"""Which steps may follow which; those with none are ends."""


class Act(StrEnum):
    """What is to be done; each may be done twice."""

    VERIFY = "verify"
    """Look whether the commit may be deployed, and whether there is room."""
    DEPLOY = "deploy"
    REBOOT = "reboot"
    CHECK = "check"
    """Find out whether what runs is healthy."""
    MARK_GOOD = "mark-good"
    """Tell the boot loader not to go back any more."""
    ROLL_BACK = "roll-back"
    """Make what ran before the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One update, as it is written down.

    Attributes:
        refspec, commit: what is to run.
        before: the commit to go back to; None if there is none, or it is the same.
        step: how far it is.
        cause: why it came to this step, for people.
        boot: id of the boot in which it came to this step.
        tries: how often the action of this step was begun.
        asked: id of the boot in which this step asked for a reboot.
        passed: the checks have passed.
        staged: it is only finished by a clean shutdown.
        bad: the commit itself is to blame, and is not tried again by itself.

    """

    refspec: str
    commit: Checksum
    before: Checksum | None
    step: Step = Step.PLAN
    cause: str = ""
    boot: str = ""
    tries: int = 0
    asked: str = ""
    passed: bool = False
    staged: bool = False
    bad: bool = False

    @property
    def ended(self) -> bool:
        """Tell whether nothing follows any more."""
        return not NEXT[self.step]

    @property
    def committed(self) -> bool:
        """Tell whether it must come to its end before another may begin."""
        return self.step in (Step.REBOOTING, Step.CONFIRMING, Step.ROLLING_BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the system shows now.

    Attributes:
        boot: id of this boot.
        running: the commit that runs; None if that is none of this system's.
        default: the commit that the next boot takes; of a tree, what runs.
        kept: the commits that are deployed.
        boots: whether another commit runs only after a boot.
        hold: why this is no time to reboot; empty if it is.

    """

    boot: str
    running: Checksum | None
    default: Checksum | None
    kept: frozenset[Checksum]
    boots: bool
    hold: str = ""


def plan(refspec: str, commit: Checksum, facts: Facts) -> Job:
    """Return the update of a system to a commit, not begun."""
    before = facts.default if facts.running is None else facts.running
    return Job(
        refspec=refspec,
        commit=commit,
        before=None if before == commit else before,
        boot=facts.boot,
    )


def decide(job: Job, facts: Facts) -> tuple[Job, Act | None]:
    """Return the update as it is to be written down, and then what is to be done."""
    if job.committed and facts.boots and facts.running is None:
        return job, None  # a rescue system runs: what it shows says nothing of ours
    while (after := _follow(job, facts)) != job:
        job = after
    act = _act(job, facts)
    if act is None or act is Act.REBOOT:
        # Asked for again in the same boot, it still is one reboot.
        return (job if act is None else replace(job, asked=facts.boot)), act
    if job.tries >= MAX_TRIES:
        return decide(_give_up(job, facts), facts)
    return replace(job, tries=job.tries + 1), act


def finish(job: Job, act: Act, facts: Facts, error: str = "") -> Job:
    """Return the update after an action, given how that ended.

    Args:
        job: as `decide` returned it with the action.
        act: the action.
        facts: what the system shows after it.
        error: what went wrong; empty if nothing did.

    """
    if error:
        return _finish_badly(job, act, facts, error)
    match act:
        case Act.VERIFY:
            return _to(job, Step.FETCHED, facts, "it is here, whole and signed")
        case Act.DEPLOY:
            return _to(job, Step.DEPLOYED, facts, "it was deployed")
        case Act.CHECK:
            return replace(job, passed=True, tries=0)
        case Act.MARK_GOOD:
            return _to(job, Step.CONFIRMED, facts, "its checks have passed")
    return job  # what the system shows next tells of a reboot or a way back


def abandon(job: Job, facts: Facts, cause: str) -> Job:
    """Return an update that a person ended before it ran."""
    return _to(job, Step.ROLLED_BACK, facts, cause)


def _finish_badly(job: Job, act: Act, facts: Facts, error: str) -> Job:
    match act:
        case Act.VERIFY | Act.DEPLOY:
            return _to(job, Step.FAILED, facts, error)
        case Act.CHECK:
            return _to(replace(job, bad=True), Step.ROLLING_BACK, facts, error)
    return replace(job, cause=error)


def _to(job: Job, step: Step, facts: Facts, cause: str) -> Job:
    """Return the update at another step, which must be one that may follow."""
    if step not in NEXT[job.step]:
        raise AssertionError(f"{step} does not follow {job.step}")
    return replace(job, step=step, cause=cause, boot=facts.boot, tries=0, asked="")


def _blame(job: Job, step: Step, facts: Facts, cause: str) -> Job:
    return _to(replace(job, bad=True), step, facts, cause)


# -- what the system shows has happened ------------------------------------------------


def _follow(job: Job, facts: Facts) -> Job:
    """Return the update at the next step if the system shows that, else as it is."""
    match job.step:
        case Step.FETCHED if facts.default == job.commit:
            return _to(job, Step.DEPLOYED, facts, "it was found deployed")
        case Step.DEPLOYED:
            return _follow_deployed(job, facts)
        case Step.REBOOTING if facts.boot != job.boot:
            return _follow_boot(job, facts)
        case Step.REBOOTING if facts.default != job.commit:
            return _to(job, Step.FAILED, facts, _REPLACED)
        case Step.CONFIRMING:
            return _follow_confirming(job, facts)
        case Step.ROLLING_BACK:
            return _follow_back(job, facts)
    return job


_REPLACED = "somebody took its deployment away, or put another one before it"


def _follow_deployed(job: Job, facts: Facts) -> Job:
    if not facts.boots:
        if facts.running == job.commit:
            return _to(job, Step.CONFIRMING, facts, "it runs")
        return _to(job, Step.FAILED, facts, _REPLACED)
    if facts.boot != job.boot and facts.running is not None:
        return _follow_boot(job, facts)
    if facts.default != job.commit:
        return _to(job, Step.FAILED, facts, _REPLACED)
    if facts.running is None or facts.hold:
        return job
    return _to(job, Step.REBOOTING, facts, "the reboot policy allows it now")


def _follow_boot(job: Job, facts: Facts) -> Job:
    """Return what a boot made of an update that waited for one."""
    if facts.running == job.commit:
        return _to(job, Step.CONFIRMING, facts, "it was booted")
    if facts.default != job.commit:
        if job.staged and facts.running == job.before:
            cause = "the power failed before it was finished: it is deployed anew"
            return _to(replace(job, staged=False), Step.FETCHED, facts, cause)
        return _to(job, Step.FAILED, facts, _REPLACED)
    if facts.running == job.before:
        cause = "it did not start: the boot loader came back to the one before"
        return _blame(job, Step.ROLLING_BACK, facts, cause)
    return _to(job, Step.FAILED, facts, "another deployment was booted")


def _follow_confirming(job: Job, facts: Facts) -> Job:
    if facts.running == job.commit:
        return job
    if facts.running == job.before and facts.running is not None:
        cause = "it was left before its checks had passed"
        return _blame(job, Step.ROLLING_BACK, facts, cause)
    return _to(job, Step.FAILED, facts, "another deployment runs")


def _follow_back(job: Job, facts: Facts) -> Job:
    is_default = facts.default == job.commit
    if facts.running != job.commit:
        if facts.running != job.before or facts.running is None:
            return _to(job, Step.FAILED, facts, f"{job.cause}; another one runs now")
        if not is_default:
            return _to(job, Step.ROLLED_BACK, facts, job.cause)
    elif is_default and job.before not in facts.kept:
        cause = f"{job.cause}; there is nothing to go back to, so it still runs"
        return _to(job, Step.FAILED, facts, cause)
    elif not is_default and job.asked not in ("", facts.boot):
        cause = f"{job.cause}; a reboot did not lead back, so it still runs"
        return _to(job, Step.FAILED, facts, cause)
    return job


# -- what is to be done ----------------------------------------------------------------


def _act(job: Job, facts: Facts) -> Act | None:
    """Return what the step needs; None while it waits, or has ended."""
    match job.step:
        case Step.PLAN:
            return Act.VERIFY
        case Step.FETCHED:
            return Act.DEPLOY
        case Step.REBOOTING if not facts.hold:
            return Act.REBOOT
        case Step.CONFIRMING:
            return Act.MARK_GOOD if job.passed else Act.CHECK
        case Step.ROLLING_BACK if facts.default == job.commit:
            return Act.ROLL_BACK
        case Step.ROLLING_BACK if not facts.hold:
            return Act.REBOOT
    return None


def _give_up(job: Job, facts: Facts) -> Job:
    """Return an update whose action was begun too often without an end."""
    cause = f"begun {MAX_TRIES} times, and each time cut short or in vain"
    if job.cause:
        cause = f"{cause}; {job.cause}"
    step = Step.ROLLING_BACK if job.step is Step.CONFIRMING else Step.FAILED
    return _blame(job, step, facts, cause)
