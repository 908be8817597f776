"""Checks what is known of networks that cost by the byte."""

from __future__ import annotations

import trio

from p2p.agent.config import AgentConfig
from p2p.agent.doctor.finding import Finding, failed, ok, warn
from p2p.agent.metered import Metered, read_metered
from p2p.errors import Error
from p2p.net.netlink import read_interfaces


async def look_at_metered(config: AgentConfig) -> Finding:
    """Tell which networks are metered, and what that means."""
    try:
        interfaces = await trio.to_thread.run_sync(read_interfaces)
    except Error as error:
        return failed("metered", error)
    names = [interface.name for interface in interfaces]
    metered = await read_metered(names, config.limits.metered_interfaces)
    return check_metered(metered, allowed=bool(config.limits.values["metered"]))


def check_metered(metered: Metered, *, allowed: bool) -> Finding:
    """Tell which networks are metered, and whether updates keep off them."""
    known = ", ".join(f"{name} ({who})" for name, who in metered.interfaces.items())
    who = " and ".join(metered.told_by)
    if not who:
        who = "neither NetworkManager nor ConnMan is asked"
    message = f"{known or 'none'}; {who}, and what nobody calls metered is not"
    if allowed:
        return ok("metered", f"{message}; used all the same")
    if metered.uplink:
        return warn(
            "metered",
            f"origins are not asked: {metered.uplink}",
            'Set metered = "use" in [limits], or `p2p limits set metered=use`, if it '
            "may cost.",
        )
    return ok("metered", message)
