import time, logging, dataclasses
import pytest, trio
from pathlib import Path
from p2p.wire import messages as m
from tests.hostile.scene import Scene
from tests.hostile.villain import Villain, BentSession


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene.create(tmp_path)


class BadRecord(Villain):
    body = b"\xff"
    def hear(self, session, message):
        if isinstance(message, m.Request):
            session.speak(m.Record(self.device, 1, 1, self.body))
        return False

@pytest.mark.parametrize("body", [b"\xff", b"\x92\x00\x81\x01\x01"])
async def test_record(scene, body):
    v = BadRecord(); v.body = body
    t=time.time()
    await scene.pull_beside(v)
    print(time.time()-t)
