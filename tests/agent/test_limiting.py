"""Which limits hold now: by files, by hours, by command, after restarts and jumps."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p.agent.config import AgentConfig, parse_config
from p2p.agent.limiting import Limiting
from p2p.agent.state import Override, StateFile
from p2p.errors import ConfigError
from p2p.net.traffic import Traffic
from p2p.web.client.fetch import Fetcher

NOON = 1_770_000_000 // 86400 * 86400 + 12 * 3600
MBIT = 125_000.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@dataclass
class Device:
    """Limits over a state directory, at a time that a test sets."""

    path: Path
    fetcher: Fetcher
    now: float = NOON
    text: str = ""

    @property
    def config(self) -> AgentConfig:
        defaults = AgentConfig(repo="/r", state=str(self.path), socket="/s")
        return parse_config([("f.toml", self.text)], defaults)

    def start(self) -> Limiting:
        return Limiting(
            self.config,
            state=StateFile(str(self.path)),
            traffic=Traffic(),
            fetcher=self.fetcher,
            now=lambda: self.now,
        )


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    async with Fetcher() as fetcher:
        yield Device(tmp_path, fetcher)


def said(limiting: Limiting, name: str) -> tuple[str, str, float | None]:
    [found] = [s for s in limiting.describe()["settings"] if s["name"] == name]
    return found["text"], found["source"], found["until"]


async def test_what_files_say_holds_for_sessions(device: Device) -> None:
    device.text = '[limits]\nupload = "2mbit"\ndownload = "3mbit"'
    limiting = device.start()
    assert limiting.traffic.upload.rate == 2 * MBIT
    assert limiting.traffic.download.rate == 3 * MBIT
    assert said(limiting, "upload") == ("2mbit", "f.toml", None)
    assert said(limiting, "origin") == ("unlimited", "default", None)


async def test_hours_count_more_and_are_said_until_when(device: Device) -> None:
    device.text = (
        '[limits]\nupload = "2mbit"\n'
        '[[hours]]\nfrom = "08:00"\nto = "18:00"\nupload = "1mbit"'
    )
    limiting = device.start()
    assert said(limiting, "upload") == (
        "1mbit",
        "hours 08:00-18:00, f.toml",
        NOON + 6 * 3600,
    )
    device.now += 6 * 3600
    assert said(limiting, "upload") == ("2mbit", "f.toml", NOON + 20 * 3600)
    assert limiting.traffic.upload.rate == 2 * MBIT


async def test_the_clock_is_watched_and_may_jump(device: Device) -> None:
    device.text = '[[hours]]\nfrom = "18:00"\nto = "06:00"\nupload = "1mbit"'
    limiting = device.start()
    changed = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiting.run)
        await trio.testing.wait_all_tasks_blocked(0.01)
        limiting.subscribe(changed.set)
        device.now += 8 * 3600
        with trio.fail_after(10):
            await changed.wait()
        nursery.cancel_scope.cancel()
    assert limiting.traffic.upload.rate == MBIT


async def test_a_command_counts_most_also_after_a_restart(device: Device) -> None:
    device.text = '[[hours]]\nfrom = "08:00"\nto = "18:00"\nupload = "1mbit"'
    limiting = device.start()
    await limiting.set({"upload": "5mbit", "dscp": "none"}, None)
    assert limiting.traffic.upload.rate == 5 * MBIT
    again = device.start()
    assert said(again, "upload") == ("5mbit", "p2p limits set", None)
    assert said(again, "dscp") == ("none", "p2p limits set", None)
    await again.reset(["upload"])
    assert again.traffic.upload.rate == MBIT
    assert said(device.start(), "dscp")[0] == "none"
    await again.reset([])
    assert said(device.start(), "dscp") == ("LE", "default", None)


async def test_a_command_holds_until_its_time_has_come(device: Device) -> None:
    limiting = device.start()
    await limiting.set({"upload": "5mbit"}, NOON + 60)
    assert said(limiting, "upload") == ("5mbit", "p2p limits set", NOON + 60)
    assert said(device.start(), "upload")[2] == NOON + 60
    device.now += 60
    assert said(limiting, "upload") == ("unlimited", "default", None)
    assert said(device.start(), "upload") == ("unlimited", "default", None)


async def test_what_is_over_is_forgotten(device: Device) -> None:
    limiting = device.start()
    await limiting.set({"upload": "5mbit"}, NOON + 60)
    device.now += 3600
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiting.run)
        state = StateFile(str(device.path))
        with trio.fail_after(10):
            while state.state.limits:
                await trio.lowlevel.checkpoint()
                state = StateFile(str(device.path))
        nursery.cancel_scope.cancel()


async def test_a_wrong_command_changes_nothing(device: Device) -> None:
    limiting = device.start()
    for texts, until in (
        ({"upload": "5mbit", "origin": "1"}, None),
        ({"upload": "5mbit", "speed": "1mbit"}, None),
        ({"upload": "5mbit"}, NOON),
    ):
        with pytest.raises(ConfigError):
            await limiting.set(texts, until)
    with pytest.raises(ConfigError, match="speed"):
        await limiting.reset(["speed"])
    assert limiting.traffic.upload.rate is None


async def test_what_another_version_remembered_is_ignored(device: Device) -> None:
    state = StateFile(str(device.path))
    state.state.limits["warp"] = Override("9", None)
    state.state.limits["upload"] = Override("fast", None)
    state.save()
    assert device.start().traffic.upload.rate is None


async def test_another_configuration_holds_at_once(device: Device) -> None:
    limiting = device.start()
    heard: list[float | None] = []
    limiting.subscribe(lambda: heard.append(limiting.limits.upload))
    device.text = '[limits]\nupload = "2mbit"'
    limiting.configure(device.config)
    assert heard == [2 * MBIT]


async def test_the_smaller_of_our_limit_and_our_share_of_the_sites_holds(
    device: Device,
) -> None:
    device.text = '[limits]\norigin = "2mbit"'
    limiting = device.start()
    for share, rate in ((None, 2), (MBIT, 1), (8 * MBIT, 2)):
        limiting.share_origin(share)
        assert limiting.origin_rate == rate * MBIT
    device.text = ""
    limiting.configure(replace(device.config))
    assert limiting.origin_rate == 8 * MBIT


async def test_alone_the_rate_of_the_site_is_ours(device: Device) -> None:
    device.text = '[limits]\nsite-origin = "2mbit"'
    limiting = device.start()
    assert limiting.origin_rate == 2 * MBIT
    limiting.share_origin(MBIT)
    assert limiting.origin_rate == MBIT
    limiting.share_origin(None)
    assert limiting.origin_rate == 2 * MBIT
