"""mDNS packets made by hand (RFC 1035 §4, RFC 6763 §4 to §6), good and bad."""

import ipaddress
import socket
import struct

from p2p.net.advert import AdvertKey, InstanceId, encode
from p2p.net.neighbours import label

PTR, TXT, AAAA, SRV, A = 12, 16, 28, 33, 1
UNIQUE = 0x8001  # class IN with the cache-flush bit


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in labels) + b"\0"


SERVICE = name(b"_ostree-p2p", b"_tcp", b"local")


def service(first: bytes) -> bytes:
    """The name of an instance of our service."""
    return name(first)[:-1] + SERVICE


def record(owner: bytes, kind: int, data: bytes, *, ttl: int, flag: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", kind, flag, ttl, len(data)) + data


def response(*records: bytes) -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def pointer_only(alias: bytes, *, ttl: int = 4500) -> bytes:
    """An answer that says there is such a service, and nothing else."""
    return response(record(SERVICE, PTR, alias, ttl=ttl))


def announce(
    who: InstanceId,
    *addresses: str,
    port: int = 4711,
    txt: bytes | None = None,
    ttl: int = 4500,
    first: str = "",
) -> bytes:
    """All that an agent says of itself, in one packet; with `ttl` 0 a goodbye."""
    first_label = (first or label(who)).encode()
    owner, host = service(first_label), name(first_label, b"local")
    told = encode(AdvertKey.open().make(who)) if txt is None else txt
    records = [
        record(SERVICE, PTR, owner, ttl=ttl),
        record(owner, SRV, struct.pack("!3H", 0, 0, port) + host, ttl=ttl, flag=UNIQUE),
        record(owner, TXT, told, ttl=ttl, flag=UNIQUE),
    ]
    for text in addresses:
        address = ipaddress.ip_address(text)
        kind = A if address.version == 4 else AAAA
        records.append(record(host, kind, address.packed, ttl=ttl, flag=UNIQUE))
    return response(*records)


def throw(source: str, *packets: bytes) -> None:
    """Multicast packets from an address of this machine, port 5353, as mDNS wants."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        interface = socket.inet_aton(source)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        sock.bind((source, 5353))
        for packet in packets:
            sock.sendto(packet, ("224.0.0.251", 5353))
