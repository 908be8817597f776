"""Key files: read like GLib does, written back without losing a line."""

import pytest

from p2p.errors import ConfigError
from p2p.ostree.keyfile import MAX_BYTES, KeyFile

TEXT = """\
# the repository
[core]
repo_version=1
mode = bare-user
; not a comment=for GLib it is a key

[remote "origin"]
url=https://example.org/repo
gpg-verify=false
branches=a;b\\;c; d ;
escaped=\\sspace\\ttab\\nline\\\\back
twice=1
twice=2
"""


def parse(text: str) -> KeyFile:
    return KeyFile.parse(text, where="config")


def test_groups_keys_and_values_are_read() -> None:
    keys = parse(TEXT)
    assert keys.groups() == ["core", 'remote "origin"']
    assert keys.keys("core")[:2] == ["repo_version", "mode"]
    assert keys.string("core", "mode") == "bare-user"
    assert keys.string("core", "nothing") is None
    assert keys.string("nowhere", "mode") is None
    remote = 'remote "origin"'
    assert keys.string(remote, "escaped") == " space\ttab\nline\\back"
    assert keys.strings(remote, "branches") == ("a", "b;c", "d")
    assert keys.strings(remote, "nothing") is None
    assert keys.string(remote, "twice") == "2"
    assert ("url", "https://example.org/repo") in list(keys.items(remote))


def test_a_list_may_be_separated_by_commas() -> None:
    assert parse("[a]\nk=x,y").strings("a", "k") == ("x", "y")
    assert parse("[a]\nk=x,y;z").strings("a", "k") == ("x,y", "z")


def test_truth_values_and_numbers_are_read() -> None:
    keys = parse("[a]\nyes=true\none=1\nno=false\nnull=0\nnumber=42\nodd=x\nminus=-1")
    for key, value in (("yes", True), ("one", True), ("no", False), ("null", False)):
        assert keys.boolean("a", key, default=not value) is value
    assert keys.boolean("a", "nothing", default=True) is True
    assert keys.integer("a", "number", default=7) == 42
    assert keys.integer("a", "nothing", default=7) == 7
    with pytest.raises(ConfigError, match="neither true nor false"):
        keys.boolean("a", "odd", default=True)
    for key in ("odd", "minus"):
        with pytest.raises(ConfigError, match="not a whole number"):
            keys.integer("a", key, default=7)


@pytest.mark.parametrize(
    "text", ["key=before any group", "[unclosed", "[a]\nno equals sign", "[a]\n=value"]
)
def test_lines_that_are_nothing_are_errors_with_their_number(text: str) -> None:
    with pytest.raises(ConfigError, match=r"config:\d"):
        parse(text)


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger"):
        parse("#" * (MAX_BYTES + 1))


@pytest.mark.parametrize("value", ["\\x", "end\\"])
def test_an_unknown_escape_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match="unknown escape"):
        parse(f"[a]\nk={value}").string("a", "k")


def test_nothing_is_lost_when_it_is_written_back() -> None:
    assert str(parse(TEXT)) == TEXT
    assert str(parse(TEXT + "\n\n")) == TEXT


def test_a_key_is_changed_in_its_place() -> None:
    keys = parse(TEXT)
    keys.set("core", "mode", "archive")
    assert str(keys) == TEXT.replace("mode = bare-user", "mode=archive")


def test_a_new_key_goes_to_the_end_of_its_group() -> None:
    keys = parse("[a]\nx=1\n\n[b]\ny=2\n")
    keys.set("a", "z", "3")
    assert str(keys) == "[a]\nx=1\nz=3\n\n[b]\ny=2\n"
    keys.set("b", "w", "4")
    assert str(keys).endswith("[b]\ny=2\nw=4\n")


def test_a_new_group_goes_to_the_end() -> None:
    keys = KeyFile(where="new")
    keys.set("a", "x", "1")
    keys.set('remote "r"', "url", "u")
    assert str(keys) == '[a]\nx=1\n\n[remote "r"]\nurl=u\n'


@pytest.mark.parametrize(
    "value",
    ["", "plain", "back\\slash", " both ends ", "\ttab", "line\nline", "a;b", " "],
)
def test_any_value_is_read_back(value: str) -> None:
    keys = KeyFile(where="new")
    keys.set("a", "k", value)
    assert parse(str(keys)).string("a", "k") == value


@pytest.mark.parametrize(
    "group, key, value",
    [
        ("a]", "k", "v"),
        ("", "k", "v"),
        ("a", "", "v"),
        ("a", "k=", "v"),
        ("a", "#k", "v"),
        ("a", " k", "v"),
        ("a", "k\n", "v"),
        ("a", "k", "v\f"),
    ],
)
def test_what_would_not_be_read_back_is_not_written(
    group: str, key: str, value: str
) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        KeyFile(where="new").set(group, key, value)


def test_a_group_is_removed_with_all_its_lines() -> None:
    keys = parse(TEXT)
    assert keys.remove_group('remote "origin"')
    assert not keys.remove_group('remote "origin"')
    assert keys.groups() == ["core"]
    assert "url" not in str(keys)


def test_only_new_groups_are_merged() -> None:
    keys = parse("[a]\nx=1")
    keys.merge(parse("[a]\nx=2\n[b]\ny=3"))
    assert keys.string("a", "x") == "1"
    assert keys.string("b", "y") == "3"
