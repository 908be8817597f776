"""Tells systemd how this service is doing.

Protocol: sd_notify(3), one datagram to the socket named by $NOTIFY_SOCKET.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

_log = logging.getLogger(__name__)


def notify(state: str, environment: Mapping[str, str]) -> None:
    """Say for example `READY=1`; nothing happens where nobody asked to be told."""
    path = environment.get("NOTIFY_SOCKET")
    if not path:
        return
    # An @ stands for the zero byte of an abstract socket.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
        try:
            messenger.sendto(state.encode(), address)
        except OSError as error:
            _log.warning("$NOTIFY_SOCKET %s: %s", path, error)
