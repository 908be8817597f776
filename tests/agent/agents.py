"""Agents in this process, their origin, and commands to them by their socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from p2p.agent.config import AgentConfig, Follow
from p2p.agent.daemon import run_agent
from p2p.cli.local_api import ask
from p2p.cli.writer import open_configured_writer
from p2p.deploy.target import TreeTarget
from p2p.net.target import Target
from p2p.ostree.repo import Repo
from p2p.web.server.pace import Pace
from tests.agent.devices import REF, Publisher
from tests.web.client.servers import Exchange, Server, serving

REFSPEC = f"hub:{REF}"


@dataclass(slots=True)
class FileOrigin:
    """An archive repository over HTTP; while `away`, every request is refused.

    If `busy`, whoever wants directories or content is to come back after so many
    seconds. `pace` makes it a thin link; `served` are paths, `sent_bytes` of objects.
    """

    repo: Repo
    away: bool = False
    busy: int = 0
    pace: Pace | None = None
    sent_bytes: int = 0
    server: Server | None = None
    served: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    async def handle(self, exchange: Exchange) -> None:
        path = Path(self.repo.path, exchange.asked.path.lstrip("/"))
        if self.away:
            await exchange.reply(503, b"")
        elif self.busy and path.suffix in {".dirtree", ".dirmeta", ".filez"}:
            await exchange.reply(503, b"", {"Retry-After": str(self.busy)})
        elif path.is_file():
            self.served.append(exchange.asked.path)
            body = path.read_bytes()
            if self.pace is not None:
                await self.pace.wait(len(body))
            self.sent_bytes += len(body)
            await exchange.reply(200, body)
        else:
            await exchange.reply(404, b"")


@asynccontextmanager
async def run_origin(repo: Repo) -> AsyncIterator[FileOrigin]:
    origin = FileOrigin(repo)
    async with serving(origin.handle) as server:
        origin.server = server
        yield origin


@dataclass(slots=True)
class RunningAgent:
    """One agent and how to command it."""

    config: AgentConfig

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return await trio.to_thread.run_sync(ask, self.config, path, body)

    async def status(self) -> Any:
        return await self.ask("/status")

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        """Wait until the status fulfils a condition; return it."""
        status = None
        with trio.move_on_after(30):
            while not condition(status := await self.status()):
                await trio.lowlevel.checkpoint()
            return status
        raise AssertionError(f"never came: {json.dumps(status, indent=1)}")

    async def until_commit(self, commit: str) -> Any:
        """Wait until the first branch is at a commit, deployed where that is wanted."""
        return await self.until(
            lambda status: (
                status["branches"][0]["commit"] == commit
                and status["branches"][0]["pull"] is None
            )
        )


def agent_config(
    directory: Path, publisher: Publisher, url: str, **settings: Any
) -> AgentConfig:
    """The configuration of a device that follows and deploys the publisher's branch."""
    follow = Follow(
        remote="hub",
        ref=REF,
        url=url,
        key=str(publisher.keys / "signing.pub"),
        deploy=True,
    )
    config = AgentConfig(
        repo=str(directory / "repo"),
        state=str(directory / "state"),
        socket=str(directory / "agent.sock"),
        listen_host="127.0.0.1",
        listen_port=0,
        mdns=False,
        poll_seconds=3600,
        deploy=TreeTarget(str(directory / "run")),
        follow=(follow,),
    )
    return replace(config, **settings)


@asynccontextmanager
async def run(
    config: AgentConfig, *, share: bool = True
) -> AsyncIterator[RunningAgent]:
    """Run an agent for the time of the block."""
    ready = trio.Event()
    async with trio.open_nursery() as nursery:

        async def main() -> None:
            await run_agent(
                config,
                open_writer=open_configured_writer,
                share=share,
                ready=lambda _: ready.set(),
                environment={},
            )

        nursery.start_soon(main)
        with trio.fail_after(30):
            await ready.wait()
        yield RunningAgent(config)
        nursery.cancel_scope.cancel()


def neighbour_of(status: Any) -> tuple[Target, ...]:
    """The static peer that an agent with this status is."""
    return (Target("127.0.0.1", status["port"]),)
