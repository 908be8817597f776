"""Hours in which other limits hold: days, midnight, and clocks that jump."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.agent.config import AgentConfig, parse_config
from p2p.agent.hours import DAYS, Window, format_days, layers_at
from p2p.errors import ConfigError

DEFAULTS = AgentConfig(repo="/r", state="/s", socket="/s/agent.sock")
MONDAY, FRIDAY, SATURDAY, SUNDAY = 0, 4, 5, 6


def windows(*texts: str) -> tuple[Window, ...]:
    text = "\n".join(f"[[hours]]\n{each}" for each in texts)
    return parse_config([("f.toml", text)], DEFAULTS).hours


def at(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)


@pytest.mark.parametrize(
    "day, minute, holds",
    [
        (MONDAY, "07:59", False),
        (MONDAY, "08:00", True),
        (FRIDAY, "17:59", True),
        (FRIDAY, "18:00", False),
        (SATURDAY, "12:00", False),
    ],
)
def test_a_window_holds_from_its_first_minute_to_before_its_last(
    day: int, minute: str, holds: bool
) -> None:
    [window] = windows(
        'days = ["mon-fri"]\nfrom = "08:00"\nto = "18:00"\nupload = "2mbit"'
    )
    assert window.holds(day, at(minute)) is holds


@pytest.mark.parametrize(
    "day, minute, holds",
    [
        (FRIDAY, "21:59", False),
        (FRIDAY, "22:00", True),
        (SATURDAY, "05:59", True),
        (SATURDAY, "06:00", False),
        (SATURDAY, "22:00", False),
        (FRIDAY, "05:00", False),
        (SUNDAY, "23:00", True),
        (MONDAY, "05:00", True),
    ],
)
def test_over_midnight_the_day_is_that_of_the_beginning(
    day: int, minute: str, holds: bool
) -> None:
    [window] = windows(
        'days = ["fri", "sun"]\nfrom = "22:00"\nto = "06:00"\nupload = "2mbit"'
    )
    assert window.holds(day, at(minute)) is holds


def test_a_whole_day_can_be_said() -> None:
    [window] = windows('days = ["sat-sun"]\nfrom = "00:00"\nto = "24:00"\ndscp = "CS1"')
    assert all(window.holds(SATURDAY, minute) for minute in (0, 1439))
    assert not window.holds(MONDAY, 0)


def test_where_windows_overlap_the_later_one_counts_setting_by_setting() -> None:
    both = windows(
        'from = "08:00"\nto = "18:00"\nupload = "2mbit"\norigin = "1mbit"',
        'from = "12:00"\nto = "13:00"\nupload = "unlimited"',
    )
    first, second = layers_at(both, MONDAY, at("12:30"))
    assert first.values == {"upload": 250_000.0, "origin": 125_000.0}
    assert second.values == {"upload": None}
    assert second.source == "hours 12:00-13:00, f.toml"


@given(
    begin=st.integers(0, 1439),
    length=st.integers(1, 1439),
    days=st.sets(st.integers(0, 6), min_size=1),
)
def test_a_window_holds_so_many_minutes_a_week(
    begin: int, length: int, days: set[int]
) -> None:
    end = (begin + length) % 1440 or 1440
    window = Window(days=tuple(sorted(days)), begin=begin, end=end, values={"dscp": 1})
    held = sum(window.holds(day, minute) for day in range(7) for minute in range(1440))
    assert held == length * len(days)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('to = "18:00"\nupload = "1mbit"', "hours[1].from: is needed"),
        ('from = "8:00"\nto = "18:00"', "hours[1].from: '8:00' is no time"),
        ('from = "08:00"\nto = "24:01"', "hours[1].to: '24:01' is no time"),
        ('from = "24:00"\nto = "06:00"\nupload = "1mbit"', "from: must be before"),
        ('from = "08:00"\nto = "08:00"\nupload = "1mbit"', "to: is when it begins"),
        ('from = "08:00"\nto = "09:00"', "from: says nothing of upload"),
        ('from="08:00"\nto="09:00"\ndscp="LE"\ncache="1"', "cache: is not a setting"),
        ('days = ["mo"]\nfrom = "08:00"\nto = "09:00"', "days: 'mo' is no day"),
        ('days = ["mon-x"]\nfrom = "08:00"\nto = "09:00"', "days: 'mon-x' is no day"),
        ('days = []\nfrom = "08:00"\nto = "09:00"', "days: must name a day"),
        ('from = "08:00"\nto = "09:00"\nupload = "1"', "hours[1].upload: '1' is no"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_key(
    text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        windows(text)
    assert str(caught.value).startswith("f.toml: hours")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "days, text",
    [
        (range(7), "mon-sun"),
        ((0, 1, 2, 3, 4), "mon-fri"),
        ((5, 6), "sat,sun"),
        ((0, 2, 3, 4, 6), "mon,wed-fri,sun"),
    ],
)
def test_days_are_shown_shortly(days: tuple[int, ...], text: str) -> None:
    assert format_days(days) == text


def test_days_may_run_over_the_end_of_the_week() -> None:
    [window] = windows('days = ["sat-mon"]\nfrom = "08:00"\nto = "09:00"\ndscp = "LE"')
    assert [DAYS[day] for day in window.days] == ["mon", "sat", "sun"]


# -- local time --------------------------------------------------------------------


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def held_minutes(window: Window, day: int) -> int:
    """How many minutes it holds on a day of the year 2026, as time passes."""
    begin = int(time.mktime((2026, 1, day, 0, 0, 0, 0, 0, -1)))
    end = int(time.mktime((2026, 1, day + 1, 0, 0, 0, 0, 0, -1)))
    count = 0
    for now in range(begin, end, 60):
        local = time.localtime(now)
        count += window.holds(local.tm_wday, local.tm_hour * 60 + local.tm_min)
    return count


def test_only_the_clocks_face_counts_when_it_is_put_forward_or_back(
    berlin: None,
) -> None:
    [window] = windows('from = "01:30"\nto = "02:30"\nupload = "1mbit"')
    usual, spring, autumn = 20, 88, 298
    assert held_minutes(window, usual) == 60
    assert held_minutes(window, spring) == 30  # from 02:00 it is 03:00
    assert held_minutes(window, autumn) == 90  # from 02:00 to 02:30 comes twice
