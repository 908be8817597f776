"""What waits to be written."""

import pytest

from p2p.errors import RemoteProtocolError
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.limits import MAX_CONTROL_QUEUE_BYTES, MAX_SLICE_BYTES
from p2p.wire.messages import Ping
from p2p.wire.outbox import Outbox


def frames(*bodies: bytes) -> list[bytes]:
    return [control_frame(body) for body in bodies]


def test_control_keeps_its_order_and_state_its_place() -> None:
    outbox = Outbox()
    outbox.put(b"one")
    outbox.put(b"state", key="k", message=Ping(1))
    outbox.put(b"two")
    outbox.put(b"newer state", key="k", message=Ping(2))
    assert outbox.waiting("k") == Ping(2)
    assert outbox.control_bytes == 4 + 3 + 4 + 11 + 4 + 3
    assert outbox.pop_control() == frames(b"one", b"newer state", b"two")
    assert outbox.waiting("k") is None
    assert outbox.control_bytes == 0
    assert not outbox


def test_what_is_about_a_request_goes_with_it() -> None:
    outbox = Outbox()
    outbox.put(b"status", key="s", about=3)
    outbox.put(b"other", key="o", about=4)
    outbox.put_bulk(3, [b"bulk"])
    outbox.drop(3)
    assert outbox.bulk_bytes == 0
    assert outbox.pop_control() == frames(b"other")
    assert outbox.pop_slice() is None


def test_bulk_goes_out_in_slices_of_bounded_size_uncopied() -> None:
    outbox = Outbox()
    pieces = [bytes([number]) * 50_000 for number in range(3)]
    outbox.put_bulk(7, pieces)
    outbox.put_bulk(8, [b"", b"next"])
    written = []
    while (piece := outbox.pop_slice()) is not None:
        assert piece.buffers[0] == slice_header(piece.request, piece.size)
        assert piece.size <= MAX_SLICE_BYTES
        assert all(isinstance(view, memoryview) for view in piece.buffers[1:])
        written.append((piece.request, b"".join(piece.buffers[1:])))
    assert [request for request, _ in written] == [7, 7, 7, 8]
    assert b"".join(data for _, data in written[:3]) == b"".join(pieces)
    assert written[3][1] == b"next"
    assert outbox.bulk_bytes == 0


def test_too_much_control_is_the_peers_fault_unless_it_must_go_out() -> None:
    outbox = Outbox()
    for _ in range(MAX_CONTROL_QUEUE_BYTES // 65_536):
        outbox.put(bytes(65_532))
    with pytest.raises(RemoteProtocolError, match="does not read"):
        outbox.put(b"x")
    outbox.put(b"bye", force=True)
    assert outbox.pop_control()[-1] == control_frame(b"bye")


def test_clear_forgets_bulk_and_control_if_wanted() -> None:
    outbox = Outbox()
    outbox.put(b"control")
    outbox.put_bulk(1, [b"bulk"])
    outbox.clear(control=False)
    assert outbox.bulk_bytes == 0
    assert outbox.control_bytes
    outbox.clear(control=True)
    assert not outbox
