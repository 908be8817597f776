"""One end of a TLS session in the lab: commands on stdin, events on stdout, as JSON.

    {"dial": ["HOST", PORT]}   {"send": "TEXT"}

The first argument is its state directory. It listens, tells its port, and says what
comes; a session that ends badly is told with the kind of error.
"""

import json
import os
import sys
from typing import Any

import trio

from p2p.errors import TransportError
from p2p.net.identity import open_identity
from p2p.net.listener import Listener
from p2p.net.target import Target
from p2p.net.tls import Contact, Endpoint, dial
from p2p.trust.policy import Clock


def say(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


class End:
    """This process: it has one session at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._contact: Contact | None = None

    async def talk(self, contact: Contact) -> None:
        self._contact = contact
        say("met", address=contact.address, peer=contact.peer)
        try:
            while data := await contact.stream.receive_some():
                say("received", text=data.decode())
        except TransportError as error:
            say("lost", kind=type(error).__name__, text=str(error))
        else:
            say("ended")

    async def dial(self, target: Target) -> None:
        await self.talk(await dial(self._endpoint, [target]))

    async def obey(self, nursery: trio.Nursery) -> None:
        buffer = b""
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as commands:
            async for data in commands:
                buffer += data
                *lines, buffer = buffer.split(b"\n")
                for command in map(json.loads, lines):
                    match command:
                        case {"dial": target}:
                            nursery.start_soon(self.dial, Target(*target))
                        case {"send": text}:
                            assert self._contact is not None
                            await self._contact.stream.send_all(text.encode())


async def main(state: str) -> None:
    endpoint = Endpoint(open_identity(state), lambda: Clock(now=0, trusted=False))
    listener = await Listener.open(0)
    end = End(endpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, endpoint, end.talk)
        say("ready", port=listener.port)
        await end.obey(nursery)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
