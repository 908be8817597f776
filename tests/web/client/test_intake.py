"""How a body is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.web.client.intake import PIECE_BYTES, Intake


def feed(intake: Intake, chunks: list[bytes]) -> list[bytes]:
    pieces: list[bytes] = []

    def put(data: bytes) -> bool:
        pieces.append(data)
        return True

    for chunk in chunks:
        intake.take(chunk)
        assert intake.pump(put)
    return pieces


@given(st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=6))
def test_pieces_are_full_but_for_the_last_and_are_the_body(sizes: list[int]) -> None:
    intake = Intake(None)
    chunks = [bytes([n]) * size for n, size in enumerate(sizes)]
    pieces = feed(intake, chunks)
    last = intake.finish()
    assert b"".join([*pieces, last]) == b"".join(chunks)
    assert all(len(piece) == PIECE_BYTES for piece in pieces)
    assert len(last) <= PIECE_BYTES
    assert not pieces or last
    assert intake.received == sum(sizes)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES])
def test_a_body_of_one_piece_comes_at_the_end(size: int) -> None:
    intake = Intake(None)
    assert feed(intake, [bytes(size)]) == []
    assert intake.finish() == bytes(size)


def test_it_stops_where_there_is_no_room_and_goes_on_later() -> None:
    intake = Intake(None)
    pieces: list[bytes] = []

    def refuse(data: bytes) -> bool:
        pieces.append(data)
        return False

    assert intake.pump(refuse)
    intake.take(bytes(2 * PIECE_BYTES))
    seen = [(intake.pump(refuse), intake.busy) for _ in range(2)]
    assert seen == [(False, True), (True, False)]
    assert intake.finish() == bytes(PIECE_BYTES)
    assert [len(piece) for piece in pieces] == [PIECE_BYTES]
