"""Has the writer deploy, and remembers what a person went back from."""

from __future__ import annotations

from typing import Any
