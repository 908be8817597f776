"""An origin in memory that can be made to do anything, and pulls from it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2p.ostree.objects import ObjectName
from tests.pulls import REF, Client, Result
from tests.web.client.servers import Exchange, Handler, Server, serving
from tests.web.treehub.hub import Objects


@dataclass(slots=True)
class Origin:
    """An archive repository in memory; `faults` answer instead of it, by path."""

    made: Objects
    server: Server
    faults: dict[str, Handler] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def publish(self, made: Objects) -> None:
        self.made = made
        self.files |= {
            f"/objects/{name.path(archive=True)}": data
            for name, data in made.stored.items()
        }
        self.files[f"/refs/heads/{REF}"] = f"{made.commit}\n".encode()

    async def handle(self, exchange: Exchange) -> None:
        path = exchange.asked.path
        body = self.files.get(path)
        if path in self.faults:
            await self.faults[path](exchange)
        elif body is None:
            await exchange.reply(404, b"no such file")
        else:
            await exchange.reply(200, body)

    def break_file(self, name: ObjectName, fault: Handler) -> None:
        """Have an object answered by a fault."""
        self.faults[f"/objects/{name.path(archive=True)}"] = fault


@asynccontextmanager
async def run_origin(made: Objects) -> AsyncIterator[Origin]:
    async def handle(exchange: Exchange) -> None:
        await origin.handle(exchange)

    async with serving(handle) as server:
        origin = Origin(made, server)
        origin.publish(made)
        yield origin


async def pull(client: Client, *arguments: object) -> Result:
    """Run the command on a thread, beside the server that it talks to."""
    options = arguments or ("--network-retries=1", REF)
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(client.pull, *options)


def device(tmp_path: Path, origin: Origin, mode: str = "bare-user") -> Client:
    """A repository whose remote is this origin and demands no signature."""
    return Client.create(tmp_path / "device", mode, origin.server.url)
