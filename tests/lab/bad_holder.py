"""A device that has everything, says so, and does not give it: a real one, bent.

    python -m tests.lab.bad_holder silent|garbage|dribble ARGUMENT...

The arguments are those of `p2p`.
"""

import sys
from collections.abc import Callable

import trio

from p2p.agent.serving import Server
from p2p.cli.main import main
from p2p.net.stream import TLSStream
from p2p.wire import messages as m

# Bytes a second of one that dribbles.
_DRIBBLE = 1000


async def _only_say_that_it_lives(server: Server) -> None:
    await server._report_status()


def _spoil(answer: m.Message) -> m.Message:
    """Change the last byte of all content."""
    match answer:
        case m.Batch(request, objects):
            return m.Batch(request, tuple(map(_flipped, objects)))
        case m.Unit(request, data):
            return m.Unit(request, _flip(data))
    return answer


def _flipped(data: bytes | m.Miss) -> bytes | m.Miss:
    return data if isinstance(data, m.Miss) else _flip(data)


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


def silent() -> None:
    """Take requests, say that they are alive, answer none."""
    Server.run = _only_say_that_it_lives  # type: ignore[method-assign, assignment]


def garbage() -> None:
    """Answer everything with a wrong byte in it."""
    answer = Server._answer

    def spoil(server: Server, request: m.Request) -> m.Message:
        return _spoil(answer(server, request))

    Server._answer = spoil  # type: ignore[method-assign, assignment]


def dribble() -> None:
    """Send no more than a thousand bytes a second."""
    send_all = TLSStream.send_all

    async def send_slowly(
        stream: TLSStream, data: bytes | bytearray | memoryview
    ) -> None:
        view = memoryview(data)
        if len(view) < _DRIBBLE:
            await send_all(stream, view)
            return
        while view:
            await send_all(stream, view[: _DRIBBLE // 10])
            view = view[_DRIBBLE // 10 :]
            await trio.sleep(0.1)

    TLSStream.send_all = send_slowly  # type: ignore[method-assign, assignment]


CONDUCTS: dict[str, Callable[[], None]] = {
    conduct.__name__: conduct for conduct in (silent, garbage, dribble)
}


if __name__ == "__main__":
    CONDUCTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
