"""Start N real agents in network namespaces of this machine and print how they do.

    python -m tests.lab --devices=8 --link=80mbit --bytes=128 --objects=8
    python -m tests.lab --devices=8 --wan=10mbit --debian
    python -m tests.lab --devices=8 --wan=10mbit --bytes=64 --kill=0.5

Needs root, iproute2 and ostree. Nothing of the machine's own network is touched.
"""

import argparse
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.debian import debian_tree
from tests.lab.bad_holder import CONDUCTS
from tests.lab.faults import Cut, Fault, KillBusiest, Unplug, count_uplink
from tests.lab.trial import Plan, run_trial, show, to_json
from tests.mounts import mount_tmpfs
from tests.trees import MIB


def even_tree(path: Path, *, objects: int, size: int) -> None:
    """Make so many files of the same size that do not compress, together `size`."""
    rng = random.Random(1)
    for number in range(objects):
        folder = path / f"d{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(rng.randbytes(size // objects))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--devices", type=int, default=8, help="that lack everything")
    parser.add_argument("--holders", type=int, help="that have everything")
    parser.add_argument("--link", default="80mbit", help="of each device, both ways")
    parser.add_argument("--wan", help="rate of the uplink to an origin")
    parser.add_argument("--bytes", type=int, default=128, help="of content, in MiB")
    parser.add_argument("--objects", type=int, default=8, help="that have these bytes")
    parser.add_argument("--debian", action="store_true", help="a real Debian tree")
    parser.add_argument("--tree", type=Path, help="the tree in this directory")
    parser.add_argument(
        "--bad", choices=sorted(CONDUCTS), help="how one more holder misbehaves"
    )
    parser.add_argument(
        "--unplug", type=float, metavar="SECONDS", help="the last device's cable"
    )
    for name, what in (
        ("--kill", "kill the busiest fetcher when this share of a copy has come"),
        ("--cut", "cut the LAN in halves then"),
        ("--heal", "and heal it after so much more of a copy"),
    ):
        parser.add_argument(name, type=float, metavar="SHARE", help=what)
    parser.add_argument(
        "--plain", action="store_true", help="compress nothing between devices"
    )
    parser.add_argument("--seconds", type=float, default=900, help="at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=Path, help="where; a tmpfs if not given")
    options = parser.parse_args()
    faults: list[Fault] = []
    if options.unplug is not None:
        faults.append(Unplug(options.unplug))
    if options.kill is not None:
        faults += [count_uplink, KillBusiest(options.kill)]
    if options.cut is not None:
        faults.append(Cut(options.cut, options.heal))
    holders = options.holders
    if holders is None:
        holders = 0 if options.wan else 1
    plan = Plan(
        devices=options.devices,
        holders=holders,
        link=options.link,
        wan=options.wan,
        compress=not options.plain,
        bad=options.bad,
        seconds=options.seconds,
    )
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.work)))
        if options.work is None:
            work = stack.enter_context(mount_tmpfs(work, 20480 * MIB))
        tree = options.tree or (debian_tree() if options.debian else work / "tree")
        if not tree.exists():
            even_tree(tree, objects=options.objects, size=options.bytes * MIB)
        figures = run_trial(plan, work, tree, at=faults)
    print(to_json(figures) if options.json else show(figures))


if __name__ == "__main__":
    main()
