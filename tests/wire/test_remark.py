"""Whatever is to be said for people can be sent."""

from hypothesis import given
from hypothesis import strategies as st

from p2p.wire import layout
from p2p.wire import messages as m
from p2p.wire.limits import MAX_TEXT_BYTES
from p2p.wire.remark import remark


@given(st.text(st.characters(), max_size=300))
def test_any_text_fits(text: str) -> None:
    said = remark(text)
    layout.encode(m.Bye(m.Farewell.OTHER, said))
    layout.encode(m.Rejected(m.RequestId(1), m.Refusal.OTHER, said))


def test_short_plain_text_stays_as_it_is() -> None:
    assert remark("Grüße, 42 %") == "Grüße, 42 %"


def test_what_is_cut_keeps_whole_characters() -> None:
    assert remark("ä" * 300) == "ä" * (MAX_TEXT_BYTES // 2)
    assert remark("x" + "ä" * 300) == "x" + "ä" * (MAX_TEXT_BYTES // 2 - 1)


def test_lines_and_colours_do_not_reach_the_other_sides_terminal() -> None:
    assert remark("a\nb\x1b[31mc\x9b") == "a?b?[31mc?"
