from pathlib import Path

import pytest

from tests.hostile.scene import Scene


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """What was published is only read."""
    return Scene.create(tmp_path_factory.mktemp("published"))


@pytest.fixture
def scene(published: Scene, tmp_path: Path) -> Scene:
    return published.at(tmp_path)
