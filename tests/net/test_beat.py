"""Waits that end together."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2p.net.beat import STEP_SECONDS, Beat


async def test_who_waits_for_one_step_wakes_at_one_moment(
    autojump_clock: MockClock,
) -> None:
    beat = Beat()
    woke: list[float] = []

    async def wait(seconds: float) -> None:
        await beat.wait(seconds)
        woke.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for thousandth in range(1, 40):
            nursery.start_soon(wait, thousandth / 1000)
        await wait_all_tasks_blocked()
        assert "steps awaited" in repr(beat)
    assert len(set(woke)) <= 6
    for thousandth, time in enumerate(woke, start=1):
        late = time - began - thousandth / 1000
        assert -1e-9 <= late <= STEP_SECONDS + 1e-9


async def test_nobody_waits_on_for_who_was_cancelled(
    autojump_clock: MockClock,
) -> None:
    beat = Beat()
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await beat.wait(STEP_SECONDS)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        nursery.start_soon(beat.wait, STEP_SECONDS)
        await wait_all_tasks_blocked()
        scope.cancel()
    assert trio.current_time() == began
    await beat.wait(STEP_SECONDS)
    assert trio.current_time() > began
