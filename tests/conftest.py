"""Fixtures of all tests, hypothesis profiles, and what the markers mean."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from tests import debian, mounts, servers, unprivileged
from tests.require import require
from tests.trees import MIB

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE")
    or ("ci" if os.environ.get("CI") == "true" else "dev")
)

_COMPAT = Path(__file__).parent / "compat"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _COMPAT in item.path.parents:
            item.add_marker(pytest.mark.compat)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root"):
        require("root")
    if item.get_closest_marker("compat"):
        require("ostree")


@pytest.fixture(scope="session")
def debian_tree() -> Path:
    """A real Debian tree, shared by all tests: never write to it. Needs root."""
    require("root", "mmdebstrap")
    return debian.debian_tree()


@pytest.fixture
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.StartNginx]:
    """Call it with a directory to serve; each server ends with the test."""
    require("nginx")
    with ExitStack() as stack:

        def start(
            root: Path, *, tls: bool = False, http2: bool = False, extra: str = ""
        ) -> servers.Nginx:
            work = tmp_path_factory.mktemp("nginx")
            return stack.enter_context(
                servers.run_nginx(root, work=work, tls=tls, http2=http2, extra=extra)
            )

        yield start


@pytest.fixture
def loop_ext4(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[mounts.MakeMount]:
    """Call it with a size in bytes for a fresh ext4, unmounted after the test."""
    require("loop", "mkfs.ext4")
    with ExitStack() as stack:

        def mount(size: int = 256 * MIB) -> Path:
            work = tmp_path_factory.mktemp("ext4")
            return stack.enter_context(mounts.mount_loop_ext4(work, size))

        yield mount


@pytest.fixture
def tmpfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mounts.MakeMount]:
    """Call it with a size in bytes for a fresh tmpfs, unmounted after the test."""
    require("root")
    with ExitStack() as stack:

        def mount(size: int = 256 * MIB) -> Path:
            work = tmp_path_factory.mktemp("tmpfs")
            return stack.enter_context(mounts.mount_tmpfs(work, size))

        yield mount


@pytest.fixture
def ordinary_user(
    tmp_path_factory: pytest.TempPathFactory,
) -> unprivileged.Unprivileged:
    """An ordinary user with an empty home; nobody where the tests run as root."""
    return unprivileged.make_unprivileged(tmp_path_factory.mktemp("user") / "home")
