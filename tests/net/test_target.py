import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import ConfigError
from p2p.net.target import DEFAULT_PORT, Target, parse_target


@pytest.mark.parametrize(
    "text, target",
    [
        ("192.0.2.7", Target("192.0.2.7", DEFAULT_PORT)),
        ("192.0.2.7:80", Target("192.0.2.7", 80)),
        ("depot.example:65535", Target("depot.example", 65535)),
        ("fe80::1%eth0", Target("fe80::1%eth0", DEFAULT_PORT)),
        ("[fe80::1%eth0]", Target("fe80::1%eth0", DEFAULT_PORT)),
        ("[::1]:80", Target("::1", 80)),
    ],
)
def test_targets_are_read_as_people_write_them(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:1234567890123",
        "host:http",
        "host:²",
        "[::1",
        "[::1]80",
        "[]:80",
        " host:80",
    ],
)
def test_what_is_no_target_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="--peer"):
        parse_target(text, "--peer")


def test_a_target_is_shown_as_people_write_it() -> None:
    assert str(Target("192.0.2.7", 28727)) == "192.0.2.7:28727"
    assert str(Target("fe80::1%eth0", 28727)) == "[fe80::1%eth0]:28727"


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_a_config_error(text: str) -> None:
    try:
        target = parse_target(text)
    except ConfigError:
        return
    assert parse_target(str(target)) == target
