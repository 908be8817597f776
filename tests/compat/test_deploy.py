"""Deploying into a sysroot with the real `ostree admin`, on a loop file system."""

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from p2p.agent.writing import open_process_writer
from p2p.cli.main import main
from p2p.deploy.boot_room import check_boot_room
from p2p.deploy.deployment import Deployment, State
from p2p.deploy.journal import Journal
from p2p.deploy.journal_file import JournalFile
from p2p.deploy.machine import Job, Step
from p2p.deploy.sysroot import SysrootDeployer
from p2p.deploy.target import SysrootTarget, journal_of, open_updater
from p2p.deploy.updater import Means, Updater
from p2p.deploy.verify import verify_deployable
from p2p.errors import ConfigError, DeployError, NoSpaceError
from p2p.ostree.gvariant import Variant
from p2p.ostree.messages import Deploy, Rollback
from p2p.ostree.objects import Checksum, serialize_metadata
from p2p.ostree.refs import remote_ref
from p2p.ostree.repo import Repo
from tests.compat.sysroots import make_sysroot
from tests.deploy.test_others import ORIGINS
from tests.mounts import mount_loop_ext4, mount_tmpfs
from tests.oracle import Ostree
from tests.require import require
from tests.trees import MIB, small_tree

pytestmark = pytest.mark.root

REFSPEC = "o:main"
MAIN = remote_ref("o", "main")
NO_PYTHON = "/nowhere/python3"


class Sysroot:
    """A system with three commits of one branch, none of which is deployed."""

    def __init__(self, root: Path, commits: tuple[Checksum, ...]) -> None:
        self.root = root
        self.stock = Ostree(root / "ostree/repo")
        self.commits = commits

    @property
    def repo(self) -> Repo:
        return Repo.open(self.stock.repo)

    def deployer(self, **options: str) -> SysrootDeployer:
        return SysrootDeployer(self.repo, self.root, "tree", **options)

    def name(self, number: int) -> Checksum:
        """Have the ref name a commit."""
        self.repo.refs.set(MAIN, self.commits[number])
        return self.commits[number]

    def deploy(self, *numbers: int) -> None:
        for number in numbers:
            self.deployer().deploy(REFSPEC, self.name(number))

    def admin(self, verb: str, *arguments: str) -> str:
        return self.stock.admin(verb, f"--sysroot={self.root}", *arguments)

    def status(self) -> list[tuple[str, str]]:
        """Ids and refspecs as `ostree admin status` prints them."""
        lines = self.admin("status").splitlines()
        ids = [word for line in lines for word in line.split() if ".0" in word[-3:]]
        specs = [line.split()[-1] for line in lines if "origin refspec" in line]
        return list(zip(ids, specs, strict=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sysroot]:
    """One file system for all tests of the module; `sysroot` makes it fresh."""
    require("ostree", "loop", "mkfs.ext4")
    work = tmp_path_factory.mktemp("sysroot")
    with mount_loop_ext4(work, 256 * MIB) as root:
        yield Sysroot(root, make_sysroot(root, work))


@pytest.fixture
def sysroot(made: Sysroot) -> Sysroot:
    """The system with nothing deployed."""
    while made.admin("status").strip() not in {"", "No deployments."}:
        index = made.admin("status").count("origin refspec") - 1
        if "Pinned" in made.admin("status"):
            made.admin("pin", "--unpin", *map(str, range(index + 1)))
        made.admin("undeploy", str(index))
    made.repo.refs.delete(MAIN)
    return made


def states(deployments: tuple[Deployment, ...]) -> list[tuple[State, Checksum]]:
    return [(each.state, each.commit) for each in deployments]


# -- deploying -------------------------------------------------------------------


def test_an_empty_sysroot_has_no_deployments(sysroot: Sysroot) -> None:
    assert sysroot.deployer().list() == ()


def test_a_deployment_follows_its_refspec_and_is_what_ostree_lists(
    sysroot: Sysroot,
) -> None:
    commit = sysroot.name(0)
    outcome = sysroot.deployer().deploy(REFSPEC, commit)
    assert outcome.changed
    assert sysroot.status() == [(f"{commit}.0", REFSPEC)]
    (only,) = sysroot.deployer().list()
    assert only == outcome.deployment
    assert (only.commit, only.refspec) == (commit, REFSPEC)
    assert (only.state, only.pinned) == (State.CURRENT, False)
    assert Path(only.path, "etc/hostname").read_text() == "tree\n"
    assert only.time is not None


def test_what_is_the_default_already_is_left_and_said_to_be_so(
    sysroot: Sysroot,
) -> None:
    sysroot.deploy(0)
    outcome = sysroot.deployer().deploy(REFSPEC, sysroot.commits[0])
    assert not outcome.changed
    assert outcome.deployment.id == f"{sysroot.commits[0]}.0"
    assert len(sysroot.status()) == 1


def test_the_default_comes_first_and_the_one_before_is_kept(sysroot: Sysroot) -> None:
    sysroot.deploy(0, 1, 2)
    _, one, two = sysroot.commits
    expected = [(State.CURRENT, two), (State.PREVIOUS, one)]
    assert states(sysroot.deployer().list()) == expected
    assert [spec for _, spec in sysroot.status()] == [REFSPEC, REFSPEC]


def test_pins_and_other_stateroots_are_seen(sysroot: Sysroot) -> None:
    sysroot.deploy(0)
    sysroot.admin("pin", "0")
    if not (sysroot.root / "ostree/deploy/other").exists():
        sysroot.admin("os-init", "other")
    try:
        other = SysrootDeployer(sysroot.repo, sysroot.root, "other")
        other.deploy(REFSPEC, sysroot.name(1))
        zero, one, _ = sysroot.commits
        found = sysroot.deployer().list()
        assert states(found) == [(State.CURRENT, zero), (State.OTHER, one)]
        assert [each.pinned for each in found] == [True, False]
        assert states(other.list()) == [(State.CURRENT, one), (State.OTHER, zero)]
        with pytest.raises(ConfigError, match="other, tree"):
            SysrootDeployer(sysroot.repo, sysroot.root).list()
    finally:
        sysroot.admin("undeploy", "0")
        shutil.rmtree(sysroot.root / "ostree/deploy/other")


def test_a_ref_that_names_another_commit_is_not_deployed(sysroot: Sysroot) -> None:
    sysroot.deploy(0)
    sysroot.name(1)
    with pytest.raises(DeployError, match=sysroot.commits[1]):
        sysroot.deployer().deploy(REFSPEC, sysroot.commits[2])
    assert sysroot.status() == [(f"{sysroot.commits[0]}.0", REFSPEC)]


def wrapper(path: Path, before: str) -> str:
    """A program that does something before every `ostree admin deploy`."""
    ostree = shutil.which("ostree")
    script = f'#!/bin/sh\n[ "$2" = deploy ] && {{ {before}; }}\nexec {ostree} "$@"\n'
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def test_a_ref_that_moves_meanwhile_is_undone(sysroot: Sysroot, tmp_path: Path) -> None:
    sysroot.deploy(0)
    before = sysroot.status()
    ref = sysroot.stock.repo / "refs" / MAIN
    command = wrapper(tmp_path / "ostree", f"echo {sysroot.commits[2]} > {ref}")
    commit = sysroot.name(1)
    with pytest.raises(DeployError, match="changed while it was deployed"):
        sysroot.deployer(command=command).deploy(REFSPEC, commit)
    assert sysroot.status() == before


def test_a_failure_behind_the_change_is_told_and_no_failure(
    sysroot: Sysroot, tmp_path: Path
) -> None:
    """`ostree` deploys and cannot clear up, as with a repository that is locked."""
    command = tmp_path / "ostree"
    command.write_text(
        '#!/bin/sh\nostree "$@" || exit\n'
        '[ "$2" != deploy ] || { echo "error: cleaning up" >&2; exit 1; }\n'
    )
    command.chmod(0o755)
    outcome = sysroot.deployer(command=str(command)).deploy(REFSPEC, sysroot.name(0))
    assert outcome.changed
    assert "cleaning up" in outcome.notes[0]


def test_what_ostree_says_is_in_the_error(sysroot: Sysroot, tmp_path: Path) -> None:
    sysroot.deploy(0)
    small_tree(tmp_path / "tree")
    commit = sysroot.stock.commit(tmp_path / "tree", "no-system")
    sysroot.repo.refs.set(MAIN, Checksum(commit))
    with pytest.raises(DeployError, match="kernel") as caught:
        sysroot.deployer().deploy(REFSPEC, Checksum(commit))
    assert "ostree admin deploy" in str(caught.value)
    assert len(sysroot.status()) == 1


def test_a_stateroot_that_is_not_there_is_refused_before_anything(
    sysroot: Sysroot,
) -> None:
    commit = sysroot.name(0)
    deployer = SysrootDeployer(sysroot.repo, sysroot.root, "nowhere")
    with pytest.raises(ConfigError, match="stateroots tree"):
        deployer.deploy(REFSPEC, commit)
    assert not (sysroot.root / "ostree/deploy/nowhere").exists()


def test_pins_are_ostrees(sysroot: Sysroot) -> None:
    sysroot.deploy(0)
    deployer = sysroot.deployer()
    first = f"{sysroot.commits[0]}.0"
    outcome = deployer.pin(first)
    assert (outcome.changed, outcome.deployment.pinned) == (True, True)
    assert "Pinned: yes" in sysroot.admin("status")
    assert not deployer.pin(first).changed
    sysroot.deploy(1, 2)
    assert first in [each.id for each in deployer.list()]
    assert not deployer.pin(first, pinned=False).deployment.pinned
    assert "Pinned: yes" not in sysroot.admin("status")
    with pytest.raises(DeployError, match="no deployment"):
        deployer.pin("nothing")


# -- rolling back --------------------------------------------------------------------


def set_default(path: Path) -> str:
    """An `ostree` of a newer release: it has `admin set-default`."""
    program = path.parent / "set_default.py"
    program.write_text(
        "import sys\n"
        "import gi\n"
        "gi.require_version('OSTree', '1.0')\n"
        "from gi.repository import Gio, OSTree\n"
        "root = sys.argv[1].removeprefix('--sysroot=')\n"
        "sysroot = OSTree.Sysroot.new(Gio.File.new_for_path(root))\n"
        "sysroot.load()\n"
        "order = sysroot.get_deployments()\n"
        "order.insert(0, order.pop(int(sys.argv[2])))\n"
        "sysroot.write_deployments(order)\n"
    )
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '"admin --help") ostree admin --help; echo "  set-default   Sets it";;\n'
        f'"admin set-default "*) shift 2; exec /usr/bin/python3 {program} "$@";;\n'
        '*) exec ostree "$@";;\nesac\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def older(tmp_path: Path) -> str:
    """An `ostree` without `admin set-default`, as 2022.7 is; newer ones have it."""
    path = tmp_path / "older-ostree"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$*" = "admin --help" ]; then ostree admin --help | grep -v set-default\n'
        'else exec ostree "$@"; fi\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("way", ["binding", "set-default"])
def test_a_rollback_swaps_the_two_and_another_swaps_them_back(
    sysroot: Sysroot, tmp_path: Path, older: str, way: str
) -> None:
    require("gi")
    sysroot.deploy(0, 1)
    zero, one, _ = sysroot.commits
    if way == "binding":
        deployer = sysroot.deployer(command=older)
    else:
        newer = set_default(tmp_path / "ostree")
        deployer = sysroot.deployer(python=NO_PYTHON, command=newer)
    outcome = deployer.rollback()
    assert (outcome.changed, outcome.notes) == (True, ())
    assert outcome.deployment.id == f"{zero}.0"
    assert states(deployer.list()) == [(State.CURRENT, zero), (State.PREVIOUS, one)]
    assert deployer.rollback().deployment.commit == one
    assert sysroot.status() == [(f"{one}.0", REFSPEC), (f"{zero}.0", REFSPEC)]


def test_where_nothing_else_helps_what_is_in_front_is_taken_away(
    sysroot: Sysroot, older: str
) -> None:
    sysroot.deploy(0, 1)
    outcome = sysroot.deployer(python=NO_PYTHON, command=older).rollback()
    assert sysroot.commits[1] in outcome.notes[0]
    assert sysroot.status() == [(f"{sysroot.commits[0]}.0", REFSPEC)]


def test_what_the_binding_says_is_in_the_error(
    sysroot: Sysroot, older: str, tmp_path: Path
) -> None:
    sysroot.deploy(0, 1)
    before = sysroot.status()
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho no such sysroot >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(DeployError, match="no such sysroot"):
        sysroot.deployer(python=str(python), command=older).rollback()
    assert sysroot.status() == before


def test_without_another_deployment_there_is_no_rollback(sysroot: Sysroot) -> None:
    for numbers in ((), (0,)):
        sysroot.deploy(*numbers)
        with pytest.raises(DeployError, match="no other deployment"):
            sysroot.deployer().rollback()
    assert len(sysroot.status()) == 1


# -- a system that runs ----------------------------------------------------------------


@pytest.fixture
def boot(sysroot: Sysroot) -> Callable[[int], str]:
    """Call it for a root that runs the deployment of that index, as seen from here."""

    def run(index: int) -> str:
        path = sysroot.deployer().list()[index].path
        Path(path, "run/ostree").mkdir(parents=True)
        Path(path, "run/ostree-booted").touch()
        return path

    return run


def test_what_runs_is_current_and_what_is_in_front_is_pending(
    sysroot: Sysroot, boot: Callable[[int], str]
) -> None:
    sysroot.deploy(0, 1)
    zero, one, _ = sysroot.commits
    running = boot(1)
    deployer = sysroot.deployer(running_root=running)
    assert states(deployer.list()) == [(State.PENDING, one), (State.CURRENT, zero)]
    running = boot(0)
    deployer = sysroot.deployer(running_root=running)
    assert states(deployer.list()) == [(State.CURRENT, one), (State.PREVIOUS, zero)]


def test_the_device_and_inode_behind_a_composefs_root_count(sysroot: Sysroot) -> None:
    sysroot.deploy(0, 1)
    behind = os.stat(sysroot.deployer().list()[1].path)
    root = sysroot.root / "composed"
    (root / "run").mkdir(parents=True)
    value = Variant("(tt)", (behind.st_dev, behind.st_ino))
    data = serialize_metadata((("backing-root-device-inode", value),))
    (root / "run/ostree-booted").write_bytes(data)
    found = sysroot.deployer(running_root=str(root)).list()
    assert [each.state for each in found] == [State.PENDING, State.CURRENT]
    shutil.rmtree(root)


def test_what_runs_is_deployed_again_where_that_is_the_only_way_back(
    sysroot: Sysroot, boot: Callable[[int], str], older: str
) -> None:
    sysroot.deploy(0, 1)
    zero, _, _ = sysroot.commits
    running = boot(0)
    deployer = sysroot.deployer(python=NO_PYTHON, command=older, running_root=running)
    outcome = deployer.rollback()
    assert "/etc" in outcome.notes[0]
    assert outcome.deployment.state is State.PENDING
    assert outcome.deployment.id == f"{zero}.1"
    assert outcome.deployment.refspec == REFSPEC


def stage(running: str, system: str, name: str) -> None:
    names = (("name", Variant("s", name)), ("osname", Variant("s", system)))
    data = serialize_metadata((("target", Variant("a{sv}", names)),))
    Path(running, "run/ostree/staged-deployment").write_bytes(data)


def test_what_another_updater_staged_is_pending_and_never_dropped(
    sysroot: Sysroot, boot: Callable[[int], str]
) -> None:
    sysroot.deploy(0)
    zero, one, _ = sysroot.commits
    running = boot(0)
    stage(running, "tree", f"{one}.0")
    deployer = sysroot.deployer(running_root=running)
    assert states(deployer.list()) == [(State.PENDING, one), (State.CURRENT, zero)]
    assert not deployer.deploy(REFSPEC, sysroot.name(1)).changed
    with pytest.raises(DeployError, match="staged"):
        deployer.deploy(REFSPEC, sysroot.name(2))
    with pytest.raises(DeployError, match="staged"):
        deployer.rollback()
    assert sysroot.status() == [(f"{zero}.0", REFSPEC)]


@pytest.mark.parametrize(
    "system, name", [("../..", f"{'a' * 64}.0"), ("tree", "x"), ("", "")]
)
def test_a_staged_deployment_that_is_none_is_said_to_be_broken(
    sysroot: Sysroot, boot: Callable[[int], str], system: str, name: str
) -> None:
    sysroot.deploy(0)
    running = boot(0)
    stage(running, system, name)
    with pytest.raises(DeployError, match="names no deployment"):
        sysroot.deployer(running_root=running).list()


@pytest.mark.parametrize("data", [b"not a dictionary", b"x", b"\0" * 7])
def test_a_staged_deployment_that_cannot_be_read_is_said_to_be_broken(
    sysroot: Sysroot, boot: Callable[[int], str], data: bytes
) -> None:
    sysroot.deploy(0)
    running = boot(0)
    Path(running, "run/ostree/staged-deployment").write_bytes(data)
    with pytest.raises(DeployError, match="staged-deployment"):
        sysroot.deployer(running_root=running).list()


@pytest.mark.parametrize("name", ORIGINS)
def test_a_system_that_another_tool_deploys_is_left_alone(
    sysroot: Sysroot, name: str
) -> None:
    sysroot.deploy(0)
    origin = Path(f"{sysroot.deployer().list()[0].path}.origin")
    old = origin.read_text()
    origin.write_text(ORIGINS[name])
    assert sysroot.deployer().claim()
    with pytest.raises(DeployError, match=r"container image|rpm-ostree"):
        sysroot.deployer().deploy(REFSPEC, sysroot.name(1))
    origin.write_text(old)


# -- what is wrong with a sysroot ------------------------------------------------------


def test_a_directory_that_is_no_sysroot_is_refused(
    sysroot: Sysroot, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="not an OSTree sysroot"):
        SysrootDeployer(sysroot.repo, tmp_path, "tree")
    other = Ostree.init(tmp_path / "repo", "bare")
    with pytest.raises(ConfigError, match="not the repository of"):
        SysrootDeployer(Repo.open(other.repo), sysroot.root, "tree")


def test_boot_entries_that_lead_nowhere_are_said_to(sysroot: Sysroot) -> None:
    sysroot.deploy(0)
    entry = next((sysroot.root / "boot/loader/entries").glob("*.conf"))
    old = entry.read_text()
    try:
        entry.write_text(old.replace("ostree=/ostree/", "ostree=/nowhere/"))
        with pytest.raises(DeployError, match="leads nowhere"):
            sysroot.deployer().list()
        entry.write_text(old.replace("ostree=/ostree/", "ostree=/boot/../x"))
        with pytest.raises(DeployError, match="leads nowhere"):
            sysroot.deployer().list()
        entry.write_text(old.replace("ostree=/ostree/", "ostree=/boot #"))
        with pytest.raises(DeployError, match="leads to no deployment"):
            sysroot.deployer().list()
        entry.write_text("title nothing\n")
        with pytest.raises(DeployError, match="not a boot entry"):
            sysroot.deployer().list()
    finally:
        entry.write_text(old)


def test_a_program_that_is_missing_or_too_old_is_said_to_be(
    sysroot: Sysroot, tmp_path: Path
) -> None:
    commit = sysroot.name(0)
    with pytest.raises(DeployError, match="cannot be run") as caught:
        sysroot.deployer(command="/nowhere/ostree").deploy(REFSPEC, commit)
    assert "Install" in caught.value.hint
    for says, expected in (("Version: '2019.1'", "2019.1"), ("hello", "no version")):
        program = tmp_path / "ostree"
        program.write_text(f'#!/bin/sh\necho "{says}"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        with pytest.raises(DeployError, match=expected):
            sysroot.deployer(command=str(program)).deploy(REFSPEC, commit)
    assert sysroot.deployer().list() == ()


# -- through the writer ----------------------------------------------------------------


async def test_a_writer_process_deploys_into_the_sysroot_it_was_given(
    sysroot: Sysroot,
) -> None:
    target = SysrootTarget(str(sysroot.root), "tree")
    async with open_process_writer(str(sysroot.stock.repo), target=target) as writer:
        for number in (0, 1):
            done = await writer.call(Deploy(REFSPEC, sysroot.name(number)))
            assert done.deployed is not None
            assert done.deployed.changed
        await writer.call(Rollback())
    assert sysroot.status()[0] == (f"{sysroot.commits[0]}.0", REFSPEC)
    sysroot.stock.fsck()


def test_the_commands_find_the_repository_of_a_sysroot(
    sysroot: Sysroot, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [f"--sysroot={sysroot.root}", "--os=tree"]
    for number in (0, 1):
        sysroot.name(number)
        assert main(["deploy", REFSPEC, *place]) == 0
    assert main(["rollback", *place]) == 0
    capsys.readouterr()
    assert main(["deployments", *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    zero, one, _ = sysroot.commits
    assert [line.split()[:3] for line in lines] == [
        ["current", f"{zero}.0", REFSPEC],
        ["previous", f"{one}.0", REFSPEC],
    ]


# -- /boot -----------------------------------------------------------------------------


@contextlib.contextmanager
def small_boot(sysroot: Sysroot, work: Path, size: int) -> Iterator[None]:
    """The sysroot with a /boot of its own, that has so much room."""
    with mount_tmpfs(work, size) as small:
        shutil.copytree(sysroot.root / "boot", small, symlinks=True, dirs_exist_ok=True)
        boot = sysroot.root / "boot"
        subprocess.run(["mount", "--bind", small, boot], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", boot], check=True)


def test_a_boot_that_is_too_small_for_another_kernel_is_said_so_before_anything(
    sysroot: Sysroot, tmp_path: Path
) -> None:
    sysroot.deploy(0)
    before = sysroot.status()
    with small_boot(sysroot, tmp_path, MIB):
        with pytest.raises(NoSpaceError, match=r"the kernel of .* needs 1 MiB, and 0"):
            sysroot.deploy(1)
        assert sysroot.status() == before


def test_a_kernel_that_is_there_needs_no_room(sysroot: Sysroot, tmp_path: Path) -> None:
    sysroot.deploy(0)
    with small_boot(sysroot, tmp_path, MIB):
        commit = sysroot.commits[0]
        check_boot_room(sysroot.repo, commit, {commit}, str(sysroot.root))
        with pytest.raises(NoSpaceError):
            check_boot_room(sysroot.repo, commit, set(), str(sysroot.root))


# -- an update, from the wish to its end -----------------------------------------------


@pytest.mark.parametrize("ill", [False, True], ids=["healthy", "ill"])
def test_an_update_is_booted_and_confirmed_or_gone_back_from(
    sysroot: Sysroot, boot: Callable[[int], str], tmp_path: Path, ill: bool
) -> None:
    """Boots are played; all else is real, also the way back."""
    boots: list[str] = []

    def updater() -> Updater:
        means = Means(
            verify=partial(verify_deployable, sysroot.repo),
            check=lambda _: "it is ill" if ill else "",
            hold=lambda: "",
            reboot=lambda: asked.append(len(boots)),
            boot=lambda: str(len(boots)),
        )
        place = sysroot.deployer(running_root=boots[-1])
        return Updater(place, JournalFile(str(tmp_path / "journal")), means)

    asked: list[int] = []
    sysroot.deploy(0)
    zero, one, _ = sysroot.commits
    boots.append(boot(0))
    updater().deploy(REFSPEC, sysroot.name(1))
    assert asked == [1]
    assert sysroot.status()[0] == (f"{one}.0", REFSPEC)
    boots.append(sysroot.deployer().list()[0].path)
    Path(boots[-1], "run").mkdir(exist_ok=True)
    Path(boots[-1], "run/ostree-booted").touch()
    job = updater().go_on()
    assert job is not None
    if not ill:
        assert (job.step, asked) == (Step.CONFIRMED, [1])
        return
    assert (job.step, asked) == (Step.ROLLING_BACK, [1, 2])
    # 2022.7 has no `set-default`; either way its origin is as it was.
    assert sysroot.status()[0][0].startswith(zero)
    assert sysroot.status()[0][1] == REFSPEC
    boots.append(boots[0])
    job = updater().go_on()
    assert job is not None
    assert (job.step, asked, job.bad) == (Step.ROLLED_BACK, [1, 2], True)


def test_a_system_that_a_killed_ostree_left_frozen_is_thawed(
    sysroot: Sysroot,
) -> None:
    require("fsfreeze")
    target = SysrootTarget(str(sysroot.root), "tree")
    file = JournalFile(journal_of(sysroot.repo, target))
    commit = sysroot.name(0)
    job = Job(refspec=REFSPEC, commit=commit, before=None, step=Step.FETCHED)
    with file.changing(timeout_seconds=0):
        file.save(Journal().with_job(job, time=0.0))
    subprocess.run(["fsfreeze", "--freeze", sysroot.root], check=True)
    try:
        updater = open_updater(sysroot.repo, target)
    finally:
        left = subprocess.run(["fsfreeze", "--unfreeze", sysroot.root], check=False)
    assert left.returncode != 0  # it was not frozen any more
    done = updater.go_on()
    assert done is not None
    assert done.step is Step.DEPLOYED
