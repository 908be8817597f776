"""When a large site whose members are just being found is dialled."""

from p2p.agent.dialling import MAX_QUIET_SECONDS, MAX_SURGE_SECONDS, Surge
from p2p.swarm.overlay import MESH_MEMBERS


def test_a_small_site_is_dialled_at_once() -> None:
    surge = Surge()
    for known in range(1, MESH_MEMBERS + 1):
        surge.found(known, 100.0)
    assert surge.end(100.0) <= 100.0


def test_a_large_site_is_dialled_once_nobody_new_is_found() -> None:
    surge = Surge()
    now = 100.0
    for known in range(1, 101):
        now += 0.01
        surge.found(known, now)
    assert now < surge.end(now) <= now + MAX_QUIET_SECONDS
    later = now + MAX_QUIET_SECONDS
    assert surge.end(later) <= later


def test_the_larger_the_site_the_longer_nobody_new_is_waited_for() -> None:
    small, large = Surge(), Surge()
    small.found(MESH_MEMBERS + 1, 100.0)
    large.found(80, 100.0)
    assert small.end(100.0) < large.end(100.0)


def test_who_makes_members_up_for_ever_delays_dialling_only_so_long() -> None:
    surge = Surge()
    now = 100.0
    surge.found(1000, now)
    while surge.end(now) > now:
        now += MAX_QUIET_SECONDS / 2
        surge.found(1000, now)
    assert now <= 100.0 + MAX_SURGE_SECONDS
