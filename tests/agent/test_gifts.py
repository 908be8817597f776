"""One neighbour's part in the ledger: what is claimed, given, withdrawn or referred."""

from pathlib import Path

from p2p.agent.gifts import Gifts
from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import messages as m
from p2p.wire.limits import UNIT_BYTES
from tests.agent.devices import Publisher, sharing
from tests.swarm.rig import ANNA, BERT
from tests.trees import random_tree

R1, R2 = m.RequestId(1), m.RequestId(2)
STRANGE = ObjectName(Checksum("ee" * 32), ObjectType.FILE)


async def test_a_second_neighbour_is_told_who_got_it(tmp_path: Path) -> None:
    publisher = Publisher.create(tmp_path)
    random_tree(tmp_path / "tree", seed=1, files=3, size=1000)
    publisher.commit(tmp_path / "tree")
    files = [n for n in publisher.repo.all_objects() if n.type is ObjectType.FILE]
    names = tuple(files[:3])
    async with sharing(publisher.repo) as device:
        anna, bert = (Gifts(device.sharing, peer) for peer in (ANNA, BERT))
        unit = m.GetUnit(R1, names[0], 0, UNIT_BYTES)
        assert anna.decide(unit) is None
        assert bert.decide(unit) == m.Elsewhere(R1, ANNA)
        want = m.Want(R2, 1000, names[1:])
        assert anna.decide(want) is None
        assert bert.decide(want) is None
        assert all(bert.is_elsewhere(want, name) for name in names[1:])
        # The first is too large for her batch, so that he may have it.
        anna.answer(want, m.Batch(R2, (m.Miss.OMITTED, b"data")))
        bert.answer(want, m.Batch(R2, (m.Miss.ELSEWHERE,) * 2))
        assert bert.decide(want) is None
        assert [bert.is_elsewhere(want, name) for name in names[1:]] == [False, True]
        # She cancels the unit.
        anna.answer(unit, None)
        anna.written()
        assert bert.decide(unit) is None
        bert.answer(unit, m.Unit(R1, b"data"))
        bert.end()
        assert anna.decide(unit) is None


async def test_what_is_not_here_is_nobodys(tmp_path: Path) -> None:
    publisher = Publisher.create(tmp_path)
    async with sharing(publisher.repo) as device:
        unit = m.GetUnit(R1, STRANGE, 0, UNIT_BYTES)
        assert Gifts(device.sharing, ANNA).decide(unit) is None
        assert Gifts(device.sharing, BERT).decide(unit) is None
