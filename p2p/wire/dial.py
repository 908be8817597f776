"""Which of two sessions with the same peer to keep; pure, and agreed by both ends.

When two devices dial each other at once, both see two sessions and must close the
same one without asking. They decide once both HELLOs of the second session passed,
before any request on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2p.wire.messages import DeviceId, Hello


@dataclass(frozen=True, slots=True)
class Contender:
    """A session with a peer, as far as the choice goes.

    Attributes:
        dialler: device id of the end that dialled.
        dial: number of that dial, from its HELLO.
        peer: the peer's instance and epoch, from its HELLO.
        silent: a PING on it is unanswered for 2 s.

    """

    dialler: DeviceId
    dial: int
    peer: tuple[bytes, int]
    silent: bool = False

    @classmethod
    def of(cls, us: DeviceId, them: DeviceId, ours: Hello, theirs: Hello) -> Contender:
        """Return the contender for a session with these ends and HELLOs."""
        dialled = bool(ours.dial)
        return cls(
            dialler=us if dialled else them,
            dial=ours.dial if dialled else theirs.dial,
            peer=(theirs.instance, theirs.epoch),
        )


def replaces(new: Contender, old: Contender) -> bool:
    """Tell whether a new session replaces the old one; else the new one is closed.

    In this order: a restarted peer knows nothing of the old session; a silent one
    is dead; of two dials by the same end the later counts; else the session dialled
    by the smaller device id stays.
    """
    if new.peer != old.peer or old.silent:
        return True
    if new.dialler == old.dialler:
        return new.dial > old.dial
    return new.dialler < old.dialler
