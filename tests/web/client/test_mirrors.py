"""Lists of mirrors: read, probed, and what is wrong with them."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from trio.testing import MockClock

from p2p.errors import ConfigError, OriginError, OriginNotFoundError
from p2p.ostree.config import RemoteConfig
from p2p.ostree.objects import ObjectType
from p2p.web.client.fetch import Fetcher
from p2p.web.client.mirrors import MAX_LIST_BYTES
from p2p.web.client.origin import Origin
from p2p.web.client.request import Access
from p2p.web.client.retry import Retry
from tests.web.client.objects import make_metadata
from tests.web.client.servers import answer, files, serving

ACCESS = Access(connect_seconds=2, low_speed_seconds=1)
DATA = b"a commit"
NAME = make_metadata(DATA, ObjectType.COMMIT)
CONFIG = b"[core]\nrepo_version=1\nmode=archive-z2\n"
GOOD = files({"/config": CONFIG, f"/objects/{NAME.path()}": DATA})
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def open_origin(fetcher: Fetcher, url: str, content_url: str | None = None) -> Origin:
    return Origin(
        fetcher,
        RemoteConfig(name="origin", url=url, content_url=content_url),
        access=ACCESS,
        retry=Retry(random=Random(1)),
    )


async def test_a_list_may_come_from_a_server_or_a_file(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    async with serving(GOOD) as mirror:
        (tmp_path / "list").write_text(f"{mirror.url}\n")
        async with serving(answer(200, f"{mirror.url}/".encode())) as listing:
            for url in (
                f"mirrorlist={listing.url}/list",
                f"mirrorlist=file://{tmp_path}/list",
            ):
                origin = open_origin(fetcher, url)
                await origin.config()
                assert await origin.fetch_commit(NAME.checksum) == DATA
    assert listing.paths == ["/list"]
    # Each origin probes the mirror once, and then asks for its configuration.
    assert mirror.paths.count("/config") == 4


async def test_mirrors_that_do_not_answer_at_first_are_passed_over(
    fetcher: Fetcher, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(answer(404)) as empty, serving(GOOD) as mirror:
        (tmp_path / "list").write_text(
            f"# comment\nftp://x\n\n{NOWHERE}\n{empty.url}\n{mirror.url}\n{NOWHERE}\n"
        )
        origin = open_origin(fetcher, mirror.url, f"mirrorlist=file://{tmp_path}/list")
        assert await origin.fetch_commit(NAME.checksum) == DATA
    assert empty.paths == ["/config"]


async def test_a_list_of_which_no_mirror_works_names_the_last_reason(
    fetcher: Fetcher, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(answer(404)) as empty:
        (tmp_path / "list").write_text(f"{NOWHERE}\n{empty.url}\n")
        origin = open_origin(fetcher, f"mirrorlist=file://{tmp_path}/list")
        with pytest.raises(OriginError, match=f"no mirror of .*{empty.url}.*404"):
            await origin.config()


async def test_a_mirror_that_lacks_a_file_leaves_it_to_the_next(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    bare = files({"/config": CONFIG})
    async with serving(bare) as first, serving(GOOD) as second, serving(bare) as third:
        (tmp_path / "list").write_text(f"{first.url}\n{second.url}\n{third.url}\n")
        origin = open_origin(fetcher, f"mirrorlist=file://{tmp_path}/list")
        assert await origin.fetch_commit(NAME.checksum) == DATA
        missing = make_metadata(b"other", ObjectType.COMMIT)
        with pytest.raises(OriginNotFoundError):
            await origin.fetch_commit(missing.checksum)
    assert len(first.asked) == 3
    assert len(third.asked) == 1


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "No such file"),
        (b"", "names no mirror"),
        (b"ftp://x\n/srv/repo\n", "names no mirror"),
        (b"\xff\xfe", "names no mirror"),
        (b"#" * (MAX_LIST_BYTES + 1), "longer than"),
    ],
)
async def test_a_list_that_cannot_be_used_is_named(
    fetcher: Fetcher, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    origin = open_origin(fetcher, f"mirrorlist=file://{path}")
    with pytest.raises(ConfigError, match=reason) as caught:
        await origin.config()
    assert "mirror list" in str(caught.value)
