"""Checks of the machine: its clock, and who else updates it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from p2p.agent.doctor.finding import Finding, fail, failed, ok, warn
from p2p.deploy.booting import read_bootable
from p2p.deploy.ostree_admin import OstreeAdmin
from p2p.deploy.reorder import read_origin
from p2p.deploy.target import SysrootTarget, Target
from p2p.errors import Error
from p2p.trust.policy import format_time

_libc = ctypes.CDLL(None, use_errno=True)
# struct timex of linux/timex.h has less than 256 bytes everywhere.
_TIMEX_BYTES = 256
_TIME_ERROR = 5
_SET_CLOCK = "Set the clock: `timedatectl set-ntp true`, or a battery for it."


# -- the clock -----------------------------------------------------------------------


def is_clock_synchronised() -> bool | None:
    """Return whether the kernel believes its clock; None if it does not say."""
    state = _libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR


def check_clock(now: float, floor: int, *, synchronised: bool | None) -> Finding:
    """Tell whether certificates and commits can be judged by the clock.

    Args:
        now: what it says, in seconds since 1970.
        floor: a time that has passed for certain.
        synchronised: whether it is kept right by another one, if that is known.

    """
    said = format_time(int(now))
    if now < floor:
        reason = f"it says {said}, but {format_time(floor)} has passed for certain"
        return fail("clock", reason, _SET_CLOCK)
    if synchronised is False:
        return warn("clock", f"{said}, synchronised with no other clock", _SET_CLOCK)
    return ok("clock", said if synchronised is None else f"{said}, synchronised")


# -- others that update --------------------------------------------------------------


def check_updaters(active: Sequence[str], target: Target | None) -> Finding:
    """Tell whether two programs would make deployments."""
    if not active:
        return ok("updaters", "no other one is active")
    names = " and ".join(active)
    if not isinstance(target, SysrootTarget):
        return ok("updaters", f"{names} deploys; commits are fetched for it beforehand")
    return warn(
        "updaters",
        f"{names} deploys into a bootable system here, and so does [deploy]",
        "Let one of them deploy: remove [deploy], or disable the other one.",
    )


def container_image(sysroot: str, running_root: str = "/") -> str | None:
    """Return the container image that the default deployment follows, if any.

    Raises:
        DeployError: the files of the sysroot contradict each other.

    """
    for deployment in read_bootable(sysroot, running_root)[:1]:
        origin = read_origin(deployment)
        for key in origin.keys("origin"):
            if key.startswith("container-image"):
                return origin.string("origin", key)
    return None


def check_container(image: str | None, target: Target | None) -> Finding:
    """Tell whether the system follows a container image instead of a branch."""
    if image is None:
        return ok("system origin", "no container image")
    if not isinstance(target, SysrootTarget):
        return ok("system origin", f"container image {image}; nothing is deployed here")
    return fail(
        "system origin",
        f"the system follows the container image {image}, so deploying is refused",
        "Remove [deploy]; update it with bootc or rpm-ostree.",
    )


def check_ostree(sysroot: str, command: str = "ostree") -> Finding:
    """Tell whether there is an `ostree` that can deploy."""
    try:
        version = OstreeAdmin(sysroot, command=command).check_version()
    except Error as error:
        return failed("ostree", error)
    return ok("ostree", version)
