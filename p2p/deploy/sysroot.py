"""Deploys into a bootable system with `ostree admin`, always by refspec.

Never by checksum: a deployment that was made by one follows no branch any more. What
there is is read from the files of the sysroot; only changes need the program.
"""

from __future__ import annotations

import os

from p2p.deploy.boot_room import check_boot_room
from p2p.deploy.booting import Bootable, read_bootable
from p2p.deploy.deployment import Deployment, Outcome, Standing, State
from p2p.deploy.ostree_admin import OstreeAdmin
from p2p.deploy.others import claim
from p2p.deploy.reorder import Reorderer, read_origin
from p2p.deploy.verify import check_names
from p2p.errors import ConfigError, DeployError
from p2p.ostree.objects import Checksum
from p2p.ostree.repo import Repo


class SysrootDeployer:
    """Deploys commits of a sysroot's repository into it; see `Deployer`."""

    def __init__(
        self,
        repo: Repo,
        sysroot: str | os.PathLike[str],
        os_name: str | None = None,
        *,
        running_root: str = "/",
        command: str = "ostree",
        python: str = "/usr/bin/python3",
    ) -> None:
        """Deploy into the stateroot `os_name`; without it into the only one.

        Args:
            repo: the repository of that sysroot.
            sysroot: its physical root.
            os_name: the stateroot (`--os` of `ostree admin deploy`).
            running_root: where what runs now is found.
            command: the program `ostree`.
            python: the system's interpreter, for the binding that it may have.

        Raises:
            ConfigError: it is no sysroot, or the repository is not its own.

        """
        path = os.path.abspath(sysroot)
        self._stateroots = os.path.join(path, "ostree/deploy")
        if not os.path.isdir(self._stateroots):
            raise ConfigError(
                "--sysroot",
                f"{path} is not an OSTree sysroot",
                hint="Make one with `ostree admin init-fs`, or deploy into a --tree.",
            )
        own = os.path.join(path, "ostree/repo")
        if not os.path.isdir(own) or not os.path.samefile(own, repo.path):
            raise ConfigError(
                "--sysroot",
                f"{repo.path} is not the repository of {path}",
                hint=f"Give --repo={own}.",
            )
        self._repo = repo
        self._sysroot = path
        self._os_name = os_name
        self._running_root = running_root
        self._admin = OstreeAdmin(path, command=command)
        self._reorderer = Reorderer(path, self._admin, python)

    # -- reading ---------------------------------------------------------------

    def list(self) -> tuple[Deployment, ...]:
        """Return the deployments, also of other stateroots; see `Deployer`."""
        order = self._order()
        states = _states(order, self._os(order))
        found = [
            _describe(each, state) for each, state in zip(order, states, strict=True)
        ]
        return tuple(sorted(found, key=lambda each: list(State).index(each.state)))

    def standing(self) -> Standing:
        """Return what was booted and what the next boot takes; see `Deployer`."""
        order = self._order()
        name = self._os(order)
        mine = [each for each in order if each.os == name]
        booted = [each.commit for each in mine if each.booted]
        return Standing(
            running=booted[0] if booted else None,
            default=order[0].commit if mine and mine[0] == order[0] else None,
            kept=frozenset(each.commit for each in mine),
            boots=True,
        )

    def _order(self) -> tuple[Bootable, ...]:
        return read_bootable(self._sysroot, self._running_root)

    def _os(self, order: tuple[Bootable, ...]) -> str:
        """Return the stateroot that is meant; ConfigError if that is not clear."""
        there = sorted(os.listdir(self._stateroots))
        booted = [each.os for each in order if each.booted]
        meant = [self._os_name] if self._os_name is not None else booted or there
        if len(meant) == 1 and meant[0] in there:
            return meant[0]
        raise ConfigError(
            "--os",
            f"{self._sysroot} has the stateroots {', '.join(there) or '(none)'}",
            hint="Name one of them; `ostree admin os-init` makes one.",
        )

    # -- changing --------------------------------------------------------------

    def deploy(self, refspec: str, commit: Checksum) -> Outcome:
        """Have `ostree admin` deploy what the refspec names; see `Deployer`.

        That must be the commit: before, or nothing is done, and also afterwards, or
        it is undone.
        """
        check_names(self._repo, refspec, commit)
        before = self._order()
        name = self._os(before)
        mine = [each for each in before if each.os == name]
        if mine and mine[0] == before[0] and mine[0].commit == commit:
            return self._outcome(changed=False)
        self._check_ours(before)
        deployed = {each.commit for each in before}
        check_boot_room(self._repo, commit, deployed, self._sysroot)
        try:
            self._admin.run("deploy", f"--os={name}", refspec)
        except DeployError as error:
            if not _is_deployed(self._order(), before, commit):
                raise
            # It deploys, and then clears away what is old.
            note = f"It is deployed, but was not cleared up behind: {error}"
            return self._outcome(changed=True, notes=(note,))
        after = self._order()
        if not _is_deployed(after, before, commit):
            self._undo(after, before)
            raise DeployError(
                f"{refspec} was changed while it was deployed: it no longer names "
                f"{commit}",
                hint="What ran before is still the default; ask again.",
            )
        return self._outcome(changed=True)

    def rollback(self, to: Checksum | None = None) -> Outcome:
        """Make the deployment behind the default one the default; see `Deployer`."""
        order = self._order()
        self._check_ours(order)
        name = self._os(order)
        mine = [each for each in order if each.os == name]
        others = [each for each in mine[1:] if to in (None, each.commit)]
        if not others:
            raise DeployError(
                f"{self._sysroot}: {name} has no other deployment to go back to",
                hint="Deploy a commit instead: `p2p deploy`.",
            )
        wanted = others[0]
        notes = self._reorderer.make_default(order, wanted)
        first = self._order()[0]
        if (first.os, first.commit) != (name, wanted.commit):
            raise DeployError(
                f"{self._sysroot}: {wanted.id} did not become the default",
                hint="See `ostree admin status`.",
            )
        return self._outcome(changed=True, notes=notes)

    def pin(self, deployment_id: str, *, pinned: bool = True) -> Outcome:
        """Keep a deployment, or no longer; see `Deployer`."""
        order = self._order()
        name = self._os(order)
        ids = [(each.os, each.id) for each in order]
        if (name, deployment_id) not in ids:
            raise DeployError(
                f"{self._sysroot}: {name} has no deployment {deployment_id[:80]}",
                hint="See `p2p deployments`.",
            )
        index = ids.index((name, deployment_id))
        changed = _is_pinned(order[index]) is not pinned
        if changed:
            self._admin.run("pin", *([] if pinned else ["--unpin"]), str(index))
        found = (each for each in self.list() if each.path == order[index].path)
        return Outcome(next(found), changed=changed)

    def _check_ours(self, order: tuple[Bootable, ...]) -> None:
        """Refuse to take away what another updater has under way, or manages."""
        if not order:
            return
        if order[0].staged:
            raise DeployError(
                f"deployment {order[0].id} is staged for the next shutdown, and this "
                "would drop it",
                hint="Reboot first, or drop it with `ostree admin undeploy 0`.",
            )
        if said := claim(read_origin(order[0]), self._running_root):
            raise DeployError(
                f"{order[0].origin_path}: {said}",
                hint="Commits are fetched for it; deploy with it, or disable it.",
            )

    def claim(self) -> str:
        """Return why another tool is to deploy here; empty if we are."""
        order = self._order()
        return claim(read_origin(order[0]), self._running_root) if order else ""

    def _undo(self, after: tuple[Bootable, ...], before: tuple[Bootable, ...]) -> None:
        """Take a deployment away that should not have been made."""
        known = {(each.os, each.id) for each in before}
        if after and (after[0].os, after[0].id) not in known:
            self._admin.run("undeploy", "0")

    def _outcome(self, *, changed: bool, notes: tuple[str, ...] = ()) -> Outcome:
        return Outcome(self.list()[0], changed=changed, notes=notes)


def _is_deployed(
    after: tuple[Bootable, ...], before: tuple[Bootable, ...], commit: Checksum
) -> bool:
    """Tell whether a new deployment of the commit is the default now."""
    known = {(each.os, each.id) for each in before}
    return (
        bool(after)
        and (after[0].os, after[0].id) not in known
        and after[0].commit == commit
    )


def _states(order: tuple[Bootable, ...], name: str) -> tuple[State, ...]:
    """Return what each deployment is to the system, seen from one stateroot."""
    mine = [index for index, each in enumerate(order) if each.os == name]
    current = next((index for index in mine if order[index].booted), None)
    states = [State.OTHER] * len(order)
    if current is None and not any(each.booted for each in order):
        current = mine[0] if mine else None
    pending = [index for index in mine if current is None or index < current]
    previous = [index for index in mine if current is not None and index > current]
    if current is not None:
        states[current] = State.CURRENT
    if pending:
        states[pending[0]] = State.PENDING
    if previous:
        states[previous[0]] = State.PREVIOUS
    return tuple(states)


def _describe(bootable: Bootable, state: State) -> Deployment:
    origin = read_origin(bootable)
    try:
        time = int(os.stat(bootable.origin_path).st_mtime)
    except FileNotFoundError:
        time = None
    return Deployment(
        id=bootable.id,
        commit=bootable.commit,
        refspec=origin.string("origin", "refspec"),
        state=state,
        pinned=_is_pinned(bootable),
        time=time,
        path=bootable.path,
    )


def _is_pinned(bootable: Bootable) -> bool:
    origin = read_origin(bootable)
    return origin.boolean("libostree-transient", "pinned", default=False)
