"""A faults file says when what happens to whom, and is refused by file and line."""

from pathlib import Path

import pytest

from p2p.errors import ConfigError
from p2p.sim.fault import VILLAIN_KINDS, Mishap, parse_faults

EXAMPLE = Path(__file__).parents[2] / "examples/sim/bad-day.faults"


def test_times_are_seconds_or_a_share_of_the_bound() -> None:
    text = "5 heal\n2.5s heal\n250ms heal\n40% heal\n"
    assert [f.at(10.0) for f in parse_faults(text, "f")] == [5, 2.5, 0.25, 4]


def test_comments_and_empty_lines_count_nothing() -> None:
    faults = parse_faults("# nothing\n\n  1s kill device-3  # why\n", "f")
    assert [(f.mishap, f.who, f.where) for f in faults] == [
        (Mishap.KILL, ("device-3",), "f:3")
    ]


def test_the_example_is_right() -> None:
    faults = parse_faults(EXAMPLE.read_text(), str(EXAMPLE))
    assert {f.mishap for f in faults} >= {Mishap.CUT, Mishap.HEAL, Mishap.VILLAIN}


def test_every_kind_of_villain_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/simulator.md").read_text()
    for word in (*VILLAIN_KINDS, *(mishap.value for mishap in Mishap)):
        assert f"`{word}`" in text or f"`TIME {word}" in text


@pytest.mark.parametrize(
    "line, reason",
    [
        ("5s", "a time and an event are needed"),
        ("soon kill device-1", "'soon' is no time"),
        ("-1s heal", "'-1s' is no time"),
        ("5h heal", "'5h' is no time"),
        ("5s explode", "'explode' is no event; there are kill, silence"),
        ("5s kill", "write it as `TIME kill DEVICE`"),
        ("5s heal everything", "write it as `TIME heal`"),
        ("5s kill server", "'server' is no device"),
        ("5s kill device-0", "'device-0' is no device"),
        ("5s reset device-1", "write it as `TIME reset DEVICE DEVICE`"),
        ("5s rate device-1 fast", "'fast' is no rate"),
        ("5s villain nice", "'nice' is no villain; there are silent"),
    ],
)
def test_a_wrong_line_is_named(line: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_faults(f"1s heal\n{line}\n", "bad.faults")
    assert caught.value.where == "bad.faults:2"
    assert reason in caught.value.reason
