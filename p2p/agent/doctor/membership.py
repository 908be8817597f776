"""Checks of who this device is to its neighbours."""

from __future__ import annotations

import os

from p2p.agent.config import AgentConfig
from p2p.agent.doctor.finding import Finding, failed, ok, warn
from p2p.agent.searching import read_advert_key
from p2p.errors import ConnectError, Error
from p2p.net.identity import DEVICE_FILE, fleet_identity, read_certificate
from p2p.net.x509 import Certificate, judge
from p2p.trust.policy import Clock, format_time

# Time enough to renew it, for a device that is not on every day.
SOON_SECONDS = 30 * 86400
_ISSUE = "Issue a new certificate for the same key."


def check_identity(config: AgentConfig, clock: Clock) -> Finding:
    """Tell whether neighbours will take this device for one of them."""
    if config.fleet is None:
        return _check_own(os.path.join(config.state, DEVICE_FILE))
    try:
        read_advert_key(config.fleet)
        identity = fleet_identity(
            authority=config.fleet.authority,
            certificate=config.fleet.certificate,
            key=config.fleet.key,
        )
    except Error as error:
        return failed("identity", error)
    return check_dates(identity.certificate, clock)


def _check_own(path: str) -> Finding:
    """Tell whether the key of open membership, which the agent made, can be used."""
    if not os.path.exists(path):
        return ok("identity", "open membership; a key is made at the first start")
    if not os.access(path, os.R_OK, effective_ids=True):
        return ok("identity", "open membership; only the agent may read its key")
    try:
        certificate = read_certificate(path, path)
    except Error as error:
        return warn("identity", str(error), "The agent will make a new key itself.")
    return ok("identity", f"open membership, device {certificate.device_id[:16]}")


def check_dates(certificate: Certificate, clock: Clock) -> Finding:
    """Tell whether a fleet's certificate counts now, and for how long it will."""
    name = certificate.name or certificate.device_id[:16]
    try:
        judge(certificate, clock)
    except ConnectError as error:
        return failed("identity", error, before=f"fleet, {name}: ")
    message = f"fleet, {name}, until {format_time(certificate.not_after)}"
    if certificate.not_after < clock.now + SOON_SECONDS:
        return warn("identity", message, _ISSUE)
    return ok("identity", message)
