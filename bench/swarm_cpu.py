"""CPU and memory of one device's scheduler: many objects, many neighbours.

Neighbours answer at once and tell every 50 ms what they got since; half of them have
everything. Only the time inside the scheduler counts. Run:

    python -m bench.swarm_cpu [--objects=16000] [--peers=16] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
import tracemalloc
from collections import deque
from random import Random

from p2p.sim.site import device_id
from p2p.sim.tree import Tree, even_files, make_tree
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.scheduler import Scheduler
from p2p.wire.messages import Held, HeldCommit

OBJECT_BYTES = 26 << 10
TICK = 0.05


class Drive:
    """Feeds a scheduler and counts the seconds it takes."""

    def __init__(self, tree: Tree, peers: int) -> None:
        self.tree = tree
        rng = Random(1)  # noqa: S311 - the same run each time
        self.scheduler = Scheduler(device_id("me"), rng=rng)
        self.peers = [device_id(f"peer {k}") for k in range(peers)]
        self.now = 0.0
        self.seconds = 0.0
        self.calls = 0
        self.todo: deque[tuple[e.Event, ...]] = deque()
        self.profile = cProfile.Profile()

    def tell(self, *events: e.Event) -> None:
        """Pass events on and answer what the scheduler asks for."""
        started = time.process_time()
        for event in events:
            self.scheduler.handle(event, self.now)
        actions = self.scheduler.actions(self.now)
        self.scheduler.next_timeout()
        self.seconds += time.process_time() - started
        self.calls += 1
        for action in actions:
            self.answer(action)

    def answer(self, action: a.Action) -> None:
        """Queue the events that an action leads to."""
        match action:
            case a.RequestBatch(peer, request, names):
                objects = tuple((name, self.tree.sizes[name]) for name in names)
                size = sum(size for _, size in objects)
                while size > 0:
                    self.todo.append((e.DataArrived(peer, min(size, 64 << 10)),))
                    size -= 64 << 10
                end = e.RequestEnded(peer, request, e.Outcome.DONE)
                self.todo.append((e.ObjectsDelivered(peer, request, objects), end))
            case a.Ask(peer, request, names):
                sizes = tuple(self.tree.sizes[name] for name in names)
                self.todo.append((e.AskAnswered(peer, request, sizes),))
            case a.Watch(peer, _, commit):
                self.todo.append((e.HaveChanged(peer, (), (), commit),))
            case a.Accept(names):
                self.todo.append((e.ObjectsVerified(names),))
                for name in names:
                    if name in self.tree.children:
                        found = self.tree.children[name]
                        self.todo.append((e.Wanted(self.tree.commit, found),))

    def run(self) -> None:
        """Pull the tree."""
        commit = self.tree.commit
        news = {
            peer: list(self.tree.sizes) for k, peer in enumerate(self.peers) if k % 2
        }
        for k, peer in enumerate(self.peers):
            Random(k).shuffle(news.get(peer, []))  # noqa: S311 - as above
            held = Held.PARTIAL if k % 2 else Held.COMPLETE
            self.tell(
                e.PeerJoined(peer),
                e.HoldingsChanged(peer, (HeldCommit(commit, held),)),
            )
        self.tell(e.Wanted(commit, self.tree.start))
        step = len(self.tree.sizes) // 400 + 1
        told = False
        while self.todo or not self.scheduler.is_complete:
            self.now += TICK
            for _ in range(min(len(self.todo), 100)):
                self.tell(*self.todo.popleft())
            for peer in news:
                some, news[peer] = news[peer][:step], news[peer][step:]
                self.tell(e.HaveChanged(peer, tuple(some)))
            if not told and not self._unread():
                told = True
                self.tell(e.ClosureKnown(commit))

    def _unread(self) -> bool:
        return any(name in self.tree.children for name in self.scheduler.missing())


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=16_000)
    parser.add_argument("--peers", type=int, default=16)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    tree = make_tree("cpu", even_files("file", options.objects, OBJECT_BYTES))
    if options.memory:
        tracemalloc.start()
    drive = Drive(tree, options.peers)
    if options.profile:
        drive.profile.enable()
    drive.run()
    if options.profile:
        drive.profile.disable()
        pstats.Stats(drive.profile).sort_stats("tottime").print_stats(30)
    if options.memory:
        print(f"{tracemalloc.get_traced_memory()[1] / 2**20:.0f} MiB at most")
    print(
        f"{len(tree.sizes)} objects, {options.peers} neighbours: "
        f"{drive.seconds:.2f} s in the scheduler, {drive.calls} calls, "
        f"{drive.seconds / len(tree.sizes) * 1e6:.0f} us an object"
    )


if __name__ == "__main__":
    main()
