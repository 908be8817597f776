"""A program that counts the TCP packets its host sends, by family and DSCP.

It says so when it has begun, and `{"event": "sent", "4": {"1": 17}, "6": {…}}` for each
line that it is told.
"""

import json
import select
import socket
import sys
from collections import Counter
from typing import Any

_ETH_P_ALL = 3
_OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def dscp_of(packet: bytes) -> tuple[str, int] | None:
    """Family and DSCP of a packet of TCP."""
    version = packet[0] >> 4
    if version == 4 and packet[9] == socket.IPPROTO_TCP:
        return "4", packet[1] >> 2
    if version == 6 and packet[6] == socket.IPPROTO_TCP:
        return "6", (int.from_bytes(packet[:2], "big") >> 4 & 0xFF) >> 2
    return None


def main() -> None:
    counts: dict[str, Counter[int]] = {"4": Counter(), "6": Counter()}
    with socket.socket(
        socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)
    ) as sock:
        say(event="ready")
        while True:
            ready, _, _ = select.select([sock, sys.stdin], [], [])
            if sock in ready:
                packet, address = sock.recvfrom(128)
                found = dscp_of(packet) if address[2] == _OUTGOING else None
                if found is not None:
                    counts[found[0]][found[1]] += 1
            elif not sys.stdin.readline():
                return
            else:
                say(event="sent", **counts)


if __name__ == "__main__":
    main()
