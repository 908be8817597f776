"""How long others are waited for."""

from p2p.swarm.patience import Patience


def test_it_is_spent_when_nothing_comes_for_that_long() -> None:
    patience = Patience(5.0)
    assert patience.deadline() is None
    patience.watch(10.0, waiting=True, won=0.0)
    assert patience.deadline() == 15.0
    spent = {}
    for now in (14.0, 15.0):
        patience.watch(now, waiting=True, won=0.0)
        spent[now] = patience.is_spent
    assert spent == {14.0: False, 15.0: True}
    assert patience.deadline() == 20.0
    patience.watch(20.0, waiting=True, won=0.0)
    assert patience.is_spent_twice
    assert patience.deadline() is None
    assert "10.0 of 5.0" in repr(patience)


def test_whoever_is_as_fast_as_we_would_be_is_waited_for_without_end() -> None:
    patience = Patience(5.0)
    patience.watch(0.0, waiting=True, won=0.0)
    for second in range(1, 1000):
        patience.watch(float(second), waiting=True, won=1.0)
        assert not patience.is_spent


def test_something_to_do_ourselves_forgives_the_loss() -> None:
    patience = Patience(5.0)
    patience.watch(0.0, waiting=True, won=0.0)
    patience.watch(4.0, waiting=False, won=0.0)
    patience.watch(100.0, waiting=True, won=0.0)
    patience.watch(104.0, waiting=True, won=0.0)
    assert not patience.is_spent


def test_a_long_loss_is_won_back_in_a_short_time() -> None:
    patience = Patience(5.0)
    patience.watch(0.0, waiting=True, won=0.0)
    patience.watch(3600.0, waiting=True, won=0.0)
    patience.watch(3600.0, waiting=True, won=6.0)
    assert not patience.is_spent
