"""What may be limited, how it is written, and which of several values counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.agent.config import AgentConfig, parse_config
from p2p.agent.limits import (
    SETTINGS,
    Layer,
    Limits,
    format_size,
    limits_of,
    parse_setting,
    parse_size,
    resolve,
    show_setting,
)
from p2p.errors import ConfigError

DEFAULTS = AgentConfig(repo="/r", state="/s", socket="/s/agent.sock")


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("upload", "2mbit", 250_000.0),
        ("download", "unlimited", None),
        ("origin", "64kbit", 8000.0),
        ("dscp", "LE", 1),
        ("dscp", "none", None),
        ("metered", "use", True),
        ("cache", "500MB", 500_000_000),
    ],
)
def test_settings_are_read_as_they_are_shown(
    name: str, text: str, value: object
) -> None:
    assert parse_setting(name, text, "") == value
    shown = show_setting(name, parse_setting(name, text, ""))
    assert parse_setting(name, shown, "") == value


@pytest.mark.parametrize(
    "text, size",
    [("0", 0), ("7B", 7), ("1k", 1000), ("1.5 KiB", 1536), ("2GB", 2 * 10**9)],
)
def test_sizes_have_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_size(text, "") == size


@given(st.integers(0, 1 << 60))
def test_any_size_is_shown_exactly(size: int) -> None:
    assert parse_size(format_size(size), "") == size


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('upload = "2"', "f.toml: limits.upload: '2' is no rate"),
        ('upload = "63kbit"', "f.toml: limits.upload: 63kbit is less than 64kbit"),
        ('download = "fast"', "f.toml: limits.download: 'fast' is no rate"),
        ("origin = 5", "f.toml: limits.origin: must be text, not a whole number"),
        ('dscp = "low"', "f.toml: limits.dscp: 'low' is no DSCP"),
        ('dscp = "64"', "f.toml: limits.dscp: '64' is no DSCP"),
        ('metered = "yes"', "f.toml: limits.metered: 'yes' is neither"),
        ('cache = "much"', "f.toml: limits.cache: 'much' is no size"),
        ('speed = "1mbit"', "f.toml: limits.speed: is not a setting"),
        ("metered-interfaces = [1]", "limits.metered-interfaces: must be a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_key(
    text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config([("f.toml", f"[limits]\n{text}")], DEFAULTS)
    assert complaint in str(caught.value)


def test_later_files_count_setting_by_setting_and_are_remembered() -> None:
    config = parse_config(
        [
            ("a.toml", '[limits]\nupload = "1mbit"\norigin = "1mbit"'),
            ("b.toml", '[limits]\nupload = "2mbit"\nmetered-interfaces = ["usb0"]'),
        ],
        DEFAULTS,
    )
    said = resolve(config.limits.layers())
    assert said["upload"] == (250_000.0, "b.toml")
    assert said["origin"] == (125_000.0, "a.toml")
    assert said["dscp"] == (1, "default")
    assert config.limits.metered_interfaces == ("usb0",)


def test_by_default_nothing_is_limited_but_priority_and_metered_networks() -> None:
    said = resolve(DEFAULTS.limits.layers())
    assert set(said) == set(SETTINGS)
    assert limits_of(said) == Limits()


def test_the_last_layer_counts() -> None:
    said = resolve([Layer("one", {"upload": 1e4}), Layer("two", {"upload": None})])
    assert said["upload"] == (None, "two")
