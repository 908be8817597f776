"""A program that looks for neighbours: commands on stdin, events on stdout, as JSON.

    {"publish": {"port": 4711, "complete": ["<checksum>", …]}}
    {"withdraw": true}   {"unreachable": "<instance>"}   {"counts": true}

It says goodbye when its input ends.
"""

import argparse
import json
import os
import sys
from typing import Any

import trio

from p2p.net.advert import AdvertKey, InstanceId
from p2p.net.discovery import Discovery, Settings, open_discovery
from p2p.net.interfaces import Choice
from p2p.net.neighbours import PeerEvent, PeerGone
from p2p.ostree.objects import Checksum


def say(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def show(event: PeerEvent) -> None:
    name = type(event).__name__
    if isinstance(event, PeerGone):
        say(name, instance=event.instance.hex())
        return
    there = event.neighbour
    say(
        name,
        instance=there.instance.hex(),
        epoch=there.advert.epoch,
        targets=[list(target) for target in there.targets],
    )


async def browse(discovery: Discovery) -> None:
    async for event in discovery.browser:
        show(event)


async def obey(discovery: Discovery, own: InstanceId, nursery: trio.Nursery) -> None:
    key = AdvertKey.open()
    buffer = b""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as commands:
        async for data in commands:
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for command in map(json.loads, lines):
                match command:
                    case {"publish": facts}:
                        held = [Checksum(text) for text in facts.get("complete", [])]
                        advert = key.make(own, epoch=len(held), complete=held)
                        discovery.advertiser.publish(advert, facts["port"])
                    case {"withdraw": _}:
                        discovery.advertiser.withdraw()
                    case {"unreachable": instance}:
                        asked = InstanceId(bytes.fromhex(instance))
                        nursery.start_soon(discovery.unreachable, asked)
                    case {"counts": _}:
                        say(
                            "counts",
                            packets=discovery.counts(),
                            ignored=dict(discovery.browser.ignored),
                            reasons=list(discovery.browser.reasons),
                            peers=len(discovery.browser.peers()),
                        )


async def main(options: argparse.Namespace) -> None:
    own = InstanceId(bytes.fromhex(options.instance))
    settings = Settings(
        choice=Choice(only=tuple(options.interface)),
        start_jitter=options.jitter,
        update_jitter=0,
        update_interval=options.interval,
    )
    async with open_discovery(own, settings) as discovery:
        say("ready", interfaces=[i.name for i in discovery.interfaces])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(browse, discovery)
            await obey(discovery, own, nursery)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("instance")
    parser.add_argument("--interface", action="append", default=[])
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--interval", type=float, default=0.5)
    trio.run(main, parser.parse_args())
