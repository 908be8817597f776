"""The service on a booted system: it updates it, and its agent may do little else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2p.agent.config import AgentConfig
from p2p.cli.local_api import ask
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from p2p.trust.keys import generate_key_pair
from tests.oracle import walk_objects
from tests.systemd.machine import ETC, ROOT, Machine, booted
from tests.trees import os_tree

pytestmark = pytest.mark.root

REF = "os/stable"
REFSPEC = f"hub:{REF}"
SERVICE = "ostree-p2p.service"
PORT = 8084
PRIVATE = "only for root\n"
CONFIG = f"""\
[share]
enabled = true

[neighbours]
mdns = false
listen = "127.0.0.1:28727"

[deploy]
{{deploy}}

[[follow]]
ref = "{REFSPEC}"
url = "http://127.0.0.1:{PORT}"
key = "/shared/keys/signing.pub"
deploy = true
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A system that runs the service, and the origin it follows."""

    machine: Machine

    def p2p(self, *command: str | Path) -> str:
        """Run a command on this machine, in its network."""
        done = subprocess.run(
            [
                *("nsenter", f"--target={self.machine.leader}", "--net", "--"),
                *(sys.executable, "-m", "p2p"),
                *command,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, tree: Path) -> str:
        """Publish a build; its commit."""
        work = self.machine.shared
        return self.p2p(
            "commit",
            f"--repo={work / 'origin'}",
            f"--branch={REF}",
            f"--sign-key={work / 'keys' / 'signing.key'}",
            tree,
        )

    def configure(self, deploy: str, repo: str | None = None) -> None:
        """Write the configuration and start the service with it."""
        text = CONFIG.format(deploy=deploy)
        if repo is not None:
            text = f'repo = "{repo}"\n{text}'
        self.machine.path(f"/{ETC}/agent.toml").write_text(text)
        self.restart()

    def restart(self) -> None:
        """Start the service anew, though tests do it oftener than systemd allows."""
        self.machine.run("systemctl", "reset-failed", SERVICE)
        self.machine.run("systemctl", "restart", SERVICE)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the agent over its socket."""
        socket = self.machine.path("/run/ostree-p2p/agent.sock")
        return ask(AgentConfig(repo="/", state="/", socket=str(socket)), path, body)

    def until(self, condition: Callable[[Any], bool]) -> Any:
        """Wait until the agent's status fulfils a condition; return it."""
        give_up = time.monotonic() + 60
        while True:
            status = self.ask("/status")
            if condition(status):
                return status
            if time.monotonic() > give_up:
                said = json.dumps(status, indent=1)
                raise AssertionError(f"never came: {said}\n{self.machine.journal()}")

    def until_updated(self, commit: str) -> Any:
        """Wait until the branch is at a commit and that is deployed."""
        return self.until(
            lambda status: (
                status["branches"][0]["commit"] == commit
                and status["branches"][0]["pull"] is None
            )
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One system for all tests of the module; each says what it is configured to."""
    tree = tmp_path_factory.mktemp("machine")
    work = tree / "work"
    work.mkdir()
    generate_key_pair(work / "keys")
    Repo.init(work / "origin", RepoMode.ARCHIVE)
    with booted(tree) as machine:
        server = [sys.executable, "-u", "-m", "http.server", str(PORT)]
        with subprocess.Popen(
            [
                *("nsenter", f"--target={machine.leader}", "--net", "--", *server),
                *("--bind=127.0.0.1", f"--directory={work / 'origin'}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert "Serving" in process.stdout.readline()
                yield Site(machine)
            finally:
                process.kill()


@pytest.fixture
def build(site: Site, tmp_path: Path) -> str:
    """A new commit with files that an ordinary user may not read; it is deployed."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/shadow").write_text(PRIVATE)
    (tree / "etc/shadow").chmod(0o600)
    (tree / "su").write_bytes(b"program")
    os.chown(tree / "su", 0, 8)
    (tree / "su").chmod(0o4755)
    commit = site.commit(tree)
    site.configure('tree = "/srv/app"')
    status = site.until_updated(commit)
    assert status["deployments"][0]["commit"] == commit
    return commit


def test_with_no_file_it_runs_and_does_nothing_yet(site: Site) -> None:
    config = site.machine.path(f"/{ETC}/agent.toml")
    config.unlink(missing_ok=True)
    site.restart()
    status = site.ask("/status")
    assert not status["enabled"]
    assert status["branches"] == status["deployments"] == []
    failed = site.machine.run(
        "systemctl", "list-units", "--failed", "--quiet", "ostree-p2p*"
    )
    assert failed == ""


def test_the_doctor_finds_nothing_wrong_with_it_whoever_asks(
    site: Site, build: str
) -> None:
    machine = site.machine
    group = machine.run("getent", "group", "ostree-p2p").split(":")[2]
    member = ["setpriv", "--reuid=nobody", "--regid=nogroup", f"--groups={group}"]
    for user in ([], member):
        said = json.loads(machine.run(*user, "p2p", "doctor", "--json"))
        found = {each["check"]: each["message"] for each in said["findings"]}
        assert said["counts"]["fail"] == 0, found
        assert found["writer"] == "/run/ostree-p2p/writer.sock"
        assert found["write"] == "by the writer"


def test_what_it_follows_is_deployed_as_it_is(site: Site, build: str) -> None:
    current = site.machine.path("/srv/app/current")
    deployed = current.parent / os.readlink(current)
    assert (deployed / "etc/shadow").read_text() == PRIVATE
    program = (deployed / "su").stat()
    assert (program.st_mode & 0o7777, program.st_uid, program.st_gid) == (0o4755, 0, 8)


def test_a_neighbour_is_given_what_only_root_may_read(
    site: Site, build: str, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    site.p2p("init", f"--repo={second}", "--mode=bare")
    key = site.machine.shared / "keys/signing.pub"
    site.p2p(
        *("remote", "add", f"--repo={second}", "hub", "http://127.0.0.1:1"),
        f"--sign-verify=ed25519=file:{key}",
    )
    site.p2p(
        *("pull", f"--repo={second}", "hub", REF, "--no-origin", "--no-mdns"),
        "--peer=127.0.0.1:28727",
    )
    assert Repo.open(second).resolve(REFSPEC) == build
    assert not walk_objects(second).problems


def test_a_writer_that_died_is_followed_by_another(
    site: Site, build: str, tmp_path: Path
) -> None:
    (tmp_path / "tree/new").write_text("more\n")
    commit = site.commit(tmp_path / "tree")
    site.machine.run("systemctl", "kill", "--signal=KILL", "ostree-p2p-writer@*")
    # The check that finds it dead fails, and is repeated a moment later.
    site.ask("/check", {})
    status = site.until_updated(commit)
    assert [d["commit"] for d in status["deployments"]] == [commit, build]


def test_a_read_only_sysroot_is_updated_for_the_next_boot(
    site: Site, tmp_path: Path
) -> None:
    machine = site.machine
    machine.path("/srv/sysroot").mkdir()
    machine.run("ostree", "admin", "init-fs", "--modern", "/srv/sysroot")
    machine.run("ostree", "admin", "--sysroot=/srv/sysroot", "os-init", "factory")
    machine.run("mount", "--bind", "/srv/sysroot", "/srv/sysroot")
    machine.run("mount", "-o", "remount,bind,ro", "/srv/sysroot")
    tree = tmp_path / "os"
    os_tree(tree, version="1")
    commit = site.commit(tree)
    deploy = 'sysroot = "/srv/sysroot"\nos = "factory"'
    site.configure(deploy, repo="/srv/sysroot/ostree/repo")
    status = site.until_updated(commit)
    assert [d["refspec"] for d in status["deployments"]] == [REFSPEC]
    listed = machine.run("ostree", "admin", "status", "--sysroot=/srv/sysroot")
    assert f"factory {commit}.0" in listed
    assert "Read-only" in machine.run("touch", "/srv/sysroot/new", check=False)


# -- what a taken agent could do -------------------------------------------------------

PROBE = """\
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
repo = "/var/lib/ostree-p2p/repo"

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def seen(what):
    # What is hidden is an empty file or directory for who may read everything.
    if not what:
        raise OSError(errno.ENOENT, "")

def secret():
    for directory, _, names in os.walk(repo + "/objects"):
        for name in names:
            path = directory + "/" + name
            if os.stat(path).st_mode & 0o777 == 0o600:
                return open(path).read()

tries = {
    "write its state": lambda: open("/var/lib/ostree-p2p/agent/probe", "w"),
    "read what it gives to neighbours": secret,
    "speak to the writer": lambda: socket.socket(socket.AF_UNIX).connect(
        "/run/ostree-p2p/writer.sock"),
    "write the repository": lambda: open(repo + "/config", "a"),
    "add to the repository": lambda: open(repo + "/objects/probe", "w"),
    "move the repository": lambda: os.rename(repo, repo + "-old"),
    "write what is deployed": lambda: open("/srv/app/current/new", "w"),
    "replace the writer": lambda: os.unlink("/run/ostree-p2p/writer.sock"),
    "write the configuration": lambda: open("/etc/ostree-p2p/agent.toml", "a"),
    "read passwords": lambda: seen(open("/etc/shadow").read()),
    "look at root's home": lambda: seen(os.listdir("/root")),
    "go around the paths": lambda: call("open_by_handle_at", -1, None, 0),
    "become root": lambda: os.setuid(0),
    "make namespaces": lambda: call("unshare", 0x10000000),
    "listen to the whole network": lambda: socket.socket(socket.AF_PACKET),
}
said = {}
for name, attempt in tries.items():
    try:
        attempt()
        said[name] = "can"
    except OSError as error:
        said[name] = errno.errorcode[error.errno]
print(json.dumps(said))
"""


def sandboxed(site: Site, unit: str, program: str) -> Any:
    """Run a program with all that a unit says; the JSON it prints."""
    machine = site.machine
    (machine.shared / "probe.py").write_text(program)
    text = machine.path(f"/etc/systemd/system/{unit}").read_text()
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith(("ExecStart=", "Type=", "Restart", "Standard"))
    ]
    place = lines.index("[Service]") + 1
    lines[place:place] = [
        "Type=oneshot",
        f"ExecStart={machine.python} /shared/probe.py",
        "Environment=PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib",
        "StandardOutput=truncate:/shared/probe.json",
    ]
    machine.path("/run/systemd/system/probe.service").write_text("\n".join(lines))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe.service")
    return json.loads((machine.shared / "probe.json").read_text())


def test_a_taken_agent_can_speak_and_keep_its_state_and_nothing_else(
    site: Site, build: str
) -> None:
    (site.machine.path("/root") / "private").touch()
    said = sandboxed(site, SERVICE, PROBE)
    assert {name for name, result in said.items() if result == "can"} == {
        "write its state",
        "read what it gives to neighbours",
        "speak to the writer",
    }
    assert said["go around the paths"] == "EPERM"


def test_a_writer_has_no_network(site: Site) -> None:
    program = (
        "import json, os, socket\n"
        "try: said = str(socket.socket(socket.AF_INET))\n"
        "except OSError as error: said = error.strerror\n"
        "print(json.dumps([os.readlink('/proc/self/ns/net'), said]))\n"
    )
    network, said = sandboxed(site, "ostree-p2p-writer@.service", program)
    assert network != site.machine.run("readlink", "/proc/self/ns/net").strip()
    assert said == "Address family not supported by protocol"


def test_only_members_of_the_group_may_command_it(site: Site) -> None:
    machine = site.machine
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup"]
    refused = machine.run(*user, "--clear-groups", "p2p", "status", check=False)
    assert "this user may not command the agent" in refused
    group = machine.run("getent", "group", "ostree-p2p").split(":")[2]
    said = machine.run(*user, f"--groups={group}", "p2p", "status")
    assert said.startswith("repository")


def test_what_was_updated_is_confirmed_by_its_service(site: Site, build: str) -> None:
    steps = [event["step"] for event in site.ask("/history", {})["events"]]
    assert steps[-5:] == ["plan", "fetched", "deployed", "confirming", "confirmed"]
    site.machine.run("systemctl", "start", "ostree-p2p-confirm.service")
    said = site.machine.run(
        *("journalctl", "-o", "cat", "-u", "ostree-p2p-confirm.service")
    )
    assert f"confirmed  {build}" in said


def test_an_update_that_is_ill_is_gone_back_from(
    site: Site, build: str, tmp_path: Path
) -> None:
    check = site.machine.path(f"/{ETC}/health.d/10-version")
    check.parent.mkdir(exist_ok=True)
    check.write_text("#!/bin/sh\necho no such version; exit 1\n")
    check.chmod(0o755)
    try:
        tree = tmp_path / "ill"
        tree.mkdir()
        (tree / "version").write_text("ill\n")
        ill = site.commit(tree)
        site.ask("/check", {"refspec": REFSPEC})
        status = site.until(
            lambda status: (
                status["update"]["commit"] == ill and status["update"]["ended"]
            )
        )
        assert status["update"]["step"] == "rolled-back"
        assert "no such version" in status["update"]["cause"]
        assert status["deployments"][0]["commit"] == build
        site.until(lambda status: status["branches"][0]["pull"] is None)
        # Another check does not try it again.
        before = len(site.ask("/history", {})["events"])
        site.ask("/check", {"refspec": REFSPEC})
        site.until(lambda status: status["branches"][0]["failures"] == 0)
        assert len(site.ask("/history", {})["events"]) == before
        assert site.ask("/history", {})["bad"] == [ill]
    finally:
        check.unlink()
