"""Other tools that update a system, and by what each is recognised.

Beside one of them commits are only fetched beforehand: two that deploy would undo each
other's work, and a package layered by rpm-ostree would be gone after our deployment.
"""

from __future__ import annotations

import glob
import os

from p2p.ostree.keyfile import KeyFile

# What updates a system by itself, by the unit that makes it do so.
UNITS = {
    "aktualizr.service": "aktualizr",
    "aktualizr-lite.service": "aktualizr-lite",
    "bootc-fetch-apply-updates.timer": "bootc",
    "eos-autoupdater.timer": "eos-updater",
    "rpm-ostreed-automatic.timer": "rpm-ostree",
    "zincati.service": "zincati",
}
# Groups of an origin file in which rpm-ostree keeps what it adds to a commit.
_RPM_GROUPS = ("packages", "modules", "overrides", "rpmostree")


def active_updaters(root: str = "/") -> list[str]:
    """Return the other updaters that run here or start at the next boot."""
    units = os.path.join(root, "run/systemd/units")
    wanted = os.path.join(root, "etc/systemd/system/*.wants")
    return [
        name
        for unit, name in UNITS.items()
        if os.path.lexists(os.path.join(units, f"invocation:{unit}"))
        or glob.glob(os.path.join(wanted, unit))
    ]


def claim_of(origin: KeyFile) -> str:
    """Return why a deployment is another tool's, by its origin file; empty if ours."""
    if any(key.startswith("container-image") for key in origin.keys("origin")):
        return "this system follows a container image (bootc, rpm-ostree)"
    layered = [group for group in _RPM_GROUPS if origin.keys(group)]
    if layered or "baserefspec" in origin.keys("origin"):
        what = f" ({', '.join(layered)})" if layered else ""
        return f"rpm-ostree has changed what is deployed{what}"
    return ""


def claim(origin: KeyFile, root: str = "/") -> str:
    """Return why a system is for another tool to deploy; empty if it is for us."""
    said = claim_of(origin)
    if said:
        return said
    names = active_updaters(root)
    return f"{' and '.join(names)} deploys here" if names else ""
