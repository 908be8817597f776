"""Objects a second through the protocol in memory: encode, decode, SHA-256.

Two connections in one process hand each other their bytes; one asks for batches of
256 KiB and hashes each object it gets, the other answers. No sockets, disk or TLS:
what this prints is the most one core could do. Run: python bench/wire.py
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import pstats
import random
import time
from typing import TypeVar

from p2p.ostree.objects import Checksum, ObjectName, ObjectType, checksum_of
from p2p.wire.connection import Connection
from p2p.wire.limits import BATCH_BYTES, MAX_BATCH_OBJECTS, UNIT_BYTES
from p2p.wire.messages import Batch, GetUnit, Hello, Miss, Unit, Want

T = TypeVar("T")
Objects = dict[ObjectName, bytes]


def make_objects(size: int, total: int) -> Objects:
    """Return distinct objects of `size` bytes, `total` bytes together."""
    source = random.Random(size)  # noqa: S311 - made-up content, the same each run
    contents = [source.randbytes(size) for _ in range(total // size)]
    return {ObjectName(checksum_of(c), ObjectType.FILE): c for c in contents}


def connect() -> tuple[Connection, Connection]:
    """Return two connections that have said HELLO to each other."""
    pair = Connection(), Connection()
    for number, end in enumerate(pair):
        hello = Hello(
            software="bench", site="", instance=bytes(16), epoch=1, dial=number
        )
        end.send(hello)
    asker, giver = pair
    carry(asker, giver, Hello)
    carry(giver, asker, Hello)
    return pair


def carry(source: Connection, target: Connection, kind: type[T]) -> list[T]:
    """Hand over all that waits and return the events of a kind that it makes."""
    events = []
    while buffers := source.data_to_send():
        target.receive_data(b"".join(buffers))
        while (event := target.next_event()) is not None:
            if isinstance(event, kind):
                events.append(event)
    return events


def fetch_batches(objects: Objects) -> None:
    """Move all objects in batches, and check each one's SHA-256."""
    asker, giver = connect()
    names = list(objects)
    each = len(objects[names[0]])
    step = max(1, min(MAX_BATCH_OBJECTS, BATCH_BYTES // each))
    for start in range(0, len(names), step):
        wanted = tuple(names[start : start + step])
        asker.send(Want(asker.new_request(), BATCH_BYTES, wanted))
        [request] = carry(asker, giver, Want)
        found = tuple([objects[name] for name in request.names])
        giver.send(Batch(request.request, found))
        [batch] = carry(giver, asker, Batch)
        for name, data in zip(wanted, batch.objects, strict=True):
            if isinstance(data, Miss) or checksum_of(data) != name.checksum:
                raise SystemExit(f"{name} did not arrive")


def fetch_units(data: bytes) -> None:
    """Move one large object in units, and hash each."""
    asker, giver = connect()
    name = ObjectName(Checksum("0" * 64), ObjectType.FILE)
    for offset in range(0, len(data), UNIT_BYTES):
        asker.send(GetUnit(asker.new_request(), name, offset, UNIT_BYTES))
        [request] = carry(asker, giver, GetUnit)
        end = request.offset + request.length
        giver.send(Unit(request.request, data[request.offset : end]))
        [unit] = carry(giver, asker, Unit)
        hashlib.sha256(unit.data).digest()


def main() -> None:
    """Print a table, and a profile if wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="of 4 KiB objects")
    parser.add_argument("--mib", type=int, default=64, help="moved in each row")
    options = parser.parse_args()
    total = options.mib << 20
    if options.profile:
        objects = make_objects(4096, total)
        with cProfile.Profile() as profile:
            fetch_batches(objects)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    print("object bytes   objects/s      MB/s")
    for size in (200, 1024, 4096, 26_000, 262_144):
        objects = make_objects(size, min(total, size * 40_000))
        start = time.process_time()
        fetch_batches(objects)
        spent = time.process_time() - start
        rate = len(objects) / spent
        print(f"{size:12,} {rate:11,.0f} {rate * size / 1e6:9,.0f}")
    data = random.Random(0).randbytes(total)  # noqa: S311 - as above
    start = time.process_time()
    fetch_units(data)
    spent = time.process_time() - start
    print(f"  units of one object  {total / spent / 1e6:9,.0f}")


if __name__ == "__main__":
    main()
