"""A remote's options for TLS, proxy and HTTP/2."""

from pathlib import Path

import pytest

from p2p.errors import ConfigError
from p2p.ostree.config import RemoteConfig
from p2p.web.client.credentials import BasicUser, Credentials
from p2p.web.client.options import access_of, is_protected
from p2p.web.client.origin import NO_CREDENTIALS
from p2p.web.client.request import Access

BASE = Access(low_speed_seconds=7, proxy="http://base")


def remote(**options: str) -> RemoteConfig:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return RemoteConfig(name="origin", url="http://h", options=named)


def test_without_options_nothing_changes() -> None:
    access = access_of(remote(), BASE)
    assert (access.low_speed_seconds, access.proxy, access.http2) == (
        7,
        "http://base",
        True,
    )
    assert not access.permissive
    assert not access.has_identity


def test_options_are_put_on_top(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    access = access_of(
        remote(
            tls_ca_path=str(tmp_path / "ca"),
            tls_client_cert_path=str(tmp_path / "cert"),
            tls_client_key_path=str(tmp_path / "key"),
            tls_permissive="true",
            http2="false",
            proxy="socks5h://127.0.0.1:1080",
        ),
        BASE,
    )
    assert access.ca_path == str(tmp_path / "ca")
    assert access.client_cert_path == str(tmp_path / "cert")
    assert access.client_key_path == str(tmp_path / "key")
    assert access.permissive
    assert not access.http2
    assert access.proxy == "socks5h://127.0.0.1:1080"
    assert access.low_speed_seconds == 7


def test_a_proxy_without_a_scheme_is_one_of_http() -> None:
    assert access_of(remote(proxy="proxy:3128"), BASE).proxy == "proxy:3128"


@pytest.mark.parametrize(
    "option, value",
    [
        ("tls_ca_path", "/no/such/file"),
        ("tls_permissive", "yes"),
        ("http2", ""),
        ("proxy", "gopher://h"),
        ("proxy", ""),
        ("proxy", "http://h\r\n"),
        ("unconfigured_state", "run subscription-tool first"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        access_of(remote(**{option: value}), BASE)
    assert caught.value.where == f'[remote "origin"] {option.replace("_", "-")}'


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    (tmp_path / "cert").touch()
    with pytest.raises(ConfigError, match="together"):
        access_of(remote(tls_client_cert_path=str(tmp_path / "cert")), BASE)


def test_a_remote_that_is_shown_a_secret_is_protected() -> None:
    named = Credentials(basic=BasicUser(user="user", password="word"))
    assert not is_protected(remote(), NO_CREDENTIALS)
    assert not is_protected(remote(), NO_CREDENTIALS, (("X-Device", "a@b"),))
    assert is_protected(remote(), named)
    assert is_protected(remote(tls_client_cert_path="cert"), NO_CREDENTIALS)
    assert is_protected(remote(), NO_CREDENTIALS, (("authorization", "Bearer x"),))
    with_user = RemoteConfig(name="origin", url="http://user:word@h/@")
    assert is_protected(with_user, NO_CREDENTIALS)
