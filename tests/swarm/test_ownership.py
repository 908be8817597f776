"""Who fetches what."""

from p2p.sim.site import device_id
from p2p.swarm import action as a
from p2p.swarm import event as e
from p2p.swarm.lifecycle import State
from p2p.swarm.ownership import Ownership, share_evenly
from p2p.wire.messages import Held
from tests.swarm.rig import ANNA, BERT, BIG, COMMIT, ME, OTHER, Rig, files, only


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
    assert not ranked(rig).is_shared


def test_members_that_want_the_same_share_it() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, COMMIT, held=Held.BEGUN)
    mine = owned(rig)
    assert 100 < mine.bit_count() < 200
    assert ranked(rig).preferred == mine
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
    assert ranked(rig).preferred.bit_count() < 200, "it still takes from neighbours"


def test_a_complete_neighbour_is_no_member() -> None:
    rig = Rig()
    rig.want(files(300))
    rig.join(ANNA, COMMIT)
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


def test_who_was_spared_for_one_that_left_is_asked_again() -> None:
    rig = Rig()

    def serve(actions: list[a.Action]) -> None:
        for batch in only(actions, a.RequestBatch):
            assert batch.peer == ANNA
            serve(rig.deliver(batch) + rig.verify(*batch.names))

    rig.join(ANNA, COMMIT)
    rig.join(BERT, COMMIT, held=Held.PARTIAL)
    serve(rig.want(files(10)))
    assert not rig.scheduler.is_complete
    serve(rig.tell(e.PeerLeft(BERT)))
    serve(rig.wait(1.0))
    assert rig.scheduler.is_complete
