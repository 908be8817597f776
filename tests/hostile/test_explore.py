import time, dataclasses, hashlib
from collections.abc import Iterable
import pytest, trio
from pathlib import Path
from p2p.wire import messages as m
from p2p.wire.bulk import BatchHead, UnitHead
from p2p.wire.frame import slice_header, control_frame
from p2p.wire.hashes import statement
from p2p.wire.limits import UNIT_BYTES
import nacl.signing
from tests.hostile.scene import Scene
from tests.hostile.villain import Villain, BentSession


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene.create(tmp_path)

def flip(data): return data[:-1] + bytes([data[-1] ^ 1]) if data else data

class WrongBytes(Villain):
    def say(self, session, message):
        if isinstance(message, m.Batch):
            message = dataclasses.replace(message, objects=tuple(o if isinstance(o, m.Miss) else flip(o) for o in message.objects))
        yield message

class WrongUnit(Villain):
    def say(self, session, message):
        if isinstance(message, m.Unit):
            message = dataclasses.replace(message, data=flip(message.data))
        yield message

class FalseHashes(Villain):
    "consistent lies"
    def say(self, session, message):
        match message:
            case m.Hashes(request=request, size=size, first=first, hashes=hashes):
                key = nacl.signing.SigningKey(b"k"*32)
                n = len(hashes)//32
                unit = hashlib.sha256(b"x"*UNIT_BYTES).digest()
                size = (first+n)*UNIT_BYTES
                name = next(r.name for r in self.told(m.GetHashes) if r.request==request)
                yield m.Hashes(request=request, size=size, first=first, hashes=unit*n, signer=key.verify_key.encode(),
                  signature=key.sign(statement(name, size, first, unit*n)).signature)
            case m.Unit(request):
                yield m.Unit(request, b"x"*UNIT_BYTES)
            case _: yield message
    def greet(self, hello):
        return dataclasses.replace(hello, signing_key=nacl.signing.SigningKey(b"k"*32).verify_key.encode())

class AllUnits(FalseHashes):
    """everything is huge"""
    def say(self, session, message):
        if isinstance(message, m.Sizes):
            yield m.Sizes(message.request, tuple(None if s is None else 1<<40 for s in message.sizes))
        else: yield from super().say(session, message)

class HugeSizes(Villain):
    def say(self, session, message):
        if isinstance(message, m.Sizes):
            message=m.Sizes(message.request, tuple(None if s is None else 1<<40 for s in message.sizes))
        yield message

class TooLarge(Villain):
    def say(self, session, message):
        if isinstance(message, m.Batch):
            message=m.Batch(message.request, tuple(m.Miss.TOO_LARGE for _ in message.objects))
        yield message
def misser(miss):
    class Misser(Villain):
        def say(self, session, message):
            if isinstance(message, m.Batch):
                message=m.Batch(message.request, tuple(miss for _ in message.objects))
            yield message
    return Misser

def answerer(f):
    class A(Villain):
        def say(self, session, message):
            r=getattr(message,"request",None)
            if r and not isinstance(message, m.CommitData|m.Status):
                yield f(r)
            else: yield message
    return A

class BlackHole(Villain):
    def hear(self, session, message):
        return isinstance(message, m.Request) and not isinstance(message, m.GetHead|m.GetCommit)
class HeadHole(Villain):
    def hear(self, session, message):
        return isinstance(message, m.Request)

class Unrequested(Villain):
    def hear(self, session, message):
        if isinstance(message, m.Want):
            session.shout(m.NotHave(m.RequestId(message.request+1000)))
        return False
class Twice(Villain):
    def say(self, session, message):
        yield message
        if isinstance(message, m.Batch):
            session.shout(m.NotHave(message.request))
class OtherSize(Villain):
    def hear(self, session, message):
        if isinstance(message, m.Want):
            session.shout(BatchHead(message.request, (1<<18,)*len(message.names)))
            return True
        return False
class StallBulk(Villain):
    def hear(self, session, message):
        if isinstance(message, m.Want):
            session.shout(BatchHead(message.request, (1000,)*len(message.names)))
            session.write(slice_header(message.request, 500)+b"x"*500)
            return True
        return False
class Flood(Villain):
    n=0
    def hear(self, session, message):
        if isinstance(message, m.Request) and not self.n:
            self.n=1
            body = b"".join(control_frame(__import__("p2p.wire.layout").wire.layout.encode(m.Record(self.device, 1, 1, b"\x92\xa2ok\x90"))) for _ in range(1000))
            for _ in range(100): session.write(body)
        return False
class FloodHoldings(Villain):
    n=0
    def hear(self, session, message):
        if isinstance(message, m.Request) and not self.n:
            self.n=1
            L=__import__("p2p.wire.layout").wire.layout
            import os
            body = b"".join(control_frame(L.encode(m.Holdings(tuple(m.HeldCommit(os.urandom(32).hex(), m.Held.COMPLETE) for _ in range(60))))) for _ in range(100))
            for _ in range(100): session.write(body)
        return False
class NoReader(Villain):
    pass

VS=dict(honest=Villain,wrong_bytes=WrongBytes, wrong_unit=WrongUnit, false_hashes=FalseHashes, huge=HugeSizes, allunits=AllUnits, too_large=TooLarge,
 omitted=misser(m.Miss.OMITTED), nothave=misser(m.Miss.NOT_HAVE), elsewhere=misser(m.Miss.ELSEWHERE),
 busy=answerer(lambda r: m.Busy(r,30000)), rejected=answerer(lambda r:m.Rejected(r,m.Refusal.OTHER)), nothave2=answerer(lambda r: m.NotHave(r)),
 hole=BlackHole, headhole=HeadHole, unreq=Unrequested, twice=Twice, other=OtherSize, stall=StallBulk, flood=Flood, floodh=FloodHoldings)

@pytest.mark.parametrize("name", VS)
async def test_villain(scene, name):
    v = VS[name]()
    t=time.time()
    try:
        p = await scene.pull_beside(v, seconds=30)
    finally:
        print(f"\n{name:12} {time.time()-t:.2f}", v.byes[-1:] )
    n = p.meeting.neighbours
    print(dict(n.endings), list(n.banned.values()), "villain" if v.device in n.banned else "", len(n.banned))
