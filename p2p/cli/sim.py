"""`p2p sim`: how a site would fare, by the production scheduler in virtual time."""

from __future__ import annotations

import gc
import re
import resource
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import click

from p2p.cli.options import format_bytes, json_option, print_json, print_line
from p2p.errors import ConfigError
from p2p.rate import parse_rate
from p2p.sim.fault import Fault, parse_faults
from p2p.sim.history import Recorder, Trace
from p2p.sim.published import read_tree
from p2p.sim.report import Report, make_report
from p2p.sim.scenario import Rehearsal, Scenario
from p2p.sim.tree import Tree, even_files, make_tree, system_files

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)(ms|s)?")
_LARGE_BYTES = 16 << 20
_EVEN_BYTES = 33 << 10
# A Debian tree.
_SYSTEM_OBJECTS = 16_000
_SYSTEM_BYTES = 422 << 20
_MIN_FAULT_FREE = "give --holders=N or --wan=RATE: somebody must have the commit"


@dataclass(frozen=True, slots=True)
class Cost:
    """What the simulation itself took."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@click.command
@click.option(
    "--devices", type=click.IntRange(1, 100_000), default=8, show_default=True
)
@click.option(
    "--holders",
    type=click.IntRange(0, 10_000),
    help="Devices that have it from the start.  [default: 1; 0 with --wan]",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--bytes", "size", metavar="SIZE", help="[default: 128MiB]")
@click.option(
    "--objects", type=click.IntRange(1, 1_000_000), help="Files.  [default: by --tree]"
)
@click.option(
    "--tree",
    "kind",
    default="large",
    show_default=True,
    metavar="large|even|system|REPO:REF",
    help="Large files, small ones of one size, those of an operating system, or those "
    "of a real commit.",
)
@click.option(
    "--link",
    default="80mbit",
    show_default=True,
    metavar="RATE",
    help="Each device's uplink, and its downlink.",
)
@click.option(
    "--wan", metavar="RATE", help="The origin's link; without it there is no origin."
)
@click.option(
    "--latency", default="0.5ms", show_default=True, metavar="TIME", help="One way."
)
@click.option(
    "--loss",
    type=click.FloatRange(0, 50),
    default=0,
    metavar="PERCENT",
    help="How many slices of 64 KiB, or messages, are lost and come 0.2 to 0.6 s late.",
)
@click.option(
    "--start",
    default="0s",
    metavar="TIME",
    help="Devices begin one after the other, over this time.",
)
@click.option(
    "--degree",
    type=click.IntRange(4, 1000),
    default=16,
    show_default=True,
    help="Sessions of a device.",
)
@click.option(
    "--faults",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What goes wrong, one event a line; see docs/simulator.md.",
)
@click.option("--trace", metavar="FILE", help="Write a line for every action.")
@click.option("--plot", metavar="FILE.png", help="Draw how it went.")
@json_option
def sim(  # noqa: PLR0913 - one argument an option
    *,
    devices: int,
    holders: int | None,
    seed: int,
    size: str | None,
    objects: int | None,
    kind: str,
    link: str,
    wan: str | None,
    latency: str,
    loss: float,
    start: str,
    degree: int,
    faults: Path | None,
    trace: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Simulate a site that updates: the real scheduler, in virtual time.

    Prints how long it takes beside the least time that any method would need, and how
    many copies leave the holder or cross the WAN. The same seed gives the same run.
    """
    if plot is not None:
        from p2p.cli.plot import check_plot  # noqa: PLC0415 - matplotlib is slow to load

        check_plot(plot)
    scenario = Scenario(
        tree=_tree(kind, size, objects, seed),
        devices=devices,
        holders=int(wan is None) if holders is None else holders,
        seed=seed,
        link=parse_rate(link, where="--link"),
        wan=None if wan is None else parse_rate(wan, where="--wan"),
        latency=_parse_seconds(latency, "--latency"),
        loss=loss / 100,
        start=_parse_seconds(start, "--start"),
        degree=degree,
        faults=() if faults is None else _read_faults(faults),
    )
    if not scenario.holders and wan is None:
        raise click.UsageError(_MIN_FAULT_FREE)
    rehearsal = Rehearsal(scenario)
    recorder = None if plot is None else Recorder(rehearsal)
    cost = _run(rehearsal, trace)
    report = make_report(rehearsal)
    if recorder is not None and plot is not None:
        from p2p.cli.plot import draw  # noqa: PLC0415 - matplotlib is slow to load

        recorder.record()
        draw(recorder.history, report, plot)
    if as_json:
        print_json({**asdict(report), **asdict(cost)})
    else:
        for line in describe(report, cost):
            print_line(line)


def _run(rehearsal: Rehearsal, trace: str | None) -> Cost:
    wall, cpu = time.monotonic(), time.process_time()
    with ExitStack() as stack:
        if trace is not None:
            file = stack.enter_context(open(trace, "w", encoding="utf-8"))
            Trace(file, rehearsal)
        # A large site is millions of objects that live until the end; looking for
        # garbage among them takes half of the time, and there is next to none.
        gc.disable()
        try:
            rehearsal.run()
        finally:
            gc.enable()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return Cost(time.monotonic() - wall, time.process_time() - cpu, peak)


# -- what is asked for -----------------------------------------------------------------


def _tree(kind: str, size: str | None, objects: int | None, seed: int) -> Tree:
    repo, colon, ref = kind.partition(":")
    if colon:
        if size is not None or objects is not None:
            raise click.UsageError("a real commit has its own --bytes and --objects")
        return read_tree(repo, ref)
    total = parse_size(size or "128MiB", where="--bytes")
    if kind == "system":
        count = objects or max(_SYSTEM_OBJECTS * total // _SYSTEM_BYTES, 2)
        rng = Random(seed)  # noqa: S311 - equal seeds, equal trees
        files = system_files(kind, count, total, rng)
    elif kind in {"large", "even"}:
        typical = _LARGE_BYTES if kind == "large" else _EVEN_BYTES
        count = objects or max(total // typical, 1)
        files = even_files(kind, count, max(total // count, 1))
    else:
        raise click.BadParameter(
            f"{kind!r} is none of large, even, system and REPO:REF", param_hint="--tree"
        )
    return make_tree(kind, files)


def parse_size(text: str, *, where: str) -> int:
    """Return the bytes in `128MiB` or `64MB`; ConfigError if it is no size."""
    match = _SIZE.fullmatch(text.strip())
    size = 0.0
    if match is not None:
        base = 1024 if match[3] else 1000
        size = float(match[1]) * base ** _POWERS[match[2].lower()]
    if match is None or size < 1 or (match[3] and not match[2]):
        raise ConfigError(where, f"{text!r} is no size", hint="Examples: 64MB, 128MiB.")
    return int(size)


def _parse_seconds(text: str, where: str) -> float:
    match = _SECONDS.fullmatch(text.strip())
    if match is None:
        raise ConfigError(where, f"{text!r} is no time", hint="Examples: 0.5ms, 30s.")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def _read_faults(path: Path) -> tuple[Fault, ...]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
    return parse_faults(text, str(path))


# -- what came of it -------------------------------------------------------------------


def describe(report: Report, cost: Cost) -> list[str]:
    """Return the figures of a run for people."""
    devices, holders = (
        _count(report.devices, "device"),
        _count(report.holders, "holder"),
    )
    size = f"{format_bytes(report.bytes)} in {report.objects} objects"
    lines = [f"{devices}, {holders}, {size}, seed {report.seed}"]
    if report.last is None or report.ratio is None:
        lines.append("nobody got everything")
    else:
        lines.append(
            f"last device after {report.last:.2f} s: {report.ratio:.3f} times "
            f"the bound of {report.bound:.2f} s"
        )
        lines.append(f"first after {report.first:.2f} s, median {report.median:.2f} s")
    if report.unfinished:
        lines.append(f"not finished: {_count(report.unfinished, 'device')}")
    if report.holder_copies is not None:
        lines.append(f"copies that left the holders: {report.holder_copies:.3f}")
    if report.wan_copies is not None:
        lines.append(f"copies that crossed the WAN: {report.wan_copies:.3f}")
    if report.after_wan is not None:
        lines.append(f"last device {report.after_wan:.2f} s after the last WAN byte")
    lines.append(f"received twice: {report.duplicates:.2%} of all content")
    control = format_bytes(report.control)
    lines.append(f"control: {control}, {report.control_share:.2%} of all bytes")
    if report.banned:
        lines.append(f"sent away for lying: {report.banned} sessions")
    cpu, peak = cost.cpu_seconds, format_bytes(cost.peak_bytes)
    lines.append(f"simulated in {cost.wall_seconds:.1f} s ({cpu:.1f} s CPU, {peak})")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
