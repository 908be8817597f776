"""What is fetched from the origin, and what is given up again."""

import pytest

from p2p.ostree.objects import ObjectName
from p2p.sim.site import device_id
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.ownership import rank
from p2p.wire.messages import DeviceId, Held
from p2p.wire.record import Active, Claim, commit_tag, object_lease
from tests.swarm.rig import (
    ANNA,
    BERT,
    BIG,
    COMMIT,
    ME,
    OTHER,
    Rig,
    dirtrees,
    files,
    one,
    only,
)


def fetching() -> Rig:
    """A large object is on its way when a neighbour turns out to have it."""
    rig = Rig(origin=e.OriginState.OK)
    rig.join(ANNA, COMMIT, held=Held.BEGUN, peer_origin=e.OriginState.NO)
    rig.tell(e.SizesReported(((BIG, 9 << 20),)))
    assert one(rig.want([BIG]), a.FetchFromOrigin).name == BIG
    return rig


def test_what_a_neighbour_has_is_left_to_it_early_on() -> None:
    rig = fetching()
    assert one(rig.have(ANNA, BIG), a.CancelOrigin).name == BIG


def test_what_is_being_given_up_is_not_begun_again_before_it_is_over() -> None:
    rig = fetching()
    both = rig.tell(e.HaveChanged(ANNA, (BIG,)), e.PeerLeft(ANNA))
    assert only(both, a.CancelOrigin)
    assert not only(both, a.FetchFromOrigin)
    again = rig.tell(e.OriginFailed(BIG, e.Failure.CANCELLED))
    assert one(again, a.FetchFromOrigin).name == BIG


def test_what_comes_although_it_is_being_given_up_is_taken() -> None:
    rig = fetching()
    both = rig.tell(e.HaveChanged(ANNA, (BIG,)), e.OriginDelivered(BIG, 9 << 20))
    assert one(both, a.Accept) == a.Accept((BIG,), None)
    rig.verify(BIG)
    assert rig.scheduler.is_complete
    assert ME not in rig.parts.site.neighbours


# -- several who fetch -----------------------------------------------------------------

WANTS = (commit_tag(COMMIT),)


def said(peer: DeviceId, *active: Active) -> e.MemberSaid:
    return e.MemberSaid(
        peer, Claim(wants=WANTS, origin=e.OriginState.OK, active=active)
    )


def started() -> tuple[Rig, ObjectName]:
    """Return a device that fetches, one object at a time as it just began."""
    rig = Rig(origin=e.OriginState.OK)
    fetch = one(rig.want(files(200)), a.FetchFromOrigin)
    return rig, fetch.name


def test_who_begins_asks_for_one_object_at_a_time_until_nobody_new_is_heard_of() -> (
    None
):
    rig, _ = started()
    assert not only(rig.wait(0.4), a.FetchFromOrigin)
    rig.tell(said(ANNA))
    assert not only(rig.wait(0.4), a.FetchFromOrigin)
    assert len(only(rig.wait(0.2), a.FetchFromOrigin)) == 7


def test_news_of_members_do_not_keep_us_waiting_for_long() -> None:
    rig, _ = started()
    for number in range(40):
        rig.wait(0.1)
        rig.tell(e.MemberGone(ANNA) if number % 2 else said(ANNA))
    assert len(rig.parts.site.fetches) > 1


@pytest.mark.parametrize("ahead", [True, False])
def test_of_two_that_fetch_the_same_the_one_ahead_goes_on(ahead: bool) -> None:
    for peer in (ANNA, BERT):
        rig, name = started()
        rig.tell(e.OriginProgressed(name, 2 << 20))
        theirs = 4 << 20 if ahead else 1 << 20
        active = Active(object_lease(name.checksum), theirs)
        cancelled = only(rig.tell(said(peer, active)), a.CancelOrigin)
        assert bool(cancelled) is ahead


def test_of_two_that_are_close_exactly_one_goes_on() -> None:
    lower, higher = DeviceId("0" * 64), DeviceId("f" * 64)
    for peer, is_ours in ((lower, False), (higher, True)):
        rig, name = started()
        rig.tell(e.OriginProgressed(name, 100_000))
        active = Active(object_lease(name.checksum), 90_000)
        cancelled = only(rig.tell(said(peer, active)), a.CancelOrigin)
        assert bool(cancelled) is not is_ours


def outsider(place: int) -> Rig:
    """Return a device of no committee with so many others like it before it."""
    ids = [device_id(f"crowd {k}") for k in range(60)]
    ids.sort(key=lambda id_: rank(WANTS[0], id_))
    rig = Rig(origin=e.OriginState.OK)
    mine = rank(WANTS[0], ME)
    before = [id_ for id_ in ids if rank(WANTS[0], id_) < mine]
    after = [id_ for id_ in ids if rank(WANTS[0], id_) > mine]
    for member in before[: 8 + place] + after[:20]:
        rig.tell(said(member))
    rig.want(files(50))
    assert rig.parts.lane.ownership.place == place
    return rig


@pytest.mark.parametrize("place, least, most", [(0, 5, 10), (1, 5, 10), (2, 10, 20)])
def test_a_few_help_out_once_a_committee_does_nothing_and_then_everybody(
    place: int, least: float, most: float
) -> None:
    rig = outsider(place)
    assert not only(rig.log, a.FetchFromOrigin)
    assert not only(rig.wait(least - 0.1), a.FetchFromOrigin)
    assert only(rig.wait(most - least + 0.2), a.FetchFromOrigin)


def test_content_is_not_asked_for_far_ahead_because_directories_came_quickly() -> None:
    rig = Rig(origin=e.OriginState.OK)
    rig.tell(e.Wanted(COMMIT, dirtrees(400)))
    rig.wait(0.6)
    for _ in range(400):
        name = rig.parts.site.name(next(iter(rig.parts.site.fetches)))
        rig.now += 0.001
        rig.tell(e.OriginDelivered(name, 500))
        rig.verify(name)
    assert rig.scheduler.is_complete
    rig.want(files(400))
    assert 8 <= len(rig.parts.site.fetches) <= 24


def test_a_pause_that_the_origin_asks_a_member_for_is_kept_by_all() -> None:
    rig, name = started()
    busy = Claim(wants=WANTS, origin=e.OriginState.BUSY, busy_seconds=4)
    rig.tell(e.MemberSaid(ANNA, busy))
    rig.tell(e.OriginDelivered(name, 1000))
    assert not only(rig.wait(3.9), a.FetchFromOrigin)
    assert only(rig.wait(0.7), a.FetchFromOrigin)


def test_a_pause_is_over_when_the_member_says_so() -> None:
    rig, name = started()
    busy = Claim(wants=WANTS, origin=e.OriginState.BUSY, busy_seconds=60)
    rig.tell(e.MemberSaid(ANNA, busy))
    rig.tell(e.OriginDelivered(name, 1000))
    assert not only(rig.wait(2), a.FetchFromOrigin)
    assert only(rig.tell(said(ANNA)), a.FetchFromOrigin)


def test_a_member_that_always_asks_for_a_pause_costs_us_our_patience_once() -> None:
    rig, name = started()
    rig.tell(e.OriginDelivered(name, 1000))
    busy = Claim(wants=WANTS, origin=e.OriginState.BUSY, busy_seconds=3600)
    fetched = 0
    for _ in range(30):
        rig.tell(e.MemberSaid(ANNA, busy))
        fetched += len(only(rig.wait(1.0), a.FetchFromOrigin))
    assert fetched


def test_who_fetches_says_so_until_it_is_through() -> None:
    rig, name = started()
    rig.wait(0.3)
    claims = [action.claim for action in only(rig.log, a.AnnounceMember)]
    assert [len(claim.active) for claim in claims] == [1]
    rig.tell(e.OriginStateChanged(e.OriginState.NO))
    rig.tell(e.OriginFailed(name, e.Failure.TRANSIENT))
    rig.wait(3.0)
    last = only(rig.log, a.AnnounceMember)[-1].claim
    assert (last.active, last.origin) == ((), e.OriginState.NO)


def test_in_a_large_site_only_those_who_fetch_speak_at_once() -> None:
    def urgent(rig: Rig) -> list[bool]:
        return [action.is_urgent for action in only(rig.log, a.AnnounceMember)]

    assert urgent(started()[0]) == [True], "there may be few"
    rig = outsider(2)
    rig.wait(1.0)
    assert not urgent(rig)[-1]
    rig.wait(8.0)
    rig.tell(e.Wanted(OTHER, files(3, "more")))
    rig.wait(0.3)
    assert urgent(rig)[-1], "it may have to help out soon"


@pytest.mark.parametrize("others, is_large", [(11, False), (12, True)])
def test_in_a_large_site_who_comes_late_begins_late(
    others: int, *, is_large: bool
) -> None:
    rig = Rig(origin=e.OriginState.OK)
    tag = commit_tag(COMMIT)
    peers = (device_id(f"peer {number}") for number in range(1000))
    later = [peer for peer in peers if rank(tag, peer) > rank(tag, ME)]
    for peer in later[:others]:
        rig.join(peer, COMMIT, held=Held.PARTIAL)
    rig.want(files(40))
    ownership = rig.parts.lane.ownership
    assert ownership.is_member
    turn = ownership.lateness * rig.parts.site.tuning.longest_hush
    assert 0 < turn < rig.parts.site.tuning.longest_hush
    begins_at_once = bool(only([*rig.log, *rig.wait(turn - 0.01)], a.FetchFromOrigin))
    assert begins_at_once is not is_large
    assert only([*rig.log, *rig.wait(0.02)], a.FetchFromOrigin)
