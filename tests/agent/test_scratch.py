"""Where the units of large objects wait, and what a full disk makes of it."""

import pytest

from p2p.agent.scratch import Scratch
from p2p.errors import NoSpaceError
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire.limits import UNIT_BYTES
from tests.mounts import MakeMount
from tests.trees import MIB

NAME = ObjectName(Checksum("a" * 64), ObjectType.FILE)


@pytest.mark.root
def test_a_full_disk_is_said_to_be_full(tmpfs: MakeMount) -> None:
    point = tmpfs(MIB)
    scratch = Scratch(str(point))
    scratch.begin(NAME, 8 * UNIT_BYTES)
    unit = b"x" * UNIT_BYTES
    scratch.write(NAME, 1, unit)
    assert scratch.read(NAME, UNIT_BYTES, UNIT_BYTES) == unit
    scratch.write(NAME, 2, unit)
    with pytest.raises(NoSpaceError, match=str(point)):
        scratch.write(NAME, 3, unit * 5)
    scratch.close()
    assert not list(point.iterdir())
