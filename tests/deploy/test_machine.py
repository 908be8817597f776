"""The steps of an update: whatever fails at whatever moment, it ends old or new."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from p2p.deploy.journal import Journal, decode, encode
from p2p.deploy.machine import (
    MAX_TRIES,
    NEXT,
    Act,
    Facts,
    Job,
    Step,
    abandon,
    decide,
    finish,
    plan,
)
from p2p.ostree.objects import Checksum

OLD, NEW, OTHER = (Checksum(letter * 64) for letter in "abc")


@dataclass
class System:
    """What a system shows, and what actions and boots change."""

    boots: bool = True
    boot: int = 1
    running: Checksum | None = OLD
    default: Checksum | None = OLD
    kept: set[Checksum] = field(default_factory=lambda: {OLD})
    starts: bool = True
    staged: bool = False
    hold: str = ""
    reboots: list[str] = field(default_factory=list)

    @property
    def facts(self) -> Facts:
        return Facts(
            boot=str(self.boot),
            running=self.running,
            default=self.default,
            kept=frozenset(self.kept),
            boots=self.boots,
            hold=self.hold,
        )

    def start(self, *, clean: bool) -> None:
        """Boot: what cannot start has the boot loader take the other one."""
        self.boot += 1
        if self.staged and not clean:
            self.default = self.running
        self.staged = False
        if self.default == NEW and not self.starts and OLD in self.kept:
            self.running = OLD
        else:
            self.running = self.default

    def carry_out(self, act: Act) -> None:
        if act is Act.DEPLOY:
            self.kept.add(NEW)
            self.default = NEW
        elif act is Act.ROLL_BACK:
            self.default = OLD
        if not self.boots and act in (Act.DEPLOY, Act.ROLL_BACK):
            self.running = self.default


def job_at(step: Step, **fields: object) -> Job:
    job = Job(refspec="o:main", commit=NEW, before=OLD, step=step, boot="1")
    return replace(job, **fields)  # type: ignore[arg-type]


def run(job: Job, system: System, *, healthy: bool = True) -> Job:
    """Carry an update out, rebooting when it asks, until it waits or has ended."""
    for _ in range(60):
        job, act = decide(job, system.facts)
        if act is None:
            return job
        error = "" if healthy or act is not Act.CHECK else "it is ill"
        system.carry_out(act)
        if act is Act.REBOOT:
            system.start(clean=True)
            continue
        job = finish(job, act, system.facts, error)
    raise AssertionError(f"no end: {job}")


# -- the ordinary ways -----------------------------------------------------------------


@pytest.mark.parametrize("boots", [True, False])
def test_what_is_healthy_is_confirmed(boots: bool) -> None:
    system = System(boots=boots)
    job = run(plan("o:main", NEW, system.facts), system)
    assert (job.step, job.bad) == (Step.CONFIRMED, False)
    assert system.running == system.default == NEW
    assert system.boot == (2 if boots else 1)


@pytest.mark.parametrize("boots", [True, False])
def test_what_is_not_goes_back_and_is_remembered(boots: bool) -> None:
    system = System(boots=boots)
    job = run(plan("o:main", NEW, system.facts), system, healthy=False)
    assert (job.step, job.bad, job.cause) == (Step.ROLLED_BACK, True, "it is ill")
    assert system.running == system.default == OLD
    assert system.boot == (3 if boots else 1)


def test_what_does_not_start_is_undone_by_who_comes_back() -> None:
    system = System(starts=False)
    job = run(plan("o:main", NEW, system.facts), system)
    assert (job.step, job.bad) == (Step.ROLLED_BACK, True)
    assert "did not start" in job.cause
    assert system.default == OLD


def test_without_leave_to_reboot_it_waits_and_a_persons_reboot_counts() -> None:
    system = System(hold="reboots are left to people")
    job = run(plan("o:main", NEW, system.facts), system)
    assert job.step is Step.DEPLOYED
    assert decide(job, system.facts) == (job, None)
    system.start(clean=True)
    assert run(job, system).step is Step.CONFIRMED


def test_it_waits_to_go_back_too() -> None:
    system = System(running=NEW, default=OLD, hold="not now")
    job = job_at(Step.ROLLING_BACK, bad=True)
    assert decide(job, system.facts) == (job, None)
    system.hold = ""
    assert run(job, system).step is Step.ROLLED_BACK


def test_a_system_that_does_not_run_here_waits_for_its_first_boot() -> None:
    system = System(running=None, default=None, kept=set())
    job = run(plan("o:main", NEW, system.facts), system)
    assert (job.step, job.before) == (Step.DEPLOYED, None)
    system.boot += 1
    assert decide(job, system.facts) == (job, None)
    system.running = NEW
    assert run(job, system).step is Step.CONFIRMED


def test_an_ill_first_deployment_stays_for_lack_of_another() -> None:
    system = System(boots=False, running=None, default=None, kept=set())
    job = run(plan("o:main", NEW, system.facts), system, healthy=False)
    assert (job.step, job.bad) == (Step.FAILED, True)
    assert "nothing to go back to" in job.cause
    assert system.running == NEW


def test_the_same_commit_deployed_anew_has_nothing_to_go_back_to() -> None:
    system = System(running=NEW, default=OTHER, kept={NEW, OTHER})
    assert plan("o:main", NEW, system.facts).before is None


def test_a_rescue_system_decides_nothing() -> None:
    for step in (Step.REBOOTING, Step.CONFIRMING, Step.ROLLING_BACK):
        job = job_at(step)
        rescue = System(boot=2, running=None, default=NEW).facts
        assert decide(job, rescue) == (job, None)


# -- what others do meanwhile ----------------------------------------------------------


@pytest.mark.parametrize(
    "step, system, cause",
    [
        (Step.DEPLOYED, System(), "took its deployment away"),
        (Step.DEPLOYED, System(boots=False), "took its deployment away"),
        (Step.REBOOTING, System(default=OTHER), "took its deployment away"),
        (Step.REBOOTING, System(boot=2), "took its deployment away"),
        (Step.REBOOTING, System(boot=2, running=OTHER, default=NEW), "was booted"),
        (Step.CONFIRMING, System(running=OTHER), "another deployment runs"),
        (Step.CONFIRMING, System(boots=False, running=None), "another deployment runs"),
        (Step.ROLLING_BACK, System(running=OTHER), "another one runs"),
        (
            Step.ROLLING_BACK,
            System(running=NEW, default=NEW, kept={NEW}),
            "nothing to go back to",
        ),
    ],
)
def test_what_is_taken_from_under_it_is_its_end(
    step: Step, system: System, cause: str
) -> None:
    job, act = decide(job_at(step), system.facts)
    assert (job.step, act) == (Step.FAILED, None)
    assert cause in job.cause


def test_who_goes_back_by_hand_before_it_is_confirmed_has_it_end_so() -> None:
    job, act = decide(job_at(Step.CONFIRMING), System(boots=False).facts)
    assert (job.step, job.bad, act) == (Step.ROLLED_BACK, True, None)


def test_a_reboot_that_does_not_lead_back_is_not_asked_for_again() -> None:
    system = System(running=NEW, default=OLD)
    job, act = decide(job_at(Step.ROLLING_BACK, cause="ill", bad=True), system.facts)
    assert act is Act.REBOOT
    assert decide(job, system.facts) == (job, Act.REBOOT)
    system.boot = 2
    job, act = decide(job, system.facts)
    assert (job.step, act) == (Step.FAILED, None)
    assert job.cause.startswith("ill; a reboot did not lead back")


def test_a_reboot_that_was_refused_waits_for_the_policy_again() -> None:
    system = System(default=NEW)
    job = finish(job_at(Step.REBOOTING), Act.REBOOT, system.facts, "drain.d said no")
    system.hold = "the window is over"
    job, act = decide(job, system.facts)
    assert (job.step, act) == (Step.REBOOTING, None)
    system.hold = ""
    assert decide(job, system.facts)[1] is Act.REBOOT


def test_a_person_may_end_it_before_it_runs() -> None:
    job = abandon(job_at(Step.DEPLOYED), System().facts, "by command")
    assert (job.step, job.cause, job.bad) == (Step.ROLLED_BACK, "by command", False)
    with pytest.raises(AssertionError, match="does not follow"):
        abandon(job_at(Step.CONFIRMED), System().facts, "by command")


def test_what_is_under_way_is_told_from_what_may_be_replaced() -> None:
    committed = {step for step in Step if job_at(step).committed}
    assert committed == {Step.REBOOTING, Step.CONFIRMING, Step.ROLLING_BACK}
    ended = {step for step in Step if job_at(step).ended}
    assert ended == {Step.CONFIRMED, Step.ROLLED_BACK, Step.FAILED}


# -- what goes wrong -------------------------------------------------------------------


@pytest.mark.parametrize("act", [Act.VERIFY, Act.DEPLOY])
def test_what_cannot_be_deployed_fails_and_may_be_tried_again(act: Act) -> None:
    step = Step.PLAN if act is Act.VERIFY else Step.FETCHED
    job = finish(job_at(step), act, System().facts, "no space")
    assert (job.step, job.cause, job.bad) == (Step.FAILED, "no space", False)


@pytest.mark.parametrize("act", [Act.REBOOT, Act.MARK_GOOD, Act.ROLL_BACK])
def test_what_fails_else_is_tried_again_with_its_cause_written_down(act: Act) -> None:
    job = finish(job_at(Step.CONFIRMING), act, System().facts, "not now")
    assert (job.step, job.cause) == (Step.CONFIRMING, "not now")


def test_a_stage_that_lost_the_power_is_deployed_once_more() -> None:
    system = System(boot=2)
    job, act = decide(job_at(Step.DEPLOYED, staged=True), system.facts)
    assert (job.step, job.staged, act) == (Step.FETCHED, False, Act.DEPLOY)
    assert run(job, system).step is Step.CONFIRMED


def test_what_was_deployed_as_the_power_failed_is_found_so() -> None:
    job, act = decide(job_at(Step.FETCHED), System(default=NEW, hold="no").facts)
    assert (job.step, act) == (Step.DEPLOYED, None)


@pytest.mark.parametrize(
    "step, system, end",
    [
        (Step.PLAN, System(), Step.FAILED),
        (Step.FETCHED, System(), Step.FAILED),
        (Step.CONFIRMING, System(running=NEW, default=NEW), Step.ROLLING_BACK),
        (Step.ROLLING_BACK, System(default=NEW), Step.FAILED),
    ],
)
def test_what_kills_whoever_does_it_is_given_up(
    step: Step, system: System, end: Step
) -> None:
    system.kept.add(NEW)
    job = job_at(step, cause="a cause" if step is Step.CONFIRMING else "")
    for _ in range(MAX_TRIES):
        job, act = decide(job, system.facts)
        assert act is not None
        assert job.step is step
    job, _ = decide(job, system.facts)
    assert (job.step, job.bad) == (end, True)
    assert f"{MAX_TRIES} times" in job.cause


# -- any of it, in any order -----------------------------------------------------------


class Updating(RuleBasedStateMachine):
    """One update under all that may happen to it; every job goes through its file."""

    @initialize(boots=st.booleans(), starts=st.booleans(), held=st.booleans())
    def begin(self, boots: bool, starts: bool, held: bool) -> None:
        self.system = System(boots=boots, starts=starts, hold="no" if held else "")
        self.journal = Journal()
        self.act: Act | None = None
        self.passed = False
        self.booted_for: list[tuple[Step, str]] = []
        self.write(plan("o:main", NEW, self.system.facts))

    @property
    def job(self) -> Job:
        assert self.journal.job is not None
        return self.journal.job

    def write(self, job: Job) -> None:
        before = self.journal.job
        if before is not None and before.step is not job.step:
            assert not before.ended
        self.journal = decode(encode(self.journal.with_job(job, time=0.0)))

    @rule(
        ends=st.sampled_from(["well", "badly", "killed before", "killed after"]),
        cut=st.booleans(),
    )
    def go_on(self, ends: str, cut: bool) -> None:
        """Decide, write it down, act; killed alone, or the power with it."""
        job, act = decide(self.job, self.system.facts)
        self.write(job)
        if act is None:
            return
        if act is Act.REBOOT:
            assert not self.system.hold
            assert self.system.boots
            if ends == "well":
                self.note_reboot(job)
                self.system.start(clean=True)
            return
        if ends in ("well", "killed after"):
            self.system.carry_out(act)
        if ends in ("well", "badly"):
            error = "no" if ends == "badly" else ""
            self.passed |= act is Act.CHECK and not error
            self.write(finish(job, act, self.system.facts, error))
        elif cut:
            self.system.start(clean=False)

    def note_reboot(self, job: Job) -> None:
        """A reboot we ask for is one for a step, which the journal has as an event."""
        key = (job.step, job.boot)
        assert key not in self.booted_for
        self.booted_for.append(key)

    @rule(clean=st.booleans())
    def reboot(self, clean: bool) -> None:
        self.system.start(clean=clean)

    @rule()
    def change_policy(self) -> None:
        self.system.hold = "" if self.system.hold else "no"

    @precondition(lambda self: self.system.default == NEW)
    @rule()
    def interfere(self) -> None:
        """Somebody takes the new deployment away while it does not run."""
        if self.system.running != NEW:
            self.system.default = OLD
            self.system.kept.discard(NEW)

    @invariant()
    def is_confirmed_only_once_checks_have_passed(self) -> None:
        assert self.job.step is not Step.CONFIRMED or self.passed

    @invariant()
    def runs_old_or_new(self) -> None:
        assert self.system.running in (OLD, NEW)

    @invariant()
    def remembers_what_was_ill(self) -> None:
        assert self.job.bad == (NEW in self.journal.bad)

    def teardown(self) -> None:
        """Left in peace, it ends; and what it says is what there is."""
        if not hasattr(self, "system"):
            return
        self.system.hold = ""
        job = run(self.job, self.system)
        assert job.ended, job
        if job.step is Step.ROLLED_BACK:
            assert self.system.default != NEW


TestUpdating = Updating.TestCase
TestUpdating.settings = settings(max_examples=200, stateful_step_count=30)


def test_the_table_of_steps_leads_from_the_first_to_an_end() -> None:
    reached, todo = {Step.PLAN}, [Step.PLAN]
    while todo:
        new = NEXT[todo.pop()] - reached
        reached |= new
        todo += new
    assert reached == set(Step)
