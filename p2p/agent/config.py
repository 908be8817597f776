"""The agent's configuration: TOML files, every key with a default.

Read in this order, later ones count key by key, `[[follow]]` and `[[hours]]` add up:

    /usr/lib/ostree-p2p/agent.d/*.toml
    /etc/ostree-p2p/agent.toml
    /etc/ostree-p2p/agent.d/*.toml
    $XDG_CONFIG_HOME/ostree-p2p/agent.toml    unless root reads it

With no file at all the agent works, shares nothing and follows nothing.
"""

from __future__ import annotations

import glob
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from p2p.agent.hours import Window, parse_window
from p2p.agent.limits import LimitTable, parse_limits
from p2p.agent.table import Table
from p2p.deploy.settings import Reboot, Settings, window_minutes
from p2p.deploy.target import SysrootTarget, TreeTarget
from p2p.deploy.target import Target as DeployTarget
from p2p.errors import ConfigError, FormatError
from p2p.net.identity import Membership
from p2p.net.target import DEFAULT_PORT, Target, parse_target
from p2p.ostree.config import REMOTE_NAME
from p2p.ostree.refs import check_ref

VENDOR_DIRECTORY = "/usr/lib/ostree-p2p/agent.d"
SYSTEM_DIRECTORY = "/etc/ostree-p2p"
SYSTEM_REPO = "/sysroot/ostree/repo"
SYSTEM_SOCKET = "/run/ostree-p2p/agent.sock"
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The files that make this device a member of a fleet; paths.

    Attributes:
        secret: of the fleet, keys what is said by mDNS; None: filters are not keyed.

    """

    authority: str
    certificate: str
    key: str
    secret: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """A branch to keep up with.

    Attributes:
        remote, ref: as in `REMOTE:REF`.
        url, key: make the remote where the repository does not have it.
        deploy: whether each new commit is deployed.

    """

    remote: str
    ref: str
    url: str | None = None
    key: str | None = None
    deploy: bool = False

    @property
    def refspec(self) -> str:
        """`REMOTE:REF`."""
        return f"{self.remote}:{self.ref}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Everything that is settable, with its default.

    Attributes:
        repo: path of the repository.
        state: directory of what must outlast a restart.
        socket: path of the local API.
        writer: `thread`, `process`, or the path of a writer's socket.
        site: name of the site; empty: all neighbours on the link are of it.
        fleet: None is open membership.
        listen_host, listen_port: for neighbours; an empty host is all addresses.
        mdns: whether neighbours are looked for.
        interfaces, never_interfaces: where; see `p2p.net.interfaces.Choice`.
        peers: static neighbours.
        compress: whether content is packed for neighbours who can unpack it.
        share: whether neighbours are given anything before anybody said
            `p2p enable` or `p2p disable`.
        share_protected: share what an origin gives only for credentials with
            everybody, in open membership too.
        poll_seconds: how often an origin is asked for a new head.
        max_offline_age: for how many seconds after an origin last confirmed a
            branch's head neighbours are believed what a newer one is; 0 is for ever.
        credentials: by remote, path of its treehub.json or credentials.zip.
        deploy: None: nothing can be deployed.
        limits: how much of the network and the disk is used.
        hours: in which other limits hold.
        follow: the branches to keep up with.

    """

    repo: str
    state: str
    socket: str
    writer: str = "thread"
    site: str = ""
    fleet: Fleet | None = None
    listen_host: str = ""
    listen_port: int = DEFAULT_PORT
    mdns: bool = True
    interfaces: tuple[str, ...] = ()
    never_interfaces: tuple[str, ...] = ()
    peers: tuple[Target, ...] = ()
    compress: bool = True
    share: bool = False
    share_protected: bool = False
    poll_seconds: float = 300.0
    max_offline_age: float = 0.0
    credentials: Mapping[str, str] = field(default_factory=dict)
    deploy: DeployTarget | None = None
    limits: LimitTable = field(default_factory=LimitTable)
    hours: tuple[Window, ...] = ()
    follow: tuple[Follow, ...] = ()


def default_config(environment: Mapping[str, str], uid: int) -> AgentConfig:
    """Return the defaults for a user: root's are those of the system."""
    if uid == 0:
        repo = "/var/lib/ostree-p2p/repo"
        if os.path.isdir(SYSTEM_REPO):
            repo = SYSTEM_REPO
        # Beside the repository, because the service's user owns it.
        state, runtime = "/var/lib/ostree-p2p/agent", os.path.dirname(SYSTEM_SOCKET)
    else:
        home = environment.get("HOME", "")
        base = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local/state")
        state = os.path.join(base, "ostree-p2p")
        repo = os.path.join(state, "repo")
        runtime = environment.get("XDG_RUNTIME_DIR", "")
        runtime = os.path.join(runtime, "ostree-p2p") if runtime else state
    return AgentConfig(
        repo=environment.get("OSTREE_REPO") or repo,
        state=state,
        socket=os.path.join(runtime, "agent.sock"),
    )


def config_files(environment: Mapping[str, str], uid: int) -> list[str]:
    """Return the configuration files that exist, in the order in which they count."""
    found = sorted(glob.glob(os.path.join(VENDOR_DIRECTORY, "*.toml")))
    main = os.path.join(SYSTEM_DIRECTORY, "agent.toml")
    if os.path.exists(main):
        found.append(main)
    found += sorted(glob.glob(os.path.join(SYSTEM_DIRECTORY, "agent.d", "*.toml")))
    if uid != 0:
        home = environment.get("HOME", "")
        base = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        personal = os.path.join(base, "ostree-p2p", "agent.toml")
        if os.path.exists(personal):
            found.append(personal)
    return found


def load_config(
    path: str | None, environment: Mapping[str, str], uid: int
) -> AgentConfig:
    """Return the configuration in a file, or in those of the system and the user.

    Raises:
        ConfigError: a file cannot be read or holds something else; it names the file
            and the key.

    """
    files = [path] if path is not None else config_files(environment, uid)
    defaults = default_config(environment, uid)
    return parse_config([(file, _read(file)) for file in files], defaults)


def parse_config(
    texts: Iterable[tuple[str, str]], defaults: AgentConfig
) -> AgentConfig:
    """Return the configuration in TOML texts, each with the name of its file.

    Raises:
        ConfigError: as `load_config`.

    """
    config = defaults
    for where, text in texts:
        try:
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(where, f"not TOML: {error}") from None
        config = _apply(config, Table(where, "", table))
    _check_once(config.follow)
    return config


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, error.strerror or str(error)) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(path, f"larger than {_MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"not UTF-8 at byte {error.start}") from None


# -- from tables to values -----------------------------------------------------------


def _apply(config: AgentConfig, table: Table) -> AgentConfig:
    """Return a configuration with what one file says."""
    config = replace(
        config,
        repo=table.path("repo", config.repo),
        state=table.path("state", config.state),
        socket=table.path("socket", config.socket),
        writer=_writer(table, config.writer),
        site=table.take("site", str, config.site),
        fleet=table.each("fleet", config.fleet, _fleet),
        deploy=table.each("deploy", config.deploy, _deploy),
        credentials=table.each("credentials", config.credentials, Table.pairs),
        limits=table.each(
            "limits", config.limits, lambda t: parse_limits(config.limits, t)
        ),
        hours=config.hours + table.rows("hours", parse_window),
        follow=config.follow + table.rows("follow", _follow),
    )
    config = _membership(config, table)
    config = table.each("neighbours", config, lambda t: _neighbours(config, t))
    config = table.each("share", config, lambda t: _share(config, t))
    config = table.each("origin", config, lambda t: _origin(config, t))
    table.end()
    return config


def _writer(table: Table, default: str) -> str:
    value = table.text("writer", default)
    if value in ("thread", "process") or value.startswith("/"):
        return value
    raise table.error(
        "writer", "must be `thread`, `process` or the path of a writer's socket"
    )


def _membership(config: AgentConfig, table: Table) -> AgentConfig:
    """Check that what is said of membership fits: a fleet by mistake is open."""
    kind = table.text("membership", None)
    if kind is None:
        return config
    if kind not in tuple(Membership):
        raise table.error("membership", "must be `open` or `fleet`")
    if kind == Membership.FLEET and config.fleet is None:
        raise table.error("membership", "is `fleet`, so a table [fleet] is needed")
    if kind == Membership.OPEN:
        return replace(config, fleet=None)
    return config


def _fleet(table: Table) -> Fleet:
    values = {}
    for key in ("authority", "certificate", "key"):
        values[key] = table.path(key, None)
        if values[key] is None:
            raise table.error(key, "is needed: the path of a PEM file")
    return Fleet(
        authority=str(values["authority"]),
        certificate=str(values["certificate"]),
        key=str(values["key"]),
        secret=table.path("secret", None),
    )


def _neighbours(config: AgentConfig, table: Table) -> AgentConfig:
    peers = [
        parse_target(peer, f"{table.where}: neighbours.peers")
        for peer in table.texts("peers", ())
    ]
    host, port = config.listen_host, config.listen_port
    listen = table.text("listen", None)
    if listen is not None:
        host, port = _listen(table, listen)
    return replace(
        config,
        mdns=table.take("mdns", bool, config.mdns),
        interfaces=table.texts("interfaces", config.interfaces),
        never_interfaces=table.texts("never-interfaces", config.never_interfaces),
        peers=config.peers + tuple(peers),
        compress=table.take("compress", bool, config.compress),
        listen_host=host,
        listen_port=port,
    )


def _listen(table: Table, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        raise table.error("listen", f"{text!r} is not HOST:PORT or :PORT")
    return host, int(port)


def _share(config: AgentConfig, table: Table) -> AgentConfig:
    return replace(
        config,
        share=table.take("enabled", bool, config.share),
        share_protected=table.take("protected", bool, config.share_protected),
    )


def _origin(config: AgentConfig, table: Table) -> AgentConfig:
    seconds = table.take("poll-seconds", float, config.poll_seconds)
    if not 1 <= seconds <= 30 * 86400:
        raise table.error("poll-seconds", "must be from 1 second to 30 days")
    age = table.take("max-offline-age", float, config.max_offline_age)
    if age != 0 and not 60 <= age <= 3650 * 86400:
        raise table.error("max-offline-age", "must be 0, or seconds up to ten years")
    return replace(config, poll_seconds=seconds, max_offline_age=age)


def _deploy(table: Table) -> DeployTarget:
    how = _updates(table)
    tree = table.path("tree", None)
    sysroot = table.path("sysroot", None)
    system = table.text("os", None)
    if (tree is None) == (sysroot is None):
        raise table.error("tree", "give either `tree` or `sysroot`")
    if system is not None and sysroot is None:
        raise table.error("os", "belongs to `sysroot`")
    if tree is not None:
        return TreeTarget(tree, how)
    return SysrootTarget(str(sysroot), system, how)


def _updates(table: Table) -> Settings:
    """Return how updates are carried out."""
    said = table.text("reboot", "never")
    if said not in tuple(Reboot):
        raise table.error("reboot", f"must be one of {', '.join(Reboot)}")
    reboot = Reboot(said)
    window = table.text("reboot-window", None)
    if window is not None and window_minutes(window) is None:
        raise table.error("reboot-window", "must be like 22:00-04:30")
    if reboot is Reboot.WINDOW and window is None:
        raise table.error("reboot-window", "is needed: `reboot` is `window`")
    command = table.texts("reboot-command", ())
    if reboot is Reboot.COMMAND and not command:
        raise table.error("reboot-command", "is needed: `reboot` is `command`")
    each = table.take("check-seconds", float, Settings().each_seconds)
    together = table.take("checks-seconds", float, Settings().all_seconds)
    for key, seconds in (("check-seconds", each), ("checks-seconds", together)):
        if not 1 <= seconds <= 1800:
            raise table.error(key, "must be from 1 to 1800 seconds")
    return Settings(
        reboot=reboot,
        window=window,
        command=command,
        units=table.texts("units", ()),
        each_seconds=each,
        all_seconds=together,
    )


def _follow(table: Table) -> Follow:
    try:
        remote, ref = parse_refspec(table.take("ref", str, ""))
    except FormatError as error:
        raise table.error("ref", str(error)) from None
    follow = Follow(
        remote=remote,
        ref=ref,
        url=table.text("url", None),
        key=table.path("key", None),
        deploy=table.take("deploy", bool, False),
    )
    if (follow.url is None) != (follow.key is None):
        raise table.error("url", "`url` and `key` go together")
    return follow


def _check_once(follows: Iterable[Follow]) -> None:
    seen = set()
    for follow in follows:
        if follow.refspec in seen:
            raise ConfigError(f"follow {follow.refspec}", "is configured twice")
        seen.add(follow.refspec)


def parse_refspec(text: str) -> tuple[str, str]:
    """Return remote and ref of `REMOTE:REF`; FormatError if it is no such thing."""
    remote, colon, ref = text.partition(":")
    if not colon or not REMOTE_NAME.fullmatch(remote):
        raise FormatError(f"{text[:200]!r} is not REMOTE:REF")
    return remote, check_ref(ref)
