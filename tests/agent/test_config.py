"""What may stand in the agent's configuration, and what people hear if it is wrong."""

import dataclasses
import os
from pathlib import Path

import pytest

from p2p.agent.config import (
    AgentConfig,
    Fleet,
    Follow,
    config_files,
    default_config,
    load_config,
    parse_config,
)
from p2p.deploy.settings import Reboot, Settings
from p2p.deploy.target import SysrootTarget
from p2p.errors import ConfigError
from p2p.net.target import Target

DEFAULTS = AgentConfig(repo="/r", state="/s", socket="/s/agent.sock")
FULL = """
repo = "/sysroot/ostree/repo"
state = "state"
socket = "/run/x/agent.sock"
writer = "/run/x/writer.sock"
site = "plant 4"
membership = "fleet"

[fleet]
authority = "ca.pem"
certificate = "/etc/device.pem"
key = "/etc/device.key"
secret = "secret"

[neighbours]
listen = "[::1]:7000"
mdns = false
interfaces = ["eth*"]
never-interfaces = ["eth9"]
peers = ["10.0.0.7", "depot.example:7001"]
compress = false

[share]
enabled = true
protected = true

[origin]
poll-seconds = 10
max-offline-age = 86400

[credentials]
hub = "treehub.json"

[deploy]
sysroot = "/"
os = "factory"
reboot = "window"
reboot-window = "22:00-04:30"
units = ["plc.service"]
check-seconds = 5

[[follow]]
ref = "hub:os/stable"
deploy = true

[[follow]]
ref = "app:app/main"
url = "https://app.example/repo"
key = "app.pub"
"""


def test_every_setting_is_taken() -> None:
    config = parse_config([("/etc/p/agent.toml", FULL)], DEFAULTS)
    assert config == AgentConfig(
        repo="/sysroot/ostree/repo",
        state="/etc/p/state",
        socket="/run/x/agent.sock",
        writer="/run/x/writer.sock",
        site="plant 4",
        fleet=Fleet(
            authority="/etc/p/ca.pem",
            certificate="/etc/device.pem",
            key="/etc/device.key",
            secret="/etc/p/secret",
        ),
        listen_host="::1",
        listen_port=7000,
        mdns=False,
        interfaces=("eth*",),
        never_interfaces=("eth9",),
        peers=(Target("10.0.0.7", 28727), Target("depot.example", 7001)),
        compress=False,
        share=True,
        share_protected=True,
        poll_seconds=10.0,
        max_offline_age=86400.0,
        credentials={"hub": "/etc/p/treehub.json"},
        deploy=SysrootTarget(
            "/",
            "factory",
            Settings(
                reboot=Reboot.WINDOW,
                window="22:00-04:30",
                units=("plc.service",),
                each_seconds=5.0,
            ),
        ),
        follow=(
            Follow(remote="hub", ref="os/stable", deploy=True),
            Follow(
                remote="app",
                ref="app/main",
                url="https://app.example/repo",
                key="/etc/p/app.pub",
            ),
        ),
    )
    assert config.follow[0].refspec == "hub:os/stable"


def test_nothing_is_shared_or_followed_by_default() -> None:
    config = parse_config([("empty.toml", "")], DEFAULTS)
    assert config == DEFAULTS
    assert not config.share
    assert config.follow == ()
    assert config.deploy is None


def test_later_files_count_key_by_key_and_lists_add_up_where_they_are_parts() -> None:
    config = parse_config(
        [
            ("a.toml", 'site = "one"\n[neighbours]\nmdns = false\npeers = ["a:1"]'),
            ("b.toml", '[neighbours]\npeers = ["b:2"]\n[[follow]]\nref = "r:x"'),
            ("c.toml", 'site = "two"\n[[follow]]\nref = "r:y"'),
        ],
        DEFAULTS,
    )
    assert config.site == "two"
    assert not config.mdns
    assert config.peers == (Target("a", 1), Target("b", 2))
    assert [follow.ref for follow in config.follow] == ["x", "y"]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("repo = ", "not TOML"),
        ("x = 1", "f.toml: x: is not a setting"),
        ("repo = 1", "f.toml: repo: must be text, not a whole number"),
        ('repo = ""', "repo: must not be empty"),
        ('repo = "a\\u0000"', "repo: must not be empty"),
        ('writer = "maybe"', "writer: must be `thread`, `process` or"),
        ('membership = "some"', "membership: must be `open` or `fleet`"),
        ('membership = "fleet"', "a table [fleet] is needed"),
        ('[fleet]\nauthority = "a"', "fleet.certificate: is needed"),
        ("fleet = true", "fleet: must be a table, not true or false"),
        ('[neighbours]\nmdns = "no"', "neighbours.mdns: must be true or false"),
        ("[neighbours]\npeers = [1]", "neighbours.peers: must be a list of texts"),
        ('[neighbours]\npeers = ["a:x"]', "neighbours.peers: 'a:x' has no port"),
        ('[neighbours]\nlisten = "x"', "neighbours.listen: 'x' is not HOST:PORT"),
        ('[neighbours]\nlisten = ":99999"', "is not HOST:PORT"),
        ("[neighbours]\nspeed = 1", "neighbours.speed: is not a setting"),
        ("[origin]\npoll-seconds = 0", "must be from 1 second"),
        ("[origin]\nmax-offline-age = 59", "must be 0, or seconds"),
        ("[origin]\nmax-offline-age = -1", "must be 0, or seconds"),
        ("[origin]\npoll-seconds = true", "must be a number, not true or false"),
        ("[deploy]", "deploy.tree: give either"),
        ('[deploy]\ntree = "a"\nsysroot = "b"', "deploy.tree: give either"),
        ('[deploy]\ntree = "a"\nos = "b"', "deploy.os: belongs to `sysroot`"),
        ('[deploy]\ntree = "a"\nreboot = "x"', "deploy.reboot: must be one of"),
        ('[deploy]\ntree = "a"\nreboot = "window"', "reboot-window: is needed"),
        ('[deploy]\ntree = "a"\nreboot = "command"', "reboot-command: is needed"),
        ('[deploy]\ntree = "a"\nreboot-window = "9-5"', "must be like 22:00"),
        ('[deploy]\ntree = "a"\ncheck-seconds = 0', "must be from 1 to 1800"),
        ('follow = ["a"]', "follow: must be tables: [[follow]]"),
        ("[[follow]]", "follow[1].ref: '' is not REMOTE:REF"),
        ('[[follow]]\nref = "a:.."', "follow[1].ref: not a ref"),
        ('[[follow]]\nref = "../a:b"', "is not REMOTE:REF"),
        ('[[follow]]\nref = "a:b"\nurl = "http://x"', "`url` and `key` go together"),
        ('[[follow]]\nref="a:b"\n[[follow]]\nref="a:b"', "a:b: is configured twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_key(
    text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([("f.toml", text)], DEFAULTS)
    assert complaint in str(caught.value)


def test_membership_open_overrules_a_fleet_of_an_earlier_file() -> None:
    fleet = '[fleet]\nauthority = "a"\ncertificate = "b"\nkey = "c"\n'
    assert parse_config([("a.toml", fleet)], DEFAULTS).fleet is not None
    both = [("a.toml", fleet), ("b.toml", 'membership = "open"')]
    assert parse_config(both, DEFAULTS).fleet is None


def test_files_of_the_user_are_read_unless_that_is_root(tmp_path: Path) -> None:
    personal = tmp_path / "ostree-p2p" / "agent.toml"
    personal.parent.mkdir()
    personal.write_text('site = "mine"')
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert config_files(environment, 1000)[-1] == str(personal)
    assert str(personal) not in config_files(environment, 0)
    assert load_config(None, environment, 1000).site == "mine"


def test_defaults_follow_the_user(tmp_path: Path) -> None:
    environment = {"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/1000"}
    config = default_config(environment, 1000)
    assert config.repo == "/h/.local/state/ostree-p2p/repo"
    assert config.socket == "/run/user/1000/ostree-p2p/agent.sock"
    assert default_config({"HOME": "/h"}, 1000).socket == (
        "/h/.local/state/ostree-p2p/agent.sock"
    )
    root = default_config({"OSTREE_REPO": str(tmp_path)}, 0)
    assert (root.repo, root.state) == (str(tmp_path), "/var/lib/ostree-p2p/agent")
    assert root.socket == "/run/ostree-p2p/agent.sock"


@pytest.mark.parametrize(
    "data, complaint",
    [(b"\xff", "not UTF-8 at byte 0"), (b"#" * ((1 << 20) + 1), "larger than")],
)
def test_a_file_that_is_no_text_is_refused(
    tmp_path: Path, data: bytes, complaint: str
) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=complaint):
        load_config(str(path), {}, 0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=f"{path}: No such file"):
        load_config(path, dict(os.environ), os.getuid())


def test_a_configuration_has_a_default_for_everything_but_paths() -> None:
    needed = [
        field.name
        for field in dataclasses.fields(AgentConfig)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    assert needed == ["repo", "state", "socket"]
