"""Whatever bytes come, the wire gives messages or blames the peer; nothing else."""

import tracemalloc
from contextlib import suppress

import msgpack
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from p2p.errors import RemoteProtocolError
from p2p.wire import bitmap, layout, limits, varint
from p2p.wire import messages as m
from p2p.wire.bulk import UnitHead, join, split
from p2p.wire.connection import Connection
from p2p.wire.dial import Contender, replaces
from p2p.wire.frame import control_frame, slice_header
from p2p.wire.rule import RuleError
from tests.wire import samples
from tests.wire.pair import ConnectionPair, feed, output

# -- there and back --------------------------------------------------------------------


@given(samples.plain_messages)
def test_a_message_in_a_control_body_comes_out_equal(message: layout.Plain) -> None:
    assert layout.decode(layout.encode(message)) == message


@given(samples.bulk_answers)
def test_an_answer_with_bulk_comes_out_equal(answer: m.BulkAnswer) -> None:
    head, pieces = split(answer)
    assert layout.decode(layout.encode(head)) == head
    assert head.bulk_bytes == sum(map(len, pieces))
    assert join(head, bytearray(b"".join(pieces))) == answer


@given(samples.ascending(300))
def test_ascending_numbers_come_out_of_varints(numbers: tuple[int, ...]) -> None:
    assert varint.unpack_ascending(varint.pack_ascending(numbers), 300) == numbers


@given(st.binary(max_size=40))
def test_a_list_of_varints_has_one_form(data: bytes) -> None:
    try:
        numbers = varint.unpack_ascending(data, 20)
    except RuleError:
        return
    assert varint.pack_ascending(numbers) == data


@given(st.integers(1, 300), st.data())
def test_bits_come_out_of_a_bitmap(count: int, data: st.DataObject) -> None:
    indices = data.draw(st.sets(st.integers(0, count - 1)))
    packed = bitmap.pack(indices, count)
    bitmap.check(packed, count)
    assert bitmap.unpack(packed) == sorted(indices)


# -- any bytes -------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=100)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
codes = st.sampled_from(sorted(layout.BY_CODE)) | st.integers(-1, 300)


@given(codes, st.lists(values, max_size=13))
def test_a_control_body_is_refused_or_can_be_sent_again(
    code: int, rest: list[object]
) -> None:
    try:
        message = layout.decode(msgpack.packb([code, *rest]))
    except RuleError:
        return
    assert message is None or layout.decode(layout.encode(message)) == message


@given(st.binary(max_size=300))
def test_any_control_body_is_a_message_or_breaks_a_rule(body: bytes) -> None:
    with suppress(RuleError):
        layout.decode(body)


@given(samples.plain_messages, st.data())
def test_a_changed_control_body_is_a_message_or_breaks_a_rule(
    message: layout.Plain, data: st.DataObject
) -> None:
    body = bytearray(layout.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    with suppress(RuleError):
        layout.decode(bytes(body))


def session(state: str) -> Connection:
    """Return a connection in one of the states a stream can meet it in."""
    if state == "new":
        return Connection()
    end = ConnectionPair().dialler
    if state == "asking":
        for number, request in enumerate(samples.REQUESTS.values(), 1):
            if not isinstance(request, m.GetCommit):
                fields = {
                    key: getattr(request, key) for key in request.__dataclass_fields__
                }
                end.send(type(request)(**fields | {"request": m.RequestId(number)}))
        output(end)
    return end


frames = st.one_of(
    st.binary(max_size=200),
    samples.plain_messages.map(lambda message: control_frame(layout.encode(message))),
    samples.bulk_answers.map(
        lambda answer: control_frame(layout.encode(split(answer)[0]))
    ),
    st.builds(
        lambda request, data: slice_header(request, len(data)) + data,
        st.integers(0, 9),
        st.binary(max_size=100),
    ),
    st.builds(
        lambda code, rest: control_frame(msgpack.packb([code, *rest])),
        codes,
        st.lists(st.integers(0, 9) | st.binary(max_size=64), max_size=5),
    ),
)


@given(
    st.sampled_from(["new", "up", "asking"]),
    st.lists(frames, max_size=8).map(b"".join),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
@example("up", b"\0\0\0\2\x91\xdc", [1])
def test_any_bytes_in_any_pieces_give_messages_or_blame_the_peer(
    state: str, data: bytes, steps: list[int]
) -> None:
    end = session(state)
    whole = session(state)
    events: list[m.Message] = []
    position = turn = 0
    try:
        while position < len(data):
            step = steps[turn % len(steps)]
            events += feed(end, data[position : position + step])
            position, turn = position + step, turn + 1
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            feed(whole, data)
    else:
        assert feed(whole, data) == events
    assert end.queued_control_bytes <= limits.MAX_CONTROL_QUEUE_BYTES


@pytest.mark.parametrize("count", [limits.MAX_ARRAY_ITEMS, 65_535])
def test_nested_arrays_that_claim_much_take_little_memory(count: int) -> None:
    bomb = (b"\xdc" + count.to_bytes(2, "big")) * (limits.MAX_CONTROL_BYTES // 3)
    tracemalloc.start()
    try:
        with pytest.raises(RuleError):
            layout.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_bulk_in_single_bytes_takes_the_memory_of_its_length_once() -> None:
    pair = ConnectionPair()
    pair.open(m.GetUnit(samples.R1, samples.NAMES[0], 0, 20_000))
    feed(pair.dialler, control_frame(layout.encode(UnitHead(samples.R1, 20_000))))
    # Each drop comes with much else, which must not be kept for its sake.
    chunk = (
        slice_header(1, 1) + b"x" + control_frame(b"\x92\x7f\xc5\x20\x00" + bytes(8192))
    )
    tracemalloc.start()
    try:
        for _ in range(19_999):
            assert feed(pair.dialler, bytes(bytearray(chunk))) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# -- both dial -------------------------------------------------------------------------

contenders = st.builds(
    Contender,
    dialler=st.sampled_from([samples.DEVICE, m.DeviceId(samples.COMMIT)]),
    dial=st.integers(1, 3),
    peer=st.just((bytes(16), 1)),
)


@given(contenders, contenders)
def test_both_ends_keep_the_same_session_in_whatever_order_they_see_them(
    one: Contender, two: Contender
) -> None:
    assume((one.dialler, one.dial) != (two.dialler, two.dial))
    assert replaces(one, two) is not replaces(two, one)
