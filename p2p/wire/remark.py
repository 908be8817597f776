"""Text for people in BYE and REJECTED, made to fit the rules for text."""

from __future__ import annotations

import re

from p2p.wire.limits import MAX_TEXT_BYTES

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def remark(text: str) -> str:
    """Return the text as BYE and REJECTED may carry it: short, one line, UTF-8."""
    line = _CONTROL.sub("?", text)
    return line.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
