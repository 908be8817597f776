"""One session, seen from both ends at once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from p2p.errors import LocalProtocolError, RemoteProtocolError
from p2p.wire import layout, limits
from p2p.wire import messages as m
from p2p.wire.bulk import UnitHead, split
from p2p.wire.connection import Connection
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.packing import pack
from p2p.wire.session import Side
from tests.wire.pair import ConnectionPair, drain, feed, output
from tests.wire.samples import (
    ANSWERS,
    COMMIT,
    DEVICE,
    HELLO,
    NAMES,
    R1,
    REFUSALS,
    REQUESTS,
    STATE,
)


def frame(message: layout.Plain) -> bytes:
    return control_frame(layout.encode(message))


def packing_pair(ours: str = "zstd", theirs: str = "zstd") -> ConnectionPair:
    """Two ends that named these abilities."""
    hello, other = (
        replace(HELLO, abilities=frozenset({name} - {""})) for name in (ours, theirs)
    )
    return ConnectionPair(hello=hello, other=other)


def bulk(request: int, data: bytes) -> bytes:
    return slice_header(request, len(data)) + data


# -- the session -------------------------------------------------------------------


def test_session_is_up_for_each_side_once_it_received_hello() -> None:
    ours, theirs = Connection(), Connection()
    ours.send(HELLO)
    assert not ours.is_up
    feed(theirs, output(ours))
    assert (theirs.is_up, theirs.peer) == (False, HELLO)
    theirs.send(replace(HELLO, dial=0, abilities=frozenset({"other"})))
    feed(ours, output(theirs))
    assert (ours.is_up, theirs.is_up) == (True, True)


@pytest.mark.parametrize("first", [m.Ping(1), m.Bye(m.Farewell.LEAVING), m.NotHave(R1)])
def test_nothing_comes_before_hello(first: m.Message) -> None:
    with pytest.raises(LocalProtocolError):
        Connection().send(first)
    assert not isinstance(first, m.CommitData | m.Batch | m.Unit | m.Map)
    peer = Connection()
    peer.send(HELLO)
    with pytest.raises(RemoteProtocolError):
        feed(peer, frame(first))


def test_hello_comes_once() -> None:
    pair = ConnectionPair()
    with pytest.raises(LocalProtocolError):
        pair.dialler.send(HELLO)
    with pytest.raises(RemoteProtocolError):
        feed(pair.acceptor, frame(HELLO))


def test_nothing_is_asked_of_a_side_that_has_not_said_hello() -> None:
    end = Connection()
    end.send(HELLO)
    with pytest.raises(LocalProtocolError):
        end.send(REQUESTS["WANT"])
    assert not end.has_room(REQUESTS["WANT"])
    assert output(end) == frame(HELLO)


def test_peer_cannot_ask_before_it_heard_our_hello() -> None:
    end = Connection()
    with pytest.raises(RemoteProtocolError):
        feed(end, frame(HELLO) + frame(m.Ping(1)))


def test_exactly_one_side_has_dialled() -> None:
    end = Connection()
    end.send(HELLO)
    with pytest.raises(RemoteProtocolError, match="one side dials"):
        feed(end, frame(HELLO))
    end = Connection()
    feed(end, frame(replace(HELLO, dial=0)))
    with pytest.raises(LocalProtocolError, match="one side dials"):
        end.send(replace(HELLO, dial=0))


def test_bye_ends_all_requests_of_both_sides_and_drops_waiting_bulk() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    pair.acceptor.send(ANSWERS["GET_UNIT"])
    goodbye = m.Bye(m.Farewell.LEAVING, "shutting down")
    pair.acceptor.send(goodbye)
    assert pair.carry(pair.acceptor) == [goodbye]
    assert pair.dialler.asked == ()
    assert pair.acceptor.owed == ()
    assert pair.dialler.theirs is Side.ENDED
    with pytest.raises(LocalProtocolError):
        pair.dialler.send(m.Ping(1))
    pair.dialler.send(m.Bye(m.Farewell.LEAVING))


def test_after_our_bye_whatever_comes_is_ignored() -> None:
    pair = ConnectionPair()
    pair.acceptor.receive_data(frame(m.Ping(1)) + b"garbage")
    pair.acceptor.send(m.Bye(m.Farewell.OTHER))
    assert drain(pair.acceptor) == []
    assert feed(pair.acceptor, b"more garbage") == []
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(m.Bye(m.Farewell.OTHER))


def test_what_waits_for_a_peer_that_said_bye_is_dropped() -> None:
    pair = ConnectionPair()
    pair.acceptor.send(m.Ping(3))
    pair.send(pair.dialler, m.Bye(m.Farewell.IDLE))
    assert not pair.acceptor.has_output


def test_nothing_follows_a_bye() -> None:
    pair = ConnectionPair()
    with pytest.raises(RemoteProtocolError):
        feed(pair.acceptor, frame(m.Bye(m.Farewell.IDLE)) + frame(m.Ping(1)))


def test_after_a_broken_rule_the_reason_stays_and_only_bye_may_be_sent() -> None:
    pair = ConnectionPair()
    with pytest.raises(RemoteProtocolError, match="frame of kind 255"):
        feed(pair.acceptor, b"\xff" * 9)
    with pytest.raises(RemoteProtocolError, match="frame of kind 255"):
        feed(pair.acceptor, frame(m.Ping(1)))
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(m.Ping(1))
    pair.acceptor.send(m.Bye(m.Farewell.PROTOCOL))
    assert output(pair.acceptor) == frame(m.Bye(m.Farewell.PROTOCOL))


def test_repr_is_a_status_line() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    pair.acceptor.send(m.Ping(1))
    pair.acceptor.send(ANSWERS["GET_UNIT"])
    assert repr(pair.dialler) == (
        "<Connection open/open, asked 1, owed 0, queued 0 + 0 bytes>"
    )
    assert repr(pair.acceptor) == (
        "<Connection open/open, asked 0, owed 1, queued 20 + 200000 bytes>"
    )
    assert pair.acceptor.queued_control_bytes == 20
    assert pair.acceptor.queued_bulk_bytes == 200_000


def test_bytes_are_not_taken_while_events_wait() -> None:
    pair = ConnectionPair()
    pair.acceptor.receive_data(frame(m.Ping(1)) * 2)
    pair.acceptor.next_event()
    with pytest.raises(LocalProtocolError, match="next_event"):
        pair.acceptor.receive_data(b"\0")


def test_messages_arrive_whole_from_single_bytes() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.acceptor.send(STATE["HOLDINGS"])
    pair.acceptor.send(ANSWERS["WANT"])
    events = []
    for byte in output(pair.acceptor):
        events += feed(pair.dialler, bytes((byte,)))
    assert events == [STATE["HOLDINGS"], ANSWERS["WANT"]]


# -- requests and answers --------------------------------------------------------------


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("asker", ["dialler", "acceptor"])
def test_each_request_and_answer_reaches_the_other_end(kind: str, asker: str) -> None:
    pair = ConnectionPair()
    end: Connection = getattr(pair, asker)
    pair.send(end, REQUESTS[kind])
    assert end.asked == pair.other(end).owed == (R1,)
    pair.send(pair.other(end), ANSWERS[kind])
    still = kind == "WATCH"
    assert bool(end.asked) is still
    assert pair.other(end).owes(R1) is still


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_any_request_may_be_refused(kind: str, refusal: str) -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS[kind])
    pair.send(pair.acceptor, REFUSALS[refusal])
    assert not pair.dialler.asked
    assert not pair.acceptor.owed


@pytest.mark.parametrize("kind", REQUESTS)
def test_only_content_that_can_be_given_away_is_elsewhere(kind: str) -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS[kind])
    answer = m.Elsewhere(R1, DEVICE)
    if kind in {"WANT", "GET_UNIT"}:
        pair.send(pair.acceptor, answer)
        return
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(answer)
    with pytest.raises(RemoteProtocolError):
        feed(pair.dialler, frame(answer))


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("other", REQUESTS)
def test_an_answer_of_another_kind_is_refused(kind: str, other: str) -> None:
    answer = ANSWERS[other]
    if type(answer) is type(ANSWERS[kind]):
        return
    pair = ConnectionPair()
    pair.open(REQUESTS[kind])
    with pytest.raises(LocalProtocolError, match="does not fit"):
        pair.acceptor.send(answer)
    honest = ConnectionPair()
    honest.open(REQUESTS[other])
    honest.acceptor.send(answer)
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        feed(pair.dialler, output(honest.acceptor))


@pytest.mark.parametrize(
    "request_, answer",
    [
        (REQUESTS["GET_COMMIT"], m.CommitData(R1, NAMES[0].checksum, b"other")),
        (REQUESTS["ASK"], m.Sizes(R1, (1, 2))),
        (REQUESTS["WANT"], m.Batch(R1, (b"one", b"two"))),
        (m.Want(R1, 5, NAMES[:2]), m.Batch(R1, (b"one", b"two"))),
        (m.GetUnit(R1, NAMES[0], 0, 3), m.Unit(R1, b"long")),
        (m.GetHashes(R1, NAMES[0], 1, 3), ANSWERS["GET_HASHES"]),
        (m.GetHashes(R1, NAMES[0], 2, 1), ANSWERS["GET_HASHES"]),
        (m.Watch(R1, COMMIT, 17), m.Map(R1, b"\0\0")),
        (m.Watch(R1, COMMIT, 11), m.Map(R1, b"\0\x10")),
    ],
)
def test_an_answer_that_does_not_agree_with_its_request_is_refused(
    request_: m.Request, answer: m.BulkAnswer | m.Sizes | m.Hashes
) -> None:
    pair = ConnectionPair()
    pair.open(request_)
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(answer)
    assert pair.acceptor.owes(R1)
    assert not pair.acceptor.has_output
    liar = forge(answer)
    with pytest.raises(RemoteProtocolError):
        feed(pair.dialler, liar)


def forge(answer: m.BulkAnswer | m.Sizes | m.Hashes) -> bytes:
    """Return the bytes of an answer whatever was asked."""
    if isinstance(answer, m.Sizes | m.Hashes):
        return frame(answer)
    head, pieces = split(answer)
    return frame(head) + b"".join(bulk(answer.request, p) for p in pieces if p)


def test_ids_ascend_and_are_never_used_again() -> None:
    pair = ConnectionPair()
    assert [pair.dialler.new_request() for _ in range(3)] == [1, 2, 3]
    pair.open(m.GetCommit(m.RequestId(5), COMMIT))
    pair.send(pair.acceptor, m.NotHave(m.RequestId(5)))
    for old in (4, 5):
        with pytest.raises(LocalProtocolError, match="after 5"):
            pair.dialler.send(m.GetCommit(m.RequestId(old), COMMIT))
        with pytest.raises(RemoteProtocolError, match="after 5"):
            feed(pair.acceptor, frame(m.GetCommit(m.RequestId(old), COMMIT)))
        pair = ConnectionPair()
        pair.open(m.GetCommit(m.RequestId(5), COMMIT))
    assert pair.dialler.new_request() == 6


@pytest.mark.parametrize(
    "answer", [m.NotHave(R1), UnitHead(R1, 5), m.Status(R1, 0, 0), m.Have(R1, (1,))]
)
def test_an_answer_nobody_asked_for_is_refused(answer: layout.Plain) -> None:
    pair = ConnectionPair()
    with pytest.raises(RemoteProtocolError, match="not open"):
        feed(pair.dialler, frame(answer))


def test_an_answer_to_nothing_cannot_be_sent() -> None:
    pair = ConnectionPair()
    for answer in (m.NotHave(R1), m.Unit(R1, b"x"), m.Status(R1, 0, 0), m.Cancel(R1)):
        with pytest.raises(LocalProtocolError, match="not open"):
            pair.acceptor.send(answer)


def test_unrequested_bulk_is_refused() -> None:
    pair = ConnectionPair()
    with pytest.raises(RemoteProtocolError, match="request 1 is not open"):
        feed(pair.dialler, bulk(1, b"surprise"))


def test_bulk_before_hello_is_refused() -> None:
    end = Connection()
    with pytest.raises(RemoteProtocolError):
        feed(end, bulk(1, b"surprise"))


def test_bulk_before_its_head_is_refused() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    with pytest.raises(RemoteProtocolError, match="where 0 are due"):
        feed(pair.dialler, bulk(1, b"early"))


def test_more_bulk_than_announced_is_refused() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    with pytest.raises(RemoteProtocolError, match="where 5 are due"):
        feed(pair.dialler, frame(UnitHead(R1, 5)) + bulk(1, b"sixsix"))


def test_a_second_head_is_refused() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    with pytest.raises(RemoteProtocolError, match="flowing"):
        feed(pair.dialler, frame(UnitHead(R1, 5)) * 2)


def test_a_batch_of_misses_needs_no_bulk() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.send(
        pair.acceptor,
        m.Batch(R1, (m.Miss.NOT_HAVE, m.Miss.TOO_LARGE, m.Miss.ELSEWHERE)),
    )
    assert not pair.dialler.asked


def test_progress_counts_bulk_as_it_comes() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    assert pair.dialler.progress(R1) == (0, 0)
    pair.acceptor.send(ANSWERS["GET_UNIT"])
    feed(pair.dialler, b"".join(pair.acceptor.data_to_send()))
    assert pair.dialler.progress(R1) == (limits.MAX_SLICE_BYTES, 200_000)
    assert pair.dialler.progress(9) == (0, 0)


def test_control_overtakes_bulk_between_slices() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    pair.acceptor.send(ANSWERS["GET_UNIT"])
    first = b"".join(pair.acceptor.data_to_send())
    pair.acceptor.send(m.Ping(5))
    second = b"".join(pair.acceptor.data_to_send())
    assert len(first) == len(frame(UnitHead(R1, 200_000))) + 8 + limits.MAX_SLICE_BYTES
    assert second.startswith(frame(m.Ping(5)))


def test_content_travels_packed_where_both_sides_said_that_they_can() -> None:
    pair = packing_pair()
    assert pair.dialler.may_pack
    pair.open(REQUESTS["WANT"])
    objects = (b"first " * 5_000, m.Miss.OMITTED, b"third " * 5_000)
    batch = m.Batch(R1, objects)
    frame = pack(batch.content)
    assert frame is not None
    pair.acceptor.send(replace(batch, frame=frame))
    assert pair.acceptor.queued_bulk_bytes == len(frame) < 1_000
    [event] = pair.carry(pair.acceptor)
    assert event == batch
    assert isinstance(event, m.Batch)
    assert event.frame == frame


@pytest.mark.parametrize("can", [("zstd", ""), ("", "zstd"), ("", "")])
def test_a_frame_is_refused_that_not_both_said_they_can_read(
    can: tuple[str, str],
) -> None:
    pair = packing_pair(*can)
    pair.open(REQUESTS["GET_UNIT"])
    with pytest.raises(LocalProtocolError, match="not both sides"):
        pair.acceptor.send(m.Unit(R1, b"u" * 100, pack([b"u" * 100])))
    with pytest.raises(RemoteProtocolError, match="not both sides"):
        feed(pair.dialler, frame(UnitHead(R1, 100, 20)))


def test_a_frame_must_be_shorter_than_what_is_in_it() -> None:
    pair = packing_pair()
    pair.open(REQUESTS["GET_UNIT"])
    with pytest.raises(RemoteProtocolError, match="UnitHead does not fit"):
        feed(pair.dialler, frame(UnitHead(R1, 100, 100)))


def test_a_frame_that_holds_something_else_is_the_peers_fault() -> None:
    pair = packing_pair()
    pair.open(REQUESTS["GET_UNIT"])
    packed = pack([b"u" * 200_000])
    assert packed is not None
    head = frame(UnitHead(R1, 200_001, len(packed)))
    with pytest.raises(RemoteProtocolError, match="200000 bytes where 200001 are due"):
        feed(pair.dialler, head + bulk(1, packed))


# -- cancelling ------------------------------------------------------------------------


def test_cancel_before_an_answer_is_confirmed() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.send(pair.dialler, m.Cancel(R1))
    assert (pair.acceptor.owed, pair.dialler.asked) == ((), (R1,))
    assert pair.carry(pair.acceptor) == [m.Cancelled(R1)]
    assert not pair.dialler.asked
    assert pair.dialler.wasted_bytes == 0
    with pytest.raises(LocalProtocolError, match="not open"):
        pair.acceptor.send(ANSWERS["WANT"])


def test_cancel_drops_slices_that_wait_and_charges_those_that_came() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    pair.acceptor.send(ANSWERS["GET_UNIT"])
    feed(pair.dialler, b"".join(pair.acceptor.data_to_send()))
    pair.dialler.send(m.Cancel(R1))
    feed(pair.dialler, b"".join(pair.acceptor.data_to_send()))  # on its way already
    pair.carry(pair.dialler)
    assert pair.acceptor.queued_bulk_bytes == 0
    assert pair.carry(pair.acceptor) == [m.Cancelled(R1)]
    assert pair.dialler.wasted_bytes == 2 * limits.MAX_SLICE_BYTES


def test_an_answer_that_crosses_cancel_counts() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_UNIT"])
    pair.dialler.send(m.Cancel(R1))
    pair.acceptor.send(ANSWERS["GET_UNIT"])
    assert pair.carry(pair.acceptor) == [ANSWERS["GET_UNIT"]]
    assert pair.carry(pair.dialler) == []
    assert not pair.acceptor.has_output
    assert pair.dialler.wasted_bytes == 0


def test_a_refusal_that_crosses_cancel_counts() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.dialler.send(m.Cancel(R1))
    pair.acceptor.send(m.NotHave(R1))
    assert pair.carry(pair.acceptor) == [m.NotHave(R1)]
    assert pair.carry(pair.dialler) == []


def test_a_request_is_cancelled_once_and_by_its_asker() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.dialler.send(m.Cancel(R1))
    with pytest.raises(LocalProtocolError, match="cancelling"):
        pair.dialler.send(m.Cancel(R1))
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(m.Cancelled(R1))
    with pytest.raises(RemoteProtocolError, match="not made"):
        feed(pair.dialler, frame(m.Cancel(R1)))


def test_cancelled_without_cancel_is_refused() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    with pytest.raises(RemoteProtocolError, match="waiting"):
        feed(pair.dialler, frame(m.Cancelled(R1)))


def test_status_that_waits_is_dropped_with_its_request() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.acceptor.send(m.Status(R1, 1000, 10))
    pair.acceptor.send(m.NotHave(R1))
    assert pair.carry(pair.acceptor) == [m.NotHave(R1)]


# -- watching --------------------------------------------------------------------------


def units(*objects: tuple[int, bytes]) -> m.Units:
    return m.Units(R1, tuple(m.UnitMap(*found) for found in objects))


def watching() -> ConnectionPair:
    pair = ConnectionPair()
    pair.open(REQUESTS["WATCH"])
    pair.send(pair.acceptor, ANSWERS["WATCH"])
    return pair


def test_updates_follow_the_map_until_cancel() -> None:
    pair = watching()
    pair.send(pair.acceptor, m.Have(R1, (1, 3, 10)))
    pair.send(pair.acceptor, units((4, b"\xc0"), (10, b"\x80")))
    pair.send(pair.dialler, m.Cancel(R1))
    assert pair.carry(pair.acceptor) == [m.Cancelled(R1)]
    assert not pair.dialler.asked
    assert not pair.acceptor.owed


def test_a_complete_holder_sends_no_bitmap() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WATCH"])
    pair.send(pair.acceptor, m.Map(R1))
    pair.send(pair.acceptor, m.NotHave(R1))
    assert not pair.dialler.asked


def test_updates_may_overtake_the_bitmap() -> None:
    pair = ConnectionPair()
    pair.open(m.Watch(R1, COMMIT, 1_000_000))
    answer = m.Map(R1, bytes(125_000))
    pair.acceptor.send(answer)
    feed(pair.dialler, b"".join(pair.acceptor.data_to_send()))
    update = m.Have(R1, (999_999,))
    pair.acceptor.send(update)
    assert pair.carry(pair.acceptor) == [update, answer]


def test_a_holder_may_end_a_watch_while_its_bitmap_waits() -> None:
    pair = ConnectionPair()
    pair.open(m.Watch(R1, COMMIT, 1_000_000))
    pair.acceptor.send(m.Map(R1, bytes(125_000)))
    feed(pair.dialler, b"".join(pair.acceptor.data_to_send()))
    pair.send(pair.acceptor, m.NotHave(R1))
    assert pair.acceptor.queued_bulk_bytes == 0
    assert not pair.dialler.asked


def test_updates_before_the_map_are_refused() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WATCH"])
    with pytest.raises(LocalProtocolError, match="waiting"):
        pair.acceptor.send(m.Have(R1, (1,)))
    with pytest.raises(RemoteProtocolError, match="waiting"):
        feed(pair.dialler, frame(m.Have(R1, (1,))))


@pytest.mark.parametrize(
    "update", [m.Have(R1, (11,)), units((11, b"\x80"), (3, b"\x80"))]
)
def test_updates_stay_within_the_closure(update: m.Update) -> None:
    pair = watching()
    with pytest.raises(LocalProtocolError, match="past the closure"):
        pair.acceptor.send(update)
    with pytest.raises(RemoteProtocolError, match="past the closure"):
        feed(pair.dialler, frame(update))


def test_updates_belong_to_a_watch() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    with pytest.raises(RemoteProtocolError, match="past the closure"):
        feed(pair.dialler, frame(m.Have(R1, (1,))))


def test_updates_that_wait_are_merged() -> None:
    pair = watching()
    pair.acceptor.send(m.Have(R1, (2, 5)))
    pair.acceptor.send(units((7, b"\x80"), (4, b"\x80")))
    pair.acceptor.send(m.Have(R1, (1, 5)))
    pair.acceptor.send(units((7, b"\xc0"), (2, b"\x40")))
    assert pair.carry(pair.acceptor) == [
        m.Have(R1, (1, 2, 5)),
        units((2, b"\x40"), (4, b"\x80"), (7, b"\xc0")),
    ]


def test_updates_too_many_for_one_message_are_divided() -> None:
    pair = ConnectionPair()
    pair.open(m.Watch(R1, COMMIT, 1_000_000))
    pair.send(pair.acceptor, m.Map(R1, bytes(125_000)))
    most = limits.MAX_HAVE_INDICES
    pair.acceptor.send(m.Have(R1, tuple(range(2 * most, 0, -1))))
    pair.acceptor.send(m.Have(R1, (999_999,)))
    pair.acceptor.send(m.Have(R1, tuple(range(most - 1))))
    events = pair.carry(pair.acceptor)
    found = [event.indices for event in events if isinstance(event, m.Have)]
    assert found[0] == tuple(range(1, most + 1))
    assert {i for part in found for i in part} == {*range(2 * most + 1), 999_999}
    assert list(map(len, found)) == [most, most, most]


LONG = b"\xff" * (limits.MAX_OBJECT_UNITS // 8)
"""The bitmap of the largest object; six of them fill a message."""


def in_parts(*updates: m.Units) -> list[m.Units]:
    """Return what comes of updates that wait together."""
    pair = watching()
    for update in updates:
        pair.acceptor.send(update)
    return [event for event in pair.carry(pair.acceptor) if isinstance(event, m.Units)]


def test_units_of_too_many_objects_for_one_message_are_divided() -> None:
    first, second = in_parts(units(*((index, LONG) for index in range(8))))
    assert [found.number for found in first.objects] == [0, 1, 2, 3, 4, 5]
    assert [found.number for found in second.objects] == [6, 7]
    pair = ConnectionPair()
    most = limits.MAX_UNITS_OBJECTS
    pair.open(m.Watch(R1, COMMIT, most + 1))
    pair.send(pair.acceptor, m.Map(R1))
    many = units(*((index, b"\x80") for index in range(most + 1)))
    pair.acceptor.send(many)
    events = pair.carry(pair.acceptor)
    found = [event.objects for event in events if isinstance(event, m.Units)]
    assert [*map(len, found)] == [most, 1]
    assert found[0] + found[1] == many.objects


def test_divided_units_that_wait_are_replaced_too() -> None:
    many = units(*((index, LONG) for index in range(8)))
    # Each waiting for itself, they would be more than may wait.
    assert len(in_parts(*[many] * 9)) == 2
    (shrunk,) = in_parts(many, units(*((index, b"\x80") for index in range(2, 8))))
    assert [len(found.bitmap) for found in shrunk.objects] == [8192, 8192, *[1] * 6]


def test_what_is_withdrawn_is_not_behind_the_answer_that_follows() -> None:
    pair = watching()
    pair.send(pair.dialler, m.GetUnit(m.RequestId(2), NAMES[0], 0, 1))
    pair.acceptor.send(units(*((index, b"\x80") for index in range(11))))
    pair.acceptor.send(units((10, b"\0")))
    pair.acceptor.send(m.NotHave(m.RequestId(2)))
    pair.acceptor.send(units(*((index, LONG) for index in range(10))))
    first, answer, second = pair.carry(pair.acceptor)
    assert isinstance(first, m.Units)
    assert first.objects[0] == (10, b"\0")
    assert isinstance(answer, m.NotHave)
    assert isinstance(second, m.Units)
    assert len(first.objects) + len(second.objects) == 11


def test_divided_units_are_dropped_when_the_watch_ends() -> None:
    pair = watching()
    pair.acceptor.send(units(*((index, LONG) for index in range(8))))
    pair.acceptor.send(units(*((index, b"\x80") for index in range(8))))
    pair.send(pair.dialler, m.Cancel(R1))
    assert pair.carry(pair.acceptor) == [m.Cancelled(R1)]


def test_an_update_must_name_objects() -> None:
    pair = watching()
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(units())
    for indices in ((), (-1,)):
        with pytest.raises(LocalProtocolError):
            pair.acceptor.send(m.Have(R1, indices))
    assert not pair.acceptor.has_output


def test_updates_that_wait_are_dropped_when_the_watch_ends() -> None:
    pair = watching()
    pair.acceptor.send(m.Have(R1, (1,)))
    pair.acceptor.send(units((7, b"\x80")))
    pair.send(pair.dialler, m.Cancel(R1))
    assert pair.carry(pair.acceptor) == [m.Cancelled(R1)]


# -- state and signs of life -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["HOLDINGS", "RECORD", "DIGEST"])
def test_state_reaches_the_other_end(kind: str) -> None:
    pair = ConnectionPair()
    pair.send(pair.dialler, STATE[kind])
    pair.send(pair.acceptor, STATE[kind])


def test_state_that_waits_is_replaced() -> None:
    pair = ConnectionPair()
    latest = m.Holdings((m.HeldCommit(COMMIT, m.Held.COMPLETE),))
    other = m.Record(m.DeviceId(COMMIT), 1, 1, b"other member")
    for message in (
        STATE["HOLDINGS"],
        STATE["RECORD"],
        other,
        m.Record(DEVICE, 7, 100, b"newer"),
        latest,
    ):
        pair.acceptor.send(message)
    assert pair.carry(pair.acceptor) == [
        latest,
        m.Record(DEVICE, 7, 100, b"newer"),
        other,
    ]


def test_ping_is_answered_by_the_connection() -> None:
    pair = ConnectionPair()
    pair.send(pair.dialler, m.Ping(77))
    waits = [pair.dialler.awaits_pong]
    assert pair.carry(pair.acceptor) == [m.Pong(77)]
    assert [*waits, pair.dialler.awaits_pong] == [True, False]
    pair.send(pair.dialler, m.Ping(78))


def test_one_ping_waits_for_its_answer() -> None:
    pair = ConnectionPair()
    pair.dialler.send(m.Ping(1))
    with pytest.raises(LocalProtocolError, match="second PING"):
        pair.dialler.send(m.Ping(2))
    with pytest.raises(RemoteProtocolError, match="second PING"):
        feed(pair.acceptor, frame(m.Ping(1)) + frame(m.Ping(2)))


def test_a_pong_answers_a_ping() -> None:
    pair = ConnectionPair()
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(m.Pong(1))
    with pytest.raises(RemoteProtocolError, match="PONG"):
        feed(pair.dialler, frame(m.Pong(1)))


def test_status_is_a_sign_of_life_while_a_request_waits() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["WANT"])
    pair.acceptor.send(m.Status(R1, 1000, 10))
    pair.acceptor.send(m.Status(R1, 900, 10))
    assert pair.carry(pair.acceptor) == [m.Status(R1, 900, 10)]
    pair.send(pair.acceptor, ANSWERS["WANT"])


def test_unknown_messages_are_ignored_only_when_optional() -> None:
    pair = ConnectionPair()
    assert feed(pair.dialler, control_frame(b"\x92\x7f\x01")) == []
    with pytest.raises(RemoteProtocolError, match="0x3f is not known"):
        feed(pair.dialler, control_frame(b"\x92\x3f\x01"))


# -- limits ----------------------------------------------------------------------------


def ask(number: int, count: int) -> m.Ask:
    return m.Ask(m.RequestId(number), (m.prefix_of(NAMES[0]),) * count)


def test_requests_stay_within_what_the_peer_allows() -> None:
    pair = ConnectionPair(other=replace(HELLO, max_requests=4))
    for number in range(1, 5):
        pair.open(ask(number, 1))
    fifth = ask(5, 1)
    assert not pair.dialler.has_room(fifth)
    with pytest.raises(LocalProtocolError, match="more than 4 requests"):
        pair.dialler.send(fifth)
    with pytest.raises(RemoteProtocolError, match="more than 4 requests"):
        feed(pair.acceptor, frame(fifth))


def test_names_in_open_requests_stay_within_what_the_peer_allows() -> None:
    strict = replace(HELLO, max_names=limits.MAX_ASK_PREFIXES)
    pair = ConnectionPair(hello=strict)
    pair.open(ask(1, limits.MAX_ASK_PREFIXES))
    one = m.GetUnit(m.RequestId(2), NAMES[0], 0, 1)
    with pytest.raises(LocalProtocolError, match="more than 4096 names"):
        pair.dialler.send(one)
    with pytest.raises(RemoteProtocolError, match="more than 4096 names"):
        feed(pair.acceptor, frame(one))
    pair = ConnectionPair(hello=strict)
    pair.open(ask(1, limits.MAX_ASK_PREFIXES - 1))
    pair.send(pair.acceptor, m.Busy(R1, 5))
    pair.open(ask(2, limits.MAX_ASK_PREFIXES))


def test_one_commit_at_a_time() -> None:
    pair = ConnectionPair()
    pair.open(REQUESTS["GET_HEAD"])
    second = m.GetCommit(m.RequestId(2), COMMIT)
    with pytest.raises(LocalProtocolError, match="second commit"):
        pair.dialler.send(second)
    pair.send(pair.acceptor, m.NotHave(R1))
    assert pair.dialler.has_room(second)
    pair.open(second)


def test_watches_are_bounded_apart_from_other_requests() -> None:
    pair = ConnectionPair(hello=replace(HELLO, max_requests=4))
    for number in range(1, limits.MAX_WATCHES + 1):
        pair.open(m.Watch(m.RequestId(number), COMMIT, 8))
    last = limits.MAX_WATCHES + 1
    with pytest.raises(LocalProtocolError, match="too many watches"):
        pair.dialler.send(m.Watch(m.RequestId(last), COMMIT, 8))
    for number in range(last, last + 4):
        pair.open(ask(number, 1))


def test_a_peer_that_does_not_read_is_disconnected() -> None:
    pair = ConnectionPair()
    records = [
        m.Record(m.DeviceId(f"{number:064x}"), 1, 1, bytes(limits.MAX_RECORD_BYTES))
        for number in range(600)
    ]
    for record in records[:400]:
        pair.dialler.send(record)
    with pytest.raises(RemoteProtocolError, match="does not read") as caught:
        send_all(pair.dialler, records[400:])
    assert "disconnected" in caught.value.hint
    assert pair.dialler.queued_control_bytes <= limits.MAX_CONTROL_QUEUE_BYTES
    assert pair.dialler.theirs is Side.FAILED
    pair.dialler.send(m.Bye(m.Farewell.MISBEHAVED))


def send_all(end: Connection, messages: Sequence[m.Message]) -> None:
    for message in messages:
        end.send(message)


def test_a_peer_that_cancels_without_reading_is_disconnected() -> None:
    pair = ConnectionPair()
    flood = b"".join(
        frame(m.GetCommit(m.RequestId(number), COMMIT))
        + frame(m.Cancel(m.RequestId(number)))
        for number in range(1, 60_000)
    )
    with pytest.raises(RemoteProtocolError, match="does not read"):
        feed(pair.acceptor, flood)


def test_a_message_out_of_bounds_is_not_sent() -> None:
    pair = ConnectionPair()
    with pytest.raises(LocalProtocolError, match=r"WANT\.names"):
        pair.dialler.send(m.Want(R1, 1, ()))
    assert not pair.dialler.has_output
    assert not pair.dialler.asked
