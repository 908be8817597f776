"""Each check of `p2p doctor` by itself, over plain facts."""

import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from p2p import __version__
from p2p.agent.config import AgentConfig, Fleet
from p2p.agent.doctor import membership, network, storage, system
from p2p.agent.doctor.finding import Finding, Level
from p2p.agent.doctor.running import check_agent
from p2p.deploy.others import active_updaters
from p2p.deploy.target import SysrootTarget, Target, TreeTarget
from p2p.errors import AgentError
from p2p.net.identity import DEVICE_FILE, open_identity
from p2p.net.interfaces import Choice
from p2p.ostree.config import RepoMode
from p2p.ostree.repo import Repo
from p2p.trust.clock import RELEASED
from p2p.trust.policy import Clock
from tests.net.lan import interface
from tests.net.pki import FAR_AHEAD, LONG_AGO, NOW, Authority
from tests.unprivileged import make_unprivileged

OK, WARN, FAIL = Level.OK, Level.WARN, Level.FAIL


def is_ok(finding: Finding, said: str) -> None:
    assert (finding.level, finding.remedy) == (OK, "")
    assert said in finding.message


def is_bad(finding: Finding, level: Level, said: str, remedy: str) -> None:
    assert finding.level is level
    assert said in finding.message
    assert remedy in finding.remedy


# -- the machine ---------------------------------------------------------------------


def test_a_clock_before_what_has_passed_is_wrong() -> None:
    finding = system.check_clock(86400, RELEASED, synchronised=True)
    is_bad(finding, FAIL, "1970-01-02", "Set the clock")
    finding = system.check_clock(RELEASED, RELEASED, synchronised=False)
    is_bad(finding, WARN, "synchronised with no other", "Set the clock")
    is_ok(system.check_clock(RELEASED, RELEASED, synchronised=True), ", synchronised")
    is_ok(system.check_clock(RELEASED, RELEASED, synchronised=None), "2026-")


def test_the_kernel_says_something_of_its_clock() -> None:
    assert system.is_clock_synchronised() in (True, False, None)


def test_other_updaters_are_found_by_their_units(tmp_path: Path) -> None:
    assert active_updaters(str(tmp_path)) == []
    units = tmp_path / "run/systemd/units"
    units.mkdir(parents=True)
    (units / "invocation:zincati.service").symlink_to("0123")
    wants = tmp_path / "etc/systemd/system/timers.target.wants"
    wants.mkdir(parents=True)
    (wants / "bootc-fetch-apply-updates.timer").symlink_to("/nowhere")
    assert active_updaters(str(tmp_path)) == ["bootc", "zincati"]


@pytest.mark.parametrize("target", [None, TreeTarget("/run/app")])
def test_beside_another_updater_commits_are_only_fetched(target: Target | None) -> None:
    is_ok(system.check_updaters(["zincati"], target), "zincati deploys; commits are")
    is_ok(system.check_container("ostree-image:x", target), "ostree-image:x")


def test_two_must_not_deploy_into_one_system() -> None:
    target = SysrootTarget("/")
    finding = system.check_updaters(["aktualizr"], target)
    is_bad(finding, WARN, "aktualizr", "remove [deploy]")
    finding = system.check_container("ostree-image:x", target)
    is_bad(finding, FAIL, "ostree-image:x", "bootc")
    is_ok(system.check_updaters([], target), "no other")
    is_ok(system.check_container(None, target), "no container")


def test_the_container_image_of_a_system_is_found(tmp_path: Path) -> None:
    assert system.container_image(str(tmp_path)) is None
    deployment = tmp_path / f"ostree/deploy/os/deploy/{'a' * 64}.0"
    deployment.mkdir(parents=True)
    entries = tmp_path / "boot/loader/entries"
    entries.mkdir(parents=True)
    place = f"/{deployment.relative_to(tmp_path)}"
    (entries / "ostree-1-os.conf").write_text(f"version 1\noptions ostree={place}\n")
    assert system.container_image(str(tmp_path)) is None
    origin = Path(f"{deployment}.origin")
    origin.write_text("[origin]\ncontainer-image-reference=ostree-image:x\n")
    assert system.container_image(str(tmp_path)) == "ostree-image:x"


def test_ostree_must_be_there_and_not_too_old(tmp_path: Path) -> None:
    program = tmp_path / "ostree"
    is_bad(system.check_ostree("/", str(program)), FAIL, "cannot be run", "Install the")
    program.write_text("#!/bin/sh\necho \"Version: '2020.1'\"\n")
    program.chmod(0o755)
    is_bad(system.check_ostree("/", str(program)), FAIL, "2020.1", "newer ostree")
    program.write_text("#!/bin/sh\necho \"Version: '2024.10'\"\n")
    is_ok(system.check_ostree("/", str(program)), "2024.10")


# -- the network ---------------------------------------------------------------------

ETHERNET = interface(2, "192.0.2.1/24", name="eth0")
LOOPBACK = replace(interface(1, "127.0.0.1/8", name="lo"), flags=0x49)
WIREGUARD = replace(interface(3, "10.9.0.1/24", name="wg0"), kind="wireguard")


def test_interfaces_are_named_with_why_others_are_not() -> None:
    finding = network.check_interfaces((ETHERNET, LOOPBACK, WIREGUARD), Choice())
    is_ok(finding, f"{ETHERNET.name} (")
    assert "not lo (it is the loopback)" in finding.message
    assert f"not {WIREGUARD.name} (it is a tunnel" in finding.message


def test_without_an_interface_neighbours_must_be_named() -> None:
    finding = network.check_interfaces((LOOPBACK,), Choice())
    is_bad(finding, WARN, "none; not lo", "`peers`")
    finding = network.check_interfaces((LOOPBACK,), Choice(only=("eth*",)))
    is_bad(finding, FAIL, "none; not lo (others are configured)", "correct it")


def udp(*options: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_the_port_of_mdns_must_be_shared_by_who_has_it() -> None:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with udp(option) as sock:
            finding = network.check_shareable(sock.getsockname()[1])
            is_ok(finding, "can be shared")
    with udp() as sock:
        finding = network.check_shareable(sock.getsockname()[1])
        is_bad(finding, FAIL, "already in use", "ss -ulpn")


def test_the_port_for_neighbours_is_free_or_the_agents() -> None:
    is_ok(network.check_port("", 0, None), "the system chooses")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        is_bad(network.check_port("127.0.0.1", port, None), FAIL, "in use", "ss -tlpn")
        is_ok(
            network.check_port("127.0.0.1", port, port), f"listens on TCP port {port}"
        )
    is_ok(network.check_port("127.0.0.1", port, None), "is free")
    finding = network.check_port("192.0.2.77", port, None)
    is_bad(finding, FAIL, "192.0.2.77", "an address of this machine")


def ruleset(*rules: list[Any], policy: str = "accept") -> dict[str, Any]:
    place = {"family": "inet", "table": "filter"}
    chain = {**place, "name": "input", "hook": "input", "policy": policy}
    written = [{"rule": {**place, "chain": "input", "expr": rule}} for rule in rules]
    return {"nftables": [{"metainfo": {}}, {"chain": chain}, *written]}


def accept(protocol: str, right: Any) -> list[Any]:
    left = {"payload": {"protocol": protocol, "field": "dport"}}
    match = {"match": {"op": "==", "left": left, "right": right}}
    return [match, {"accept": None}]


PORTS: list[network.Port] = [("tcp", 7000), ("udp", 5353)]
ESTABLISHED = [{"match": {"op": "in", "left": {"ct": {}}}}, {"accept": None}]


@pytest.mark.parametrize(
    "rules, closed",
    [
        (ruleset(), []),
        (ruleset(ESTABLISHED), []),
        (ruleset(ESTABLISHED, policy="drop"), PORTS),
        (ruleset(ESTABLISHED, [{"reject": {"type": "icmpx"}}]), PORTS),
        (ruleset(accept("udp", 5353), policy="drop"), PORTS[:1]),
        (ruleset(accept("udp", {"set": [53, 5353]}), policy="drop"), PORTS[:1]),
        (ruleset(accept("tcp", {"range": [6000, 8000]}), policy="drop"), PORTS[1:]),
        (ruleset(accept("th", "@ours"), policy="drop"), []),
        (ruleset(accept("udp", 7000), policy="drop"), PORTS),
        ({"nftables": "nonsense"}, []),
        ([], []),
    ],
)
def test_a_firewall_that_names_no_port_of_ours_is_told(
    rules: Any, closed: list[network.Port]
) -> None:
    assert list(network.closed_ports(rules, PORTS)) == closed
    finding = network.check_firewall(rules, PORTS)
    if closed:
        named = f"{closed[0][0].upper()} {closed[0][1]}"
        is_bad(finding, WARN, named, f"Accept {named}")
    else:
        is_ok(finding, "no rule that keeps neighbours out")


def test_rules_that_nft_does_not_spell_out_are_not_judged() -> None:
    rules = ruleset([{"xt": None}, {"accept": None}], policy="drop")
    is_ok(network.check_firewall(rules, PORTS), "not looked at: rules of iptables")


def test_a_firewall_that_cannot_be_read_is_no_fault() -> None:
    is_ok(network.check_firewall(None, PORTS), "not looked at")


def test_the_real_rules_are_read_or_not() -> None:
    rules = network.read_firewall()
    assert rules is None or "nftables" in rules


# -- the disk ------------------------------------------------------------------------


def test_a_directory_is_there_or_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    there, missing = str(tmp_path), str(tmp_path / "a/b")
    is_ok(storage.check_directory("state", there, running=False), there)
    is_ok(storage.check_directory("state", missing, running=False), "will be made")
    inside = str(tmp_path / "file/b")
    finding = storage.check_directory("state", inside, running=False)
    is_bad(finding, FAIL, "is no directory", "Move it")


def test_a_socket_has_a_short_path_and_is_one(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.sock")
    is_ok(storage.check_socket(path, running=False), path)
    long = str(tmp_path / ("x" * 100))
    is_bad(storage.check_socket(long, running=False), FAIL, "107", "shorter")
    Path(path).touch()
    is_bad(storage.check_socket(path, running=False), FAIL, "is no socket", "Move it")


def test_a_writer_somewhere_else_must_listen(tmp_path: Path) -> None:
    is_ok(storage.check_writer("thread"), "own thread")
    path = str(tmp_path / "writer.sock")
    is_bad(storage.check_writer(path), FAIL, path, "ostree-p2p-writer.socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        is_ok(storage.check_writer(path), path)


def config(tmp_path: Path, **settings: Any) -> AgentConfig:
    default = AgentConfig(
        repo=str(tmp_path / "repo"),
        state=str(tmp_path / "state"),
        socket=str(tmp_path / "agent.sock"),
    )
    return replace(default, **settings)


def test_a_repository_opens_or_can_be_made(tmp_path: Path) -> None:
    repo, finding = storage.open_repository(config(tmp_path))
    assert repo is None
    is_ok(finding, "will be made")
    _, finding = storage.open_repository(config(tmp_path, writer="/w.sock"))
    is_ok(finding, "by the writer")
    Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    repo, finding = storage.open_repository(config(tmp_path))
    assert repo is not None
    is_ok(finding, "mode bare-user")
    is_ok(storage.check_repository(repo, config(tmp_path), running=False), "the agent")
    (tmp_path / "repo/config").write_text("[core]\nmode=strange\n")
    repo, finding = storage.open_repository(config(tmp_path))
    assert repo is None
    is_bad(finding, FAIL, "strange", "does not know")


def test_no_zstd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    is_ok(network.check_compression(wanted=True), "zstd")
    monkeypatch.setattr("p2p.wire.packing.IS_AVAILABLE", False)
    finding = network.check_compression(wanted=True)
    is_bad(finding, WARN, "no zstd", "pip install")
    is_ok(network.check_compression(wanted=False), "off")


def test_modes_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo", RepoMode.BARE)
    text = (tmp_path / "repo/config").read_text()
    split = text.replace("mode=bare", "mode=bare-split-xattrs")
    (tmp_path / "repo/config").write_text(split)
    repo = Repo.open(tmp_path / "repo")
    finding = storage.check_repository(repo, config(tmp_path), running=False)
    is_bad(finding, FAIL, "are only read", "bare-user")


def test_free_space_is_compared_with_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    reserve = {"min-free-space-size": "1MB"}
    repo = Repo.open(tmp_path / "repo", reserve)
    monkeypatch.setattr(storage, "SCARCE_BYTES", 1)
    is_ok(storage.check_space(repo), "MiB may be written")
    monkeypatch.setattr(storage, "SCARCE_BYTES", 1 << 62)
    is_bad(storage.check_space(repo), WARN, "MiB may be written", "p2p prune")
    repo = Repo.open(tmp_path / "repo", {"min-free-space-size": "9000000TB"})
    is_bad(storage.check_space(repo), FAIL, "must stay free", "p2p prune")


def test_where_to_deploy_to_must_be_usable(tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    target = TreeTarget(str(tmp_path / "run"))
    is_ok(storage.check_deploy(repo, target), "0 deployed")
    finding = storage.check_deploy(repo, SysrootTarget(str(tmp_path)))
    is_bad(finding, FAIL, "not an OSTree sysroot", "--tree")


def test_a_sysroot_has_its_repository_already(tmp_path: Path) -> None:
    tree = config(tmp_path, deploy=TreeTarget(str(tmp_path / "run")))
    is_ok(storage.check_unmade_deploy(tree), "nothing before")
    finding = storage.check_unmade_deploy(config(tmp_path, deploy=SysrootTarget("/")))
    is_bad(finding, FAIL, "not the repository of the sysroot /", "/ostree/repo")


PROBE = """
import sys
from p2p.agent.config import AgentConfig
from p2p.agent.doctor import storage
repo, state = sys.argv[1:]
config = AgentConfig(repo=repo, state=state, socket=state)
opened, _ = storage.open_repository(config)
for found in (
    storage.check_directory("state", state, running=False),
    storage.check_directory("state", state, running=True),
    storage.check_repository(opened, config, running=False),
):
    print(found.level, found.message)
"""


def test_what_another_user_owns_cannot_be_written(tmp_path: Path) -> None:
    Repo.init(tmp_path / "repo", RepoMode.BARE_USER)
    (tmp_path / "state").mkdir()
    for path in (tmp_path / "state", tmp_path / "repo/objects"):
        path.chmod(0o555)
    user = make_unprivileged(tmp_path / "home")
    done = user.run(
        sys.executable, "-c", PROBE, tmp_path / "repo", tmp_path / "state", check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("fail")
    assert "cannot be written" in first
    assert second.startswith("ok")
    assert third.startswith("fail")
    assert "objects cannot be written" in third


# -- membership ----------------------------------------------------------------------


def test_the_own_key_is_made_kept_or_replaced(tmp_path: Path) -> None:
    clock = Clock(NOW.timestamp(), trusted=True)
    alone = config(tmp_path)
    is_ok(membership.check_identity(alone, clock), "made at the first start")
    identity = open_identity(alone.state)
    finding = membership.check_identity(alone, clock)
    is_ok(finding, f"device {identity.device_id[:16]}")
    (Path(alone.state) / DEVICE_FILE).write_text("damaged")
    finding = membership.check_identity(alone, clock)
    is_bad(finding, WARN, DEVICE_FILE, "a new key")


def test_a_fleets_certificate_is_judged_by_its_dates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.write("depot-7")
    fleet = Fleet(authority=str(authority.file), certificate=str(chain), key=str(key))
    member = config(tmp_path, fleet=fleet)
    right = Clock(NOW.timestamp(), trusted=True)
    is_ok(membership.check_identity(member, right), "fleet, depot-7, until 2040-")
    soon = Clock(FAR_AHEAD.timestamp() - 86400, trusted=True)
    finding = membership.check_identity(member, soon)
    is_bad(finding, WARN, "depot-7", "Issue a new certificate")
    late = Clock(FAR_AHEAD.timestamp() + 1, trusted=True)
    finding = membership.check_identity(member, late)
    is_bad(finding, FAIL, "depot-7: the certificate ended", "Issue a new")
    early = Clock(LONG_AGO.timestamp() - 9 * 86400, trusted=True)
    is_bad(membership.check_identity(member, early), FAIL, "begins", "clock")


def test_a_fleet_without_its_files_is_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.write("depot-7")
    fleet = Fleet(authority=str(authority.file), certificate=str(chain), key=str(key))
    clock = Clock(NOW.timestamp(), trusted=True)
    for broken in (
        replace(fleet, authority=str(tmp_path / "none")),
        replace(fleet, secret=str(tmp_path / "none")),
        replace(fleet, key=str(authority.write("other")[1])),
    ):
        finding = membership.check_identity(config(tmp_path, fleet=broken), clock)
        is_bad(finding, FAIL, str(tmp_path), "Correct the named setting")


# -- the running agent ---------------------------------------------------------------

BRANCH = {"refspec": "hub:os", "commit": None, "last": None}
STATUS = {
    "version": __version__,
    "enabled": True,
    "neighbours": 2,
    "problems": [],
    "branches": [BRANCH],
}


def test_a_running_agent_tells_what_it_follows() -> None:
    (agent, branch), (follow,) = check_agent(STATUS)
    is_ok(agent, "running, 2 neighbours, sharing")
    is_ok(branch, "nothing pulled yet")
    assert follow.refspec == "hub:os"
    (agent, _), _ = check_agent({**STATUS, "enabled": False})
    is_ok(agent, "sharing disabled")


def test_what_a_running_agent_complains_of_is_passed_on() -> None:
    last = {"error": "OriginError", "message": "it is away", "hint": "Wait."}
    status = {
        **STATUS,
        "version": "0.0.1",
        "problems": ["the port is taken"],
        "branches": [{**BRANCH, "last": last}],
    }
    (agent, problem, branch), _ = check_agent(status)
    is_bad(agent, WARN, "0.0.1", "Restart")
    is_bad(problem, WARN, "the port is taken", "log")
    is_bad(branch, FAIL, "OriginError: it is away", "Wait.")


def test_an_agent_of_another_version_is_to_be_restarted() -> None:
    broken: list[dict[str, Any]] = [{}, {**STATUS, "branches": [{}]}]
    broken.append({**STATUS, "branches": [{**BRANCH, "refspec": 7}]})
    for status in broken:
        with pytest.raises(AgentError, match="not of this version"):
            check_agent(status)
