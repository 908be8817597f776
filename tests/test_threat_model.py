"""Each test that the threat model names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.findall(
    r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/threat-model.md").read_text()
)


def test_it_names_tests() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize("file, function", sorted(set(NAMED)))
def test_what_it_names_exists(file: str, function: str) -> None:
    source = (ROOT / file).read_text()
    assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE)
