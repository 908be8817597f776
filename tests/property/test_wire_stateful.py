"""Two connections and two byte streams, driven at random against a small model."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from p2p.wire import limits
from p2p.wire import messages as m
from p2p.wire.connection import Connection
from tests.wire.samples import (
    ANSWERS,
    COMMIT,
    DEVICE,
    HELLO,
    R1,
    REFUSALS,
    REQUESTS,
)

SIDES = (0, 1)
BITMAP = b"\xa5" * 125_000  # two slices
QUESTIONS = REQUESTS | {"WATCH": m.Watch(R1, COMMIT, 8 * len(BITMAP))}
REPLIES = ANSWERS | {"WATCH": m.Map(R1, BITMAP)}
Order = tuple[int, int]

sides = st.sampled_from(SIDES)
either = st.sampled_from([(0, 1), (1, 0)])


class Peers(RuleBasedStateMachine):
    """Each request gets one terminal answer, content arrives as it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (Connection(), Connection())
        self.stream = [b"", b""]  # what side 0 or 1 wrote and the other not yet read
        self.todo: list[dict[int, str]] = [{}, {}]  # requests a side has seen, by kind
        self.kinds: list[dict[int, str]] = [{}, {}]  # requests a side made
        self.cancelled: list[set[int]] = [set(), set()]
        self.ended: list[set[int]] = [set(), set()]
        self.sent: list[dict[int, m.Message]] = [{}, {}]  # answers a side gave
        self.told: list[dict[int, set[int]]] = [{}, {}]  # indices of Have
        self.heard: list[dict[int, set[int]]] = [{}, {}]
        # Units of objects, by the watch and the object.
        self.units_told: list[dict[Order, bytes]] = [{}, {}]
        self.units_heard: list[dict[Order, bytes]] = [{}, {}]

    @initialize(names=st.sampled_from([4096, 5000]), requests=st.integers(4, 6))
    def connect(self, names: int, requests: int) -> None:
        for side in SIDES:
            hello = replace(HELLO, max_names=names, max_requests=requests, dial=side)
            self.ends[side].send(hello)
        for side in SIDES:
            self.write(side)
            self.read(1 - side, len(self.stream[side]))

    # -- what the ends do ----------------------------------------------------------

    @rule(side=sides, kind=st.sampled_from(list(QUESTIONS)))
    def ask(self, side: int, kind: str) -> None:
        end = self.ends[side]
        request = replace(QUESTIONS[kind], request=end.new_request())
        if end.has_room(request):
            end.send(request)
            self.kinds[side][request.request] = kind

    @precondition(lambda self: any(self.todo))
    @rule(order=either, data=st.data(), refuse=st.integers(0, 4))
    def answer(self, order: Order, data: st.DataObject, refuse: int) -> None:
        side = next(side for side in order if self.todo[side])
        request = data.draw(st.sampled_from(sorted(self.todo[side])))
        self.give(side, request, refuse=refuse == 0)

    def give(self, side: int, request: int, *, refuse: bool) -> None:
        kind = self.todo[side].pop(request)
        answer = REFUSALS["BUSY"] if refuse else REPLIES[kind]
        assert isinstance(answer, m.Busy | m.BulkAnswer | m.Sizes | m.Hashes)
        answer = replace(answer, request=m.RequestId(request))
        self.ends[side].send(answer)
        self.sent[side][request] = answer
        if isinstance(answer, m.Map):
            self.told[side][request] = set()

    @precondition(lambda self: any(self.told))
    @rule(index=st.integers(0, 8 * len(BITMAP) - 1))
    def update(self, index: int) -> None:
        for side in SIDES:
            for request, told in self.told[side].items():
                self.ends[side].send(m.Have(m.RequestId(request), (index,)))
                told.add(index)

    @precondition(lambda self: any(self.told))
    @rule(
        numbers=st.sets(st.integers(0, 9), min_size=1),
        bitmap=st.sampled_from([b"\0", b"\x80", b"\xff" * 8000, b"\xfe" * 8192]),
    )
    def update_units(self, numbers: set[int], bitmap: bytes) -> None:
        objects = tuple(m.UnitMap(number, bitmap) for number in numbers)
        for side in SIDES:
            # All watches' bitmaps together would be more than may wait.
            for request in list(self.told[side])[:1]:
                self.ends[side].send(m.Units(m.RequestId(request), objects))
                for number in numbers:
                    self.units_told[side][request, number] = bitmap

    @precondition(lambda self: any(self.told))
    @rule(order=either)
    def lose_what_is_watched(self, order: Order) -> None:
        side = next(side for side in order if self.told[side])
        request, _ = self.told[side].popitem()
        answer = m.NotHave(m.RequestId(request))
        self.ends[side].send(answer)
        self.sent[side][request] = answer

    @precondition(lambda self: any(map(self.can_cancel, SIDES)))
    @rule(order=either, data=st.data(), late=st.integers(0, 3))
    def cancel(self, order: Order, data: st.DataObject, late: int) -> None:
        if late:
            return  # else most requests never get as far as an answer
        side = next(side for side in order if self.can_cancel(side))
        request = data.draw(st.sampled_from(self.can_cancel(side)))
        self.ends[side].send(m.Cancel(m.RequestId(request)))
        self.cancelled[side].add(request)

    def can_cancel(self, side: int) -> list[int]:
        return sorted(set(self.ends[side].asked) - self.cancelled[side])

    @rule(side=sides, value=st.integers(0, 99))
    def say_how_it_stands(self, side: int, value: int) -> None:
        end = self.ends[side]
        end.send(m.Record(DEVICE, 1, value, b"record"))
        end.send(m.Holdings((m.HeldCommit(COMMIT, m.Held.BEGUN),)))

    @precondition(lambda self: any(end.owed for end in self.ends))
    @rule(value=st.integers(0, 99))
    def show_life(self, value: int) -> None:
        for side in SIDES:
            for request in set(self.ends[side].owed) - set(self.told[side]):
                self.ends[side].send(m.Status(request, value, 1))

    # -- what the network does -----------------------------------------------------

    @precondition(lambda self: any(end.has_output for end in self.ends))
    @rule(order=either)
    def write_some(self, order: Order) -> None:
        self.write(next(side for side in order if self.ends[side].has_output))

    def write(self, side: int) -> None:
        self.stream[side] += b"".join(self.ends[side].data_to_send())

    @precondition(lambda self: any(end.has_output for end in self.ends))
    @rule()
    def carry_a_slice_each_way(self) -> None:
        for side in SIDES:
            self.write(side)
            self.read(1 - side, len(self.stream[side]))

    @precondition(lambda self: any(self.stream))
    @rule(order=either, size=st.integers(1, 100_000))
    def read_some(self, order: Order, size: int) -> None:
        self.read(next(side for side in order if self.stream[1 - side]), size)

    def read(self, side: int, size: int) -> None:
        data = self.stream[1 - side][:size]
        self.stream[1 - side] = self.stream[1 - side][size:]
        end = self.ends[side]
        end.receive_data(data)
        while (event := end.next_event()) is not None:
            self.see(side, event)

    def see(self, side: int, event: m.Message) -> None:
        if isinstance(event, m.Request):
            assert event == replace(
                QUESTIONS[self.kinds[1 - side][event.request]], request=event.request
            )
            self.todo[side][event.request] = self.kinds[1 - side][event.request]
        elif isinstance(event, m.Cancel):
            self.todo[side].pop(event.request, None)
            self.told[side].pop(event.request, None)
        elif isinstance(event, m.Have):
            self.heard[side].setdefault(event.request, set()).update(event.indices)
        elif isinstance(event, m.Units):
            for number, bitmap in event.objects:
                self.units_heard[side][event.request, number] = bitmap
        elif isinstance(event, m.Map):
            assert event.bitmap == BITMAP
        elif isinstance(event, m.PlainAnswer | m.BulkAnswer):
            self.end_request(side, event)

    def end_request(self, side: int, event: m.PlainAnswer | m.BulkAnswer) -> None:
        request = event.request
        assert request not in self.ended[side]
        assert request not in self.ends[side].asked
        self.ended[side].add(request)
        if isinstance(event, m.Cancelled):
            assert request in self.cancelled[side]
        else:
            assert event == self.sent[1 - side][request]

    # -- what always holds ---------------------------------------------------------

    @invariant()
    def each_request_is_open_or_ended(self) -> None:
        for side in SIDES:
            assert set(self.ends[side].asked) | self.ended[side] == set(
                self.kinds[side]
            )

    @invariant()
    def queues_are_bounded(self) -> None:
        for end in self.ends:
            assert end.queued_control_bytes <= limits.MAX_CONTROL_QUEUE_BYTES

    def become_quiet(self) -> None:
        for _ in range(4):
            for side in SIDES:
                for request in sorted(self.todo[side]):
                    self.give(side, request, refuse=False)
                while self.ends[side].has_output:
                    self.write(side)
                self.read(1 - side, len(self.stream[side]))
        for side in SIDES:
            watched = set(self.ends[side].asked)
            assert watched == set(self.ends[1 - side].owed) == set(self.told[1 - side])
            assert not watched & self.cancelled[side]
            for request in watched:
                assert (
                    self.heard[side].get(request, set())
                    == (self.told[1 - side][request])
                )
            for (request, number), bitmap in self.units_told[1 - side].items():
                if request in watched:
                    assert self.units_heard[side][request, number] == bitmap

    def teardown(self) -> None:
        if self.ends[0].is_up:
            self.become_quiet()


TestPeers = Peers.TestCase
TestPeers.settings = settings(max_examples=100, stateful_step_count=50)
