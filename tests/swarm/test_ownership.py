"""Who fetches what."""

from p2p.sim.site import device_id
from p2p.swarm import event as e
from p2p.swarm.lifecycle import State
from p2p.swarm.ownership import Fetcher, Ownership, choose_committee, share_evenly
from p2p.wire.messages import DeviceId, Held
from p2p.wire.record import Claim, commit_tag
from tests.swarm.rig import ANNA, BERT, BIG, COMMIT, ME, OTHER, Rig, files


def ranked(rig: Rig) -> Ownership:
    ownership = rig.parts.lane.ownership
    ownership.refresh()
    return ownership


def owned(rig: Rig) -> int:
    """Return the objects we take before we wait for anybody."""
    ownership = ranked(rig)
    bits = 0
    for shard in ownership.own:
        bits |= ownership.unclaimed(shard)
    return bits


def test_every_bucket_has_one_owner_and_parts_are_even() -> None:
    devices = tuple(device_id(f"d{k}") for k in range(7))
    owners = share_evenly(devices)
    parts = [owners.count(k) for k in range(7)]
    assert sum(parts) == 256
    assert max(parts) == 37


def test_an_order_of_members_changes_nobodys_part() -> None:
    devices = [device_id(f"d{k}") for k in range(5)]
    there = share_evenly(tuple(devices))
    back = share_evenly(tuple(reversed(devices)))
    assert [devices[k] for k in there] == [devices[4 - k] for k in back]


def test_who_leaves_changes_mostly_its_own_part() -> None:
    devices = tuple(device_id(f"d{k}") for k in range(8))
    before, after = share_evenly(devices), share_evenly(devices[:7])
    moved = sum(b != a for b, a in zip(before, after, strict=True) if b != 7)
    assert moved < 60


def test_alone_everything_is_ours() -> None:
    rig = Rig()
    rig.want(files(50))
    assert owned(rig) == rig.parts.site.catalogue.having(State.OPEN)


def test_members_that_want_the_same_share_it() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, COMMIT, held=Held.BEGUN)
    mine = owned(rig)
    assert 100 < mine.bit_count() < 200
    assert "128 of 256 shards" in repr(ranked(rig))


def test_nobody_waits_for_a_member_that_wants_another_commit() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, OTHER, held=Held.BEGUN)
    assert owned(rig).bit_count() == 300
    ours = [bool(shard.above) for shard in ranked(rig).own]
    assert ours == sorted(ours), "ours first, then what the other might want"


def test_who_may_not_use_the_origin_owns_nothing_there() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, COMMIT, held=Held.BEGUN, peer_origin=e.OriginState.METERED)
    assert owned(rig).bit_count() == 300


def test_nobody_takes_what_a_member_brought_that_is_through() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, COMMIT, held=Held.BEGUN)
    before = owned(rig)
    through = Claim(complete=(commit_tag(COMMIT),), origin=e.OriginState.OK)
    rig.tell(e.MemberSaid(ANNA, through))
    assert owned(rig) == before


def test_who_has_another_commit_has_no_part() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, OTHER)
    assert owned(rig).bit_count() == 300


def test_large_objects_are_owned_one_by_one() -> None:
    rig = Rig()
    names = files(40, "large")
    rig.tell(e.SizesReported([(name, 2 << 20) for name in names]))
    rig.want(names)
    rig.join(ANNA, COMMIT, held=Held.BEGUN)
    rig.join(BERT, COMMIT, held=Held.BEGUN)
    ownership = ranked(rig)
    singles = [shard for shard in ownership.own if shard.item >= 0]
    assert 5 < len(singles) < 25
    assert ownership.own[0].item >= 0, "they take longest, so they come first"
    assert ownership.is_single(0)
    assert owned(rig).bit_count() == len(singles)


def test_medium_objects_stay_in_their_bucket() -> None:
    rig = Rig()
    rig.tell(e.SizesReported([(BIG, 600 << 10)]))
    rig.want([BIG])
    assert not ranked(rig).is_single(0)


def test_two_devices_with_one_view_never_own_the_same() -> None:
    names = files(200)
    views: list[set[object]] = []
    for me, other in ((ME, ANNA), (ANNA, ME)):
        rig = Rig()
        rig.parts.site.me = me
        rig.want(names)
        rig.join(other, COMMIT, held=Held.BEGUN)
        views.append(set(rig.parts.site.catalogue.names_of(owned(rig))))
    assert not views[0] & views[1]
    assert views[0] | views[1] == set(names)


def test_others_shards_are_taken_against_their_owners_order() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, COMMIT, held=Held.BEGUN)
    late = [shard for shard in ranked(rig).late if shard.above]
    assert [shard.owner for shard in late] == sorted(shard.owner for shard in late)


# -- the committee of a large site ----------------------------------------------------

IDS = [device_id(f"member {k}") for k in range(20)]
WANTS = (commit_tag(COMMIT),)


def crowd(me: DeviceId = ME, count: int = 20) -> Rig:
    """Return a device that wants a commit, and hears that others want it too."""
    rig = Rig()
    rig.parts.site.me = me
    rig.want(files(300))
    claim = Claim(wants=WANTS, origin=e.OriginState.OK)
    for member in IDS[:count]:
        if member != me:
            rig.tell(e.MemberSaid(member, claim))
    return rig


def test_a_committee_fetches_for_all_and_everybody_agrees_who_it_is() -> None:
    rigs = {me: crowd(me) for me in IDS}
    owners = [me for me, rig in rigs.items() if ranked(rig).is_member]
    assert len(owners) == 8
    parts = [owned(rigs[me]) for me in IDS]
    names = [
        set(rig.parts.site.catalogue.names_of(part))
        for rig, part in zip(rigs.values(), parts, strict=True)
    ]
    assert sum(map(len, names)) == 300
    assert set().union(*names) == set(files(300))
    for me, rig in rigs.items():
        assert bool(owned(rig)) == (me in owners)


def test_who_is_of_no_committee_knows_how_many_help_out_before_it() -> None:
    places = [ranked(crowd(me)).place for me in IDS if not ranked(crowd(me)).is_member]
    assert sorted(places) == list(range(12))


def test_each_commit_has_its_committee() -> None:
    both = [Fetcher(id_, (commit_tag(c),), True) for id_ in IDS for c in (COMMIT,)]
    both += [
        Fetcher(device_id(f"other {k}"), (commit_tag(OTHER),), is_live=True)
        for k in range(3)
    ]
    committee = choose_committee(both, 8)
    assert len([one for one in committee if one.wants == WANTS]) == 8
    assert len(committee) == 11


def test_a_silent_member_is_replaced_and_keeps_its_place() -> None:
    members = [Fetcher(id_, WANTS, is_live=True) for id_ in IDS]
    before = {one.id for one in choose_committee(members, 8)}
    lost = min(before)
    members = [one._replace(is_live=one.id != lost) for one in members]
    after = {one.id for one in choose_committee(members, 8)}
    assert before < after
    assert len(after) == 9


def test_what_a_silent_member_leaves_comes_last_against_its_order() -> None:
    rig = crowd(count=4)
    before = [shard.bucket for shard in ranked(rig).own]
    rig.join(IDS[0], COMMIT, held=Held.BEGUN)
    rig.tell(e.PeerLeft(IDS[0]))
    rig.wait(2.1)
    own = ranked(rig).own
    assert [shard.bucket for shard in own[: len(before)]] == before
    orphans = own[len(before) :]
    assert orphans
    assert all(shard.is_orphan for shard in orphans)
    owners = [shard.owner for shard in orphans]
    assert owners == sorted(owners)


def test_one_of_those_left_takes_what_a_silent_member_leaves() -> None:
    taken: list[object] = []
    survivors = [ME, *IDS[1:4]]
    for me in survivors:
        rig = Rig()
        rig.parts.site.me = me
        rig.want(files(300))
        for member in (ME, *IDS[:4]):
            if member != me:
                rig.join(member, COMMIT, held=Held.BEGUN)
        rig.tell(e.PeerLeft(IDS[0]))
        rig.wait(2.1)
        taken += rig.parts.site.catalogue.names_of(owned(rig))
    assert len(taken) == len(set(taken)) == 300


def test_a_member_that_is_heard_again_takes_its_part_back() -> None:
    rig = crowd(count=4)
    before = owned(rig)
    rig.join(IDS[0], COMMIT, held=Held.BEGUN)
    rig.tell(e.PeerLeft(IDS[0]))
    rig.wait(2.1)
    assert owned(rig) != before
    rig.tell(e.MemberSaid(IDS[0], Claim(wants=WANTS, origin=e.OriginState.OK)))
    assert owned(rig) == before
