"""One libtorrent peer: `python -m bench.torrent SETTINGS TORRENT DIR PORT`.

`SETTINGS` is `default`, or `tuned` for a LAN where everybody is trusted: no limit of
upload slots, short queues, no waiting rounds. It says `ready` once the files it has are
checked. The addresses of the peers come as one line on standard input; then it begins,
and says `complete` when it has everything.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import libtorrent

_ALONE: dict[str, Any] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
}
_TUNED: dict[str, Any] = {
    "unchoke_slots_limit": -1,
    "connection_speed": 100,
    "request_queue_time": 1,
    "unchoke_interval": 1,
    "optimistic_unchoke_interval": 1,
    "suggest_mode": 1,
    "prioritize_partial_pieces": True,
    "smooth_connects": False,
    "torrent_connect_boost": 255,
}
_LOOK_SECONDS = 0.01


def make_torrent(tree: Path, path: Path) -> None:
    """Write a torrent of a directory, in pieces of 256 KiB."""
    creator = libtorrent.create_torrent(libtorrent.list_files(str(tree)), 256 << 10)
    libtorrent.set_piece_hashes(creator, str(tree.parent))
    path.write_bytes(libtorrent.bencode(creator.generate()))


def main() -> None:
    """Take part in one swarm until killed."""
    settings, torrent, directory, port = sys.argv[1:]
    session = libtorrent.session(
        {
            **_ALONE,
            **(_TUNED if settings == "tuned" else {}),
            "listen_interfaces": f"0.0.0.0:{port}",
        }
    )
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(torrent)
    parameters.save_path = directory
    flags = libtorrent.torrent_flags
    parameters.flags &= ~(flags.auto_managed | flags.paused)
    handle = session.add_torrent(parameters)
    while handle.status().state <= libtorrent.torrent_status.checking_files:
        time.sleep(_LOOK_SECONDS)
    print("ready", flush=True)
    for address in sys.stdin.readline().split():
        handle.connect_peer((address, int(port)))
    while not handle.status().is_seeding:
        time.sleep(_LOOK_SECONDS)
    print("complete", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
