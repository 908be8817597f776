"""How many bytes of content TCP carries over a shaped link: sent from host to host.

What a swarm could reach at best is worked out from this, not from the nominal rate.
"""

import socket
import sys
import time

from tests.lab.lines import Lines
from tests.lab.namespaces import Host
from tests.trees import MIB

_PORT = 5201
_SECONDS = 2.0
# What fills the buffers and the token bucket before the rate is that of the link.
_WARM_UP_BYTES = MIB // 2


def measure_goodput(source: Host, target: Host) -> float:
    """Return bytes/s from one host to another, which nobody else uses meanwhile."""
    receiver = target.python("tests.lab.goodput", "receive")
    lines = Lines(receiver)
    if lines.next(10) is None:
        raise RuntimeError("the receiver of the goodput measurement ended")
    sender = source.python("tests.lab.goodput", "send", target.address)
    rate = lines.next(_SECONDS + 30)
    if rate is None or sender.wait(10) or receiver.wait(10):
        raise RuntimeError("the goodput measurement failed")
    return float(rate)


def _send(address: str) -> None:
    chunk = bytes(64 << 10)
    with socket.create_connection((address, _PORT)) as stream:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            stream.sendall(chunk)


def _receive() -> float:
    with socket.create_server(("", _PORT)) as server:
        print("ready", flush=True)
        stream, _ = server.accept()
    with stream:
        count = 0
        while count < _WARM_UP_BYTES:
            count += len(stream.recv(64 << 10))
        begin = end = time.monotonic()
        count = 0
        while data := stream.recv(64 << 10):
            count += len(data)
            end = time.monotonic()
    return count / (end - begin)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2])
    else:
        print(_receive(), flush=True)
