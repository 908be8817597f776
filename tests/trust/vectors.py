"""The OpenPGP keys and signatures of data/openpgp.json."""

import json
from pathlib import Path
from typing import Any

from p2p.trust.openpgp import Certificate, parse_keyring

_DATA: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "openpgp.json").read_text()
)
COMMIT = bytes.fromhex(_DATA["commit"])
KEYBOX = bytes.fromhex(_DATA["keybox"])
ARMOURED_GOOD: str = _DATA["armoured good"]
KEYS = {name: bytes.fromhex(text) for name, text in _DATA["keys"].items()}
SIGNATURES = {name: bytes.fromhex(text) for name, text in _DATA["signatures"].items()}
FINGERPRINTS: dict[str, list[str]] = _DATA["fingerprints"]


def certificates(*names: str) -> tuple[Certificate, ...]:
    """The keys of these names, as read from their exports."""
    return tuple(key for name in names for key in parse_keyring(KEYS[name]))
