"""Other updaters are recognised by what they leave on a system."""

import os
from pathlib import Path

import pytest

from p2p.deploy.others import UNITS, active_updaters, claim, claim_of
from p2p.ostree.keyfile import KeyFile

# As the tools write them.
ORIGINS = {
    "bootc": """\
[origin]
container-image-reference=ostree-unverified-registry:quay.io/example/os:stable

[libostree-transient]
pinned=false
""",
    "layers": """\
[origin]
baserefspec=fedora:fedora/40/x86_64/silverblue

[packages]
requested=htop;vim-enhanced;
""",
    "override": """\
[origin]
baserefspec=fedora:fedora/40/x86_64/coreos/stable

[overrides]
remove=firefox;
""",
    "initramfs": """\
[origin]
refspec=fedora:fedora/40/x86_64/iot

[rpmostree]
regenerate-initramfs=true
""",
}
OURS = {
    "ostree": "[origin]\nrefspec=hub:controller/stable\n",
    "aktualizr": "[origin]\nrefspec=aktualizr-remote:c0ffee\n",
    "pinned": "[origin]\nrefspec=o:main\n\n[libostree-transient]\npinned=true\n",
    "eos": "[origin]\nrefspec=eos:os/eos/amd64/eos6\n",
}


def parse(text: str) -> KeyFile:
    return KeyFile.parse(text, where="origin")


@pytest.mark.parametrize("name", ORIGINS)
def test_what_a_tool_wrote_is_its_own(name: str) -> None:
    assert claim_of(parse(ORIGINS[name]))


@pytest.mark.parametrize("name", OURS)
def test_a_branch_alone_is_anybodys(name: str, tmp_path: Path) -> None:
    assert claim_of(parse(OURS[name])) == ""
    assert claim(parse(OURS[name]), str(tmp_path)) == ""


def test_what_is_said_names_the_tool() -> None:
    assert "container image" in claim_of(parse(ORIGINS["bootc"]))
    assert "rpm-ostree" in claim_of(parse(ORIGINS["layers"]))
    assert "(packages)" in claim_of(parse(ORIGINS["layers"]))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("place", ["run/systemd/units", "etc/systemd/system/a.wants"])
def test_a_tool_that_runs_or_will_has_the_system(
    tmp_path: Path, unit: str, place: str
) -> None:
    where = tmp_path / place
    where.mkdir(parents=True)
    name = f"invocation:{unit}" if place.startswith("run") else unit
    os.symlink("/nowhere", where / name)
    assert active_updaters(str(tmp_path)) == [UNITS[unit]]
    said = claim(parse(OURS["ostree"]), str(tmp_path))
    assert said == f"{UNITS[unit]} deploys here"
