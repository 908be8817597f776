"""Devices that are not listened to for a while, because they certainly offended."""

from __future__ import annotations

from typing import Any

from p2p.wire.messages import DeviceId

# A device with a broken disk offends too, and may be repaired.
BAN_SECONDS = 600.0
# Who comes under a new name each time must not fill our memory.
MAX_BANNED = 1024


class Bans:
    """Who is banned and why; times are the caller's."""

    def __init__(self) -> None:
        """Nobody is banned."""
        self._banned: dict[DeviceId, tuple[float, str]] = {}

    def __repr__(self) -> str:
        return f"<Bans {len(self._banned)} devices>"

    def add(self, device: DeviceId, reason: str, now: float) -> bool:
        """Ban a device; False if it is banned already."""
        if self.reason(device, now):
            return False
        if len(self._banned) >= MAX_BANNED:
            del self._banned[next(iter(self._banned))]
        self._banned[device] = (now + BAN_SECONDS, reason)
        return True

    def reason(self, device: DeviceId, now: float) -> str:
        """Return why a device is banned; nothing if it is not."""
        until, reason = self._banned.get(device, (now, ""))
        if until > now:
            return reason
        self._banned.pop(device, None)
        return ""

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Return all banned devices, as JSON values; `seconds` are what is left."""
        return [
            {"device": device, "reason": reason, "seconds": round(until - now, 1)}
            for device, (until, reason) in self._banned.items()
            if until > now
        ]

    def all(self, now: float) -> dict[DeviceId, str]:
        """Return all banned devices and why."""
        return {
            device: reason
            for device, (until, reason) in self._banned.items()
            if until > now
        }
