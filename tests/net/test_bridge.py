import asyncio
import logging
import threading

import pytest
import trio

from p2p.net import bridge as module
from p2p.net.bridge import open_bridge


async def test_a_call_runs_in_the_other_thread_and_returns_its_result() -> None:
    async def work(number: int) -> tuple[int, str]:
        await asyncio.sleep(0)
        return number * 2, threading.current_thread().name

    async with open_bridge() as bridge:
        assert await bridge.run(work, 21) == (42, "asyncio")


async def test_an_error_comes_back() -> None:
    async def fail() -> None:
        raise KeyError("lost")

    async with open_bridge() as bridge:
        with pytest.raises(KeyError, match="lost"):
            await bridge.run(fail)


async def test_cancelling_cancels_the_call_and_waits_for_its_end() -> None:
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.set()

    async with open_bridge() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run, work)
            await trio.to_thread.run_sync(began.wait)
            nursery.cancel_scope.cancel()
        assert ended.is_set()


async def test_a_call_that_fails_while_it_is_cancelled_is_only_cancelled() -> None:
    began = threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("in the way out") from None

    async with open_bridge() as bridge, trio.open_nursery() as nursery:
        nursery.start_soon(bridge.run, work)
        await trio.to_thread.run_sync(began.wait)
        nursery.cancel_scope.cancel()


async def test_a_call_that_ignores_being_cancelled_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CANCEL_SECONDS", 0.05)
    began, release = threading.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        while not release.is_set():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(0.2, release.set)
                await release.wait()

    async with open_bridge() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run, work)
            await trio.to_thread.run_sync(began.wait)
            nursery.cancel_scope.cancel()
        assert "work does not end when cancelled" in caplog.text
        await bridge.run(release.wait)


async def test_news_arrive_in_trio_s_thread() -> None:
    heard, told = trio.Event(), []

    def hear() -> None:
        told.append(threading.current_thread())
        heard.set()

    async with open_bridge() as bridge:

        async def work() -> None:
            bridge.post(hear)

        await bridge.run(work)
        await heard.wait()
    assert told == [threading.current_thread()]


async def test_what_still_runs_at_the_end_is_ended() -> None:
    ended = threading.Event()

    async def linger() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    kept = []

    async def start() -> None:
        kept.append(asyncio.get_running_loop().create_task(linger()))
        await asyncio.sleep(0)

    async with open_bridge() as bridge:
        await bridge.run(start)
    assert ended.is_set()


async def test_what_fails_with_nobody_waiting_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def start() -> None:
        def fail() -> None:
            raise ValueError("unseen")

        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR):
        async with open_bridge() as bridge:
            await bridge.run(start)
    assert "unseen" in caplog.text


def test_news_for_a_run_that_is_over_are_dropped() -> None:
    bridges = []

    async def main() -> None:
        async with open_bridge() as bridge:
            bridges.append(bridge)

    trio.run(main)
    bridges[0].post(lambda: None)
