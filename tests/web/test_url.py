"""URLs: compared, shown, and relieved of passwords."""

import pytest

from p2p.errors import ConfigError
from p2p.web.url import Server, basic, server_of, show, split_user


@pytest.mark.parametrize(
    "url, server",
    [
        ("http://host", Server("http", "host", 80)),
        ("https://host/path/to?x#y", Server("https", "host", 443)),
        ("HTTPS://Host:444/", Server("https", "host", 444)),
        ("http://user:pw@[::1]:8080/x", Server("http", "::1", 8080)),
    ],
)
def test_the_server_of_a_url_is_scheme_host_and_port(url: str, server: Server) -> None:
    assert server_of(url) == server


@pytest.mark.parametrize(
    "url",
    ["", "host", "ftp://host", "http://", "http:///x", "http://[::1", "http://h:x"],
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        server_of(url)


@pytest.mark.parametrize("url", ["http://h ost/", "http://h\u00f6st/", "http://h\tost"])
def test_characters_that_no_url_holds_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        server_of(url)


@pytest.mark.parametrize(
    "url, shown",
    [
        ("https://user:pw@host/p?signature=abc", "https://host/p?…"),
        ("https://host/p@q", "https://host/p@q"),
        ("not a url\x1b[2J", "not a url�[2J"),
        ("http://h/" + "x" * 500, "http://h/" + "x" * 291),
    ],
)
def test_a_url_is_shown_without_secrets_and_controls(url: str, shown: str) -> None:
    assert show(url) == shown


def test_user_and_password_become_a_header() -> None:
    assert split_user("http://h:81/p?q") == ("http://h:81/p?q", None)
    assert split_user("http://me:a%40b@h:81/p?q") == (
        "http://h:81/p?q",
        basic("me", "a@b"),
    )
    assert basic("me", "a@b") == "Basic bWU6YUBi"
