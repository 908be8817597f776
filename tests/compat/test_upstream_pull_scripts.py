"""Upstream's own pull tests, with our HTTP server in the place of theirs.

The scripts of the package ostree-tests start the program `ostree-trivial-httpd` from
$OSTREE_UNINSTALLED. With ours pass all of test-pull-*, test-pull2-bareuseronly,
test-signed-pull, test-signed-pull-summary, test-find-remotes, test-create-usb and
test-local-pull*, except test-pull-resume, whose `--force-range-requests` wants a
server that breaks off its answers. These are the quick ones that lean on the server.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.require import require

_SCRIPTS = Path("/usr/libexec/installed-tests/libostree")
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def uninstalled(tmp_path: Path) -> Path:
    """A directory with our `ostree-trivial-httpd` in it."""
    require("ostree-tests")
    shim = tmp_path / "bin/ostree-trivial-httpd"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m tests.compat.trivial_httpd "$@"\n'
    )
    shim.chmod(0o755)
    return shim.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "test-pull-basicauth",
        "test-pull-collections",
        "test-pull-contenturl",
        "test-pull-corruption",
        "test-pull-depth",
        "test-pull-mirrorlist",
        "test-pull-summary-sigs",
        "test-pull-untrusted",
    ],
)
def test_upstreams_script_passes(
    tmp_path: Path, uninstalled: Path, script: str
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [_SCRIPTS / f"{script}.sh"],
        cwd=work,
        env={
            **os.environ,
            "G_TEST_SRCDIR": str(_SCRIPTS),
            "G_TEST_BUILDDIR": str(_SCRIPTS),
            "OSTREE_UNINSTALLED": str(uninstalled),
            "PYTHONPATH": str(_ROOT),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # The servers end when their directory is gone.
    shutil.rmtree(work)
    tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
    assert done.returncode == 0, tail
    assert "not ok" not in done.stdout
