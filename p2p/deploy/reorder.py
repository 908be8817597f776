"""Make a deployment that a sysroot has the one it boots by default.

No one command does it in every release of ostree, so there are four ways, the best
first: `ostree admin set-default` (not in 2022.7); the library's own call, through the
system's Python if that has its binding; taking away what is in front, unless it runs;
deploying the same commit again.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass

from p2p.deploy.booting import Bootable
from p2p.deploy.ostree_admin import OstreeAdmin
from p2p.errors import DeployError
from p2p.ostree.disk import writing
from p2p.ostree.keyfile import KeyFile

_NO_BINDING = 77
_TIMEOUT_SECONDS = 600.0
# Not a part of this process: the binding takes memory for good, and may crash it.
_PROGRAM = f"""\
import sys
try:
    import gi
    gi.require_version("OSTree", "1.0")
    from gi.repository import Gio, GLib, OSTree
except (ImportError, ValueError):
    sys.exit({_NO_BINDING})
path, osname, wanted = sys.argv[1:]
sysroot = OSTree.Sysroot.new(Gio.File.new_for_path(path))
try:
    if hasattr(sysroot, "initialize_with_mount_namespace"):
        sysroot.initialize_with_mount_namespace()
    sysroot.load()
    sysroot.lock()
    sysroot.load_if_changed()
    deployments = sysroot.get_deployments()
    def is_wanted(d):
        name = d.get_csum() + "." + str(d.get_deployserial())
        return (d.get_osname(), name) == (osname, wanted)
    deployments.sort(key=lambda d: not is_wanted(d))
    if not deployments or not is_wanted(deployments[0]):
        sys.exit("there is no deployment " + wanted)
    sysroot.write_deployments(deployments)
except GLib.Error as error:
    sys.exit(error.message)
"""


@dataclass(frozen=True, slots=True)
class Reorderer:
    """Changes what one sysroot boots; `python` is the system's, not ours."""

    sysroot: str
    admin: OstreeAdmin
    python: str = "/usr/bin/python3"

    def make_default(
        self, order: tuple[Bootable, ...], wanted: Bootable
    ) -> tuple[str, ...]:
        """Put one of the deployments first; return what a person should know of it.

        Raises:
            DeployError: ostree says no.

        """
        if self.admin.has("set-default"):
            self.admin.run("set-default", str(order.index(wanted)))
            return ()
        if self._rewrite(wanted):
            return ()
        first = order[0]
        if not first.booted and order[1:2] == (wanted,):
            self.admin.run("undeploy", "0")
            return (f"Deployment {first.id} was taken away, not only put behind.",)
        self._deploy_again(wanted)
        note = (
            "This ostree can only deploy the old commit anew: changes in /etc come "
            f"from the deployment {first.id}, not from {wanted.id}."
        )
        return (note,)

    def _rewrite(self, wanted: Bootable) -> bool:
        """Have the library write the new order; tell whether its binding is there."""
        command = [
            *(self.python, "-c", _PROGRAM),
            *(self.sysroot, wanted.os, wanted.id),
        ]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT_SECONDS,
            )
        except FileNotFoundError:
            return False
        except subprocess.TimeoutExpired:
            raise DeployError(
                f"{self.sysroot}: no new order of deployments within "
                f"{_TIMEOUT_SECONDS:g} seconds"
            ) from None
        if result.returncode == _NO_BINDING:
            return False
        if result.returncode:
            raise DeployError(
                f"{self.sysroot}: the order of deployments cannot be changed: "
                f"{result.stderr.strip()[-2000:] or result.returncode}"
            )
        return True

    def _deploy_again(self, wanted: Bootable) -> None:
        """Deploy a commit that its ref has left, keeping what it follows.

        With its own origin file: a checksum alone would become what it follows.
        """
        origin = read_origin(wanted)
        origin.remove_group("libostree-transient")
        with writing(tempfile.gettempdir()), tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "origin")
            with open(path, "w", encoding="utf-8") as file:
                file.write(str(origin))
            self.admin.run(
                "deploy",
                f"--os={wanted.os}",
                f"--origin-file={path}",
                wanted.commit,
            )


def read_origin(deployment: Bootable) -> KeyFile:
    """Return the origin file of a deployment; empty where there is none."""
    try:
        with open(deployment.origin_path, encoding="utf-8", errors="replace") as file:
            return KeyFile.parse(file.read(), where=deployment.origin_path)
    except FileNotFoundError:
        return KeyFile(where=deployment.origin_path)
