"""Updates carried out on real trees: checked, gone back from, and taken up again."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from p2p.deploy.boot_count import Grub, format_grubenv
from p2p.deploy.deployment import Outcome, Standing
from p2p.deploy.health import Health
from p2p.deploy.journal import Journal
from p2p.deploy.journal_file import JournalFile, read_journal
from p2p.deploy.machine import Step
from p2p.deploy.target import TreeTarget, journal_of
from p2p.deploy.tree import TreeDeployer
from p2p.deploy.updater import Means, Updater, boot_id
from p2p.deploy.verify import verify_deployable
from p2p.errors import (
    DeployError,
    LockedError,
    NoSpaceError,
    ReadOnlyError,
    UnhealthyError,
)
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo
from tests import killing
from tests.deploy.places import (
    COMMITS,
    MAIN,
    ONE,
    REFSPEC,
    TWO,
    assert_sound,
    repo_of,
)

ILL = "a check failed"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repo_of(tmp_path / "place/repo", *COMMITS)


@pytest.fixture
def root(repo: Repo) -> Path:
    return Path(repo.path).parent / "root"


class Bench:
    """A place of trees, whose commits are ill if `ill` says so."""

    def __init__(self, repo: Repo, root: Path) -> None:
        self.repo = repo
        self.root = root
        self.path = journal_of(repo, TreeTarget(str(root)))
        self.ill: set[Checksum] = set()
        self.checked: list[Checksum] = []
        self.checks: Callable[[Checksum], str] = self._check

    def _check(self, commit: Checksum) -> str:
        self.checked.append(commit)
        return ILL if commit in self.ill else ""

    def updater(self) -> Updater:
        means = Means(
            verify=partial(verify_deployable, self.repo),
            check=self.checks,
            clock=lambda: 0.0,
        )
        place = TreeDeployer(self.repo, self.root, user_mode=True)
        return Updater(place, JournalFile(self.path), means)

    def deploy(self, commit: Checksum) -> None:
        self.repo.refs.set(MAIN, commit)
        self.updater().deploy(REFSPEC, commit)

    @property
    def journal(self) -> Journal:
        return read_journal(self.path)

    def steps(self) -> list[str]:
        return [str(event.step) for event in self.journal.events]

    def causes(self) -> str:
        return "\n".join(event.cause for event in self.journal.events)


@pytest.fixture
def bench(repo: Repo, root: Path) -> Bench:
    return Bench(repo, root)


def test_each_step_is_written_down_and_the_last_confirms(bench: Bench) -> None:
    bench.deploy(ONE.checksum)
    assert assert_sound(bench.root) == ONE.checksum
    expected = ["plan", "fetched", "deployed", "confirming", "confirmed"]
    assert bench.steps() == expected
    assert {event.boot for event in bench.journal.events} == {boot_id()}
    assert bench.checked == [ONE.checksum]


def test_what_is_ill_is_gone_back_from_and_not_forgotten(bench: Bench) -> None:
    bench.deploy(ONE.checksum)
    bench.ill = {TWO.checksum}
    with pytest.raises(UnhealthyError, match=ILL):
        bench.deploy(TWO.checksum)
    assert assert_sound(bench.root) == ONE.checksum
    assert bench.steps()[-2:] == ["rolling-back", "rolled-back"]
    assert bench.journal.bad == (TWO.checksum,)


def test_a_person_may_have_it_tried_again(bench: Bench) -> None:
    bench.deploy(ONE.checksum)
    bench.ill = {TWO.checksum}
    with pytest.raises(UnhealthyError):
        bench.deploy(TWO.checksum)
    bench.ill = set()
    bench.deploy(TWO.checksum)
    assert assert_sound(bench.root) == TWO.checksum
    assert bench.journal.bad == ()


def test_what_runs_already_is_neither_deployed_nor_checked(bench: Bench) -> None:
    bench.deploy(ONE.checksum)
    outcome = bench.updater().deploy(REFSPEC, ONE.checksum)
    assert not outcome.changed
    assert bench.checked == [ONE.checksum]


def test_what_may_not_be_deployed_is_a_step_too(bench: Bench) -> None:
    bench.repo.refs.set(MAIN, TWO.checksum)
    with pytest.raises(DeployError, match=TWO.checksum):
        bench.updater().deploy(REFSPEC, ONE.checksum)
    assert bench.steps() == ["plan", "failed"]
    assert TWO.checksum in bench.causes()
    assert not bench.root.exists()
    assert bench.journal.bad == ()


def test_a_person_goes_back_and_that_is_written_down(bench: Bench) -> None:
    for each in (ONE, TWO):
        bench.deploy(each.checksum)
    outcome = bench.updater().rollback()
    assert outcome.deployment.commit == ONE.checksum
    assert bench.journal.events[-1].step is None
    assert f"went back to {ONE.checksum}" in bench.causes()


def test_with_nothing_to_go_back_to_nothing_is_written_down(bench: Bench) -> None:
    with pytest.raises(DeployError, match="no other deployment"):
        bench.updater().rollback()
    assert bench.journal == Journal()
    assert bench.updater().go_on() is None


def test_a_newer_journal_is_set_aside_and_what_failed_still_is_known(
    bench: Bench,
) -> None:
    os.makedirs(os.path.dirname(bench.path))
    text = f'{{"version": 2, "bad": ["{TWO.checksum}"], "job": {{}}}}'
    Path(bench.path).write_text(text)
    assert bench.updater().go_on() is None
    assert bench.journal.bad == (TWO.checksum,)
    assert "rolled back to an older one" in bench.causes()


def test_a_damaged_journal_is_set_aside_and_what_runs_stays(bench: Bench) -> None:
    bench.deploy(ONE.checksum)
    Path(bench.path).write_text("{")
    bench.deploy(TWO.checksum)
    assert assert_sound(bench.root) == TWO.checksum
    assert "not JSON" in bench.causes()


def test_what_somebody_deletes_meanwhile_is_an_end_with_that_cause(
    bench: Bench,
) -> None:
    def delete(commit: Checksum) -> str:
        shutil.rmtree(bench.root)
        return ""

    bench.deploy(ONE.checksum)
    bench.checks = delete
    with pytest.raises(DeployError, match="another deployment runs"):
        bench.deploy(TWO.checksum)


@pytest.mark.parametrize("error", [NoSpaceError, ReadOnlyError])
def test_what_the_disk_says_ends_it_and_what_ran_stays(
    bench: Bench, error: type[NoSpaceError]
) -> None:
    bench.deploy(ONE.checksum)

    class Broken(TreeDeployer):
        def deploy(self, refspec: str, commit: Checksum) -> Outcome:  # noqa: ARG002
            raise error("the disk says no")

    bench.repo.refs.set(MAIN, TWO.checksum)
    updater = bench.updater()
    updater.place = Broken(bench.repo, bench.root, user_mode=True)
    with pytest.raises(error):
        updater.deploy(REFSPEC, TWO.checksum)
    assert assert_sound(bench.root) == ONE.checksum
    assert bench.steps()[-1] == "failed"
    assert bench.journal.bad == ()


# -- a bootable system -----------------------------------------------------------------


class Bootable(TreeDeployer):
    """Trees that run only after a boot."""

    boots = 0
    running: Checksum | None = None

    def standing(self) -> Standing:
        there = super().standing()
        return Standing(
            running=Bootable.running,
            default=there.default,
            kept=there.kept,
            boots=True,
        )


class BootBench(Bench):
    """A system that is booted by hand."""

    def __init__(self, repo: Repo, root: Path) -> None:
        super().__init__(repo, root)
        self.hold = "not now"
        self.asked = 0
        self.handed = 0
        self.counter: Grub | None = None
        self.boots = 1
        self.does_check = True
        Bootable.running = None

    def hand_over(self) -> None:
        self.handed += 1

    def ask(self) -> None:
        self.asked += 1

    def updater(self) -> Updater:
        means = Means(
            verify=partial(verify_deployable, self.repo),
            check=self.checks,
            hold=lambda: self.hold,
            reboot=self.ask,
            counter=self.counter,
            hand_over=None if self.does_check else self.hand_over,
            boot=lambda: f"boot {self.boots}",
        )
        place = Bootable(self.repo, self.root, user_mode=True)
        return Updater(place, JournalFile(self.path), means)

    def boot(self) -> None:
        self.boots += 1
        there = TreeDeployer(self.repo, self.root, user_mode=True).standing()
        Bootable.running = there.default


@pytest.fixture
def system(repo: Repo, root: Path) -> BootBench:
    """One that runs the first commit."""
    system = BootBench(repo, root)
    system.deploy(ONE.checksum)
    system.boot()
    system.updater().go_on()
    assert system.steps()[-1] == "confirmed"
    return system


def test_it_is_confirmed_after_its_boot_by_who_may_check(system: BootBench) -> None:
    system.deploy(TWO.checksum)
    assert system.steps()[-1] == "deployed"
    assert not system.updater().deploy(REFSPEC, TWO.checksum).changed
    system.boot()
    system.does_check = False
    for _ in range(9):
        system.updater().go_on()
        assert system.steps()[-1] == "confirming"
    assert (system.handed, system.asked) == (9, 0)
    system.does_check = True
    system.updater().go_on()
    assert system.steps()[-1] == "confirmed"


def test_it_reboots_once_when_it_may_and_back_if_it_is_ill(system: BootBench) -> None:
    system.hold = ""
    system.ill = {TWO.checksum}
    system.deploy(TWO.checksum)
    assert (system.steps()[-1], system.asked) == ("rebooting", 1)
    with pytest.raises(DeployError, match="must come to its end"):
        system.deploy(COMMITS[2].checksum)
    with pytest.raises(DeployError, match="must come to its end"):
        system.updater().rollback()
    system.boot()
    before = system.asked
    system.updater().go_on()
    assert system.asked == before + 1
    system.boot()
    system.updater().go_on()
    assert system.steps()[-1] == "rolled-back"
    assert Bootable.running == ONE.checksum


def test_a_newer_commit_takes_the_place_of_one_that_waits(system: BootBench) -> None:
    system.deploy(TWO.checksum)
    system.deploy(COMMITS[2].checksum)
    assert "is to run instead" in system.causes()
    system.boot()
    system.updater().go_on()
    assert (system.steps()[-1], system.journal.bad) == ("confirmed", ())


def test_a_person_goes_back_before_the_boot(system: BootBench) -> None:
    system.deploy(TWO.checksum)
    system.updater().rollback()
    assert (system.steps()[-1], system.journal.bad) == ("rolled-back", ())
    system.boot()
    assert Bootable.running == ONE.checksum


def test_a_person_goes_back_while_it_is_checked(system: BootBench) -> None:
    system.deploy(TWO.checksum)
    system.boot()
    system.does_check = False
    system.updater().go_on()
    with pytest.raises(UnhealthyError, match="a person went back"):
        system.updater().rollback()
    system.boot()
    system.updater().go_on()
    assert (system.steps()[-1], Bootable.running) == ("rolled-back", ONE.checksum)


# -- killed ----------------------------------------------------------------------------

IMPORTS = """
from functools import partial
from p2p.deploy.journal_file import JournalFile
from p2p.deploy.tree import TreeDeployer
from p2p.deploy.target import TreeTarget, journal_of
from p2p.deploy.updater import Means, Updater
from p2p.deploy.verify import verify_deployable
from p2p.ostree.repo import Repo
def updater(ill):
    repo = Repo.open(sys.argv[1])
    means = Means(verify=partial(verify_deployable, repo), check=lambda _: ill)
    place = TreeDeployer(repo, sys.argv[2], user_mode=True)
    path = journal_of(repo, TreeTarget(sys.argv[2]))
    return Updater(place, JournalFile(path), means)
"""


@pytest.mark.parametrize("ill", ["", "it is ill"])
def test_killed_at_any_step_it_goes_on_and_ends_where_it_would_have(
    bench: Bench, root: Path, ill: str
) -> None:
    bench.deploy(ONE.checksum)
    bench.repo.refs.set(MAIN, TWO.checksum)
    place = root.parent
    kept = place.parent / "kept"
    shutil.copytree(place, kept, symlinks=True)
    program = f"""
try:
    updater({ill!r}).deploy({REFSPEC!r}, {str(TWO.checksum)!r})
except Exception as error:
    assert {ill!r} and {ill!r} in str(error), error
"""
    end = Step.ROLLED_BACK if ill else Step.CONFIRMED
    bench.ill = {TWO.checksum} if ill else set()
    with killing.killer(place, IMPORTS, program, bench.repo.path, str(root)) as killer:
        steps = killer.run()
        assert bench.journal.job is not None
        assert bench.journal.job.step is end
        # The other half of the steps is the other case's: most are the same.
        for at in range(2 if ill else 1, steps + 1, 2):
            shutil.rmtree(place)
            shutil.copytree(kept, place, symlinks=True)
            killer.run(at)
            assert assert_sound(root) in (ONE.checksum, TWO.checksum)
            job = bench.updater().go_on()
            assert job is None or job.ended, f"killed at step {at}"
            if job is not None and job.commit == TWO.checksum:
                assert job.step is end, f"killed at step {at}"
                expected = ONE if ill else TWO
                assert assert_sound(root) == expected.checksum
    assert steps > 40


def test_the_health_of_a_tree_is_that_of_its_programs(
    bench: Bench, tmp_path: Path
) -> None:
    checks = tmp_path / "health.d"
    checks.mkdir()
    (checks / "10-no").write_text("#!/bin/sh\necho broken; exit 1\n")
    (checks / "10-no").chmod(0o755)
    bench.checks = Health(directories=(str(checks),)).check
    with pytest.raises(UnhealthyError, match="ended with status 1: broken"):
        bench.deploy(ONE.checksum)
    assert "nothing to go back to" in bench.causes()


def test_who_may_not_reboot_leaves_that_to_who_may(system: BootBench) -> None:
    system.hold = ""
    system.does_check = False
    system.deploy(TWO.checksum)
    assert (system.steps()[-1], system.handed, system.asked) == ("rebooting", 1, 0)
    system.does_check = True
    system.updater().go_on()
    assert system.asked == 1


def test_while_another_process_is_at_it_nothing_is_done(system: BootBench) -> None:
    with (
        JournalFile(system.path).changing(timeout_seconds=0),
        pytest.raises(LockedError),
    ):
        system.updater().go_on()


# -- a boot loader that counts ---------------------------------------------------------


@pytest.fixture
def counted(system: BootBench, tmp_path: Path) -> Grub:
    """The environment block of that system's boot loader."""
    path = tmp_path / "grubenv"
    path.write_bytes(format_grubenv({}, where=""))
    system.counter = Grub(str(path))
    return system.counter


def test_a_system_whose_boots_nothing_counts_says_so(system: BootBench) -> None:
    assert system.journal.uncounted


def test_boots_are_counted_until_it_is_confirmed(
    system: BootBench, counted: Grub
) -> None:
    system.deploy(TWO.checksum)
    assert counted.is_armed()
    assert not system.journal.uncounted
    system.boot()
    system.updater().go_on()
    assert system.steps()[-1] == "confirmed"
    assert not counted.is_armed()


def test_what_does_not_start_is_gone_back_from_and_counted_no_more(
    system: BootBench, counted: Grub
) -> None:
    system.deploy(TWO.checksum)
    system.boots += 1  # the boot loader took the one before, which still runs
    system.updater().go_on()
    assert system.steps()[-1] == "rolled-back"
    assert "did not start" in system.causes()
    assert system.journal.bad == (TWO.checksum,)
    assert not counted.is_armed()


def test_what_is_ill_is_counted_until_the_way_back_is_there(
    system: BootBench, counted: Grub
) -> None:
    system.ill = {TWO.checksum}
    system.deploy(TWO.checksum)
    system.boot()
    system.updater().go_on()
    assert system.steps()[-1] == "rolling-back"
    assert not counted.is_armed()


def test_a_boot_loader_that_cannot_be_told_is_told_of(
    system: BootBench, tmp_path: Path
) -> None:
    system.counter = Grub(str(tmp_path / "none"))
    system.deploy(TWO.checksum)
    assert system.journal.job is not None
    assert system.journal.job.step is Step.DEPLOYED
    assert "GRUB was not told of the update" in system.causes()


def test_with_its_journal_lost_an_update_whose_boots_are_counted_is_found(
    system: BootBench, counted: Grub
) -> None:
    system.deploy(TWO.checksum)
    system.boot()
    Path(system.path).write_text("{")
    system.updater().go_on()
    assert system.steps() == ["None", "confirming", "confirmed"]
    assert not counted.is_armed()


def test_and_if_it_is_ill_it_is_gone_back_from(
    system: BootBench, counted: Grub
) -> None:
    system.ill = {TWO.checksum}
    system.deploy(TWO.checksum)
    system.boot()
    Path(system.path).write_text("{")
    system.updater().go_on()
    assert system.steps()[-1] == "rolling-back"
    system.boot()
    system.updater().go_on()
    assert (system.steps()[-1], Bootable.running) == ("rolled-back", ONE.checksum)


def test_with_no_boots_counted_nothing_is_made_of_a_lost_journal(
    system: BootBench, counted: Grub
) -> None:
    Path(system.path).write_text("{")
    system.updater().go_on()
    assert system.journal.job is None
