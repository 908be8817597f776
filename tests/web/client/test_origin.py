"""One origin: its configuration, refs, commits, signatures, and whom it tells what."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from trio.testing import MockClock

from p2p.errors import (
    ConfigError,
    CredentialsError,
    FormatError,
    IntegrityError,
    LimitError,
    OriginError,
    OriginNotFoundError,
    TransportClosedError,
)
from p2p.ostree.config import RemoteConfig, RepoMode
from p2p.ostree.gvariant import Variant
from p2p.ostree.objects import Checksum, ObjectType
from p2p.ostree.summary import COLLECTION_KEY, Summary, SummaryRef
from p2p.web.client.credentials import BasicUser, Credentials, OAuth2Client
from p2p.web.client.fetch import Fetcher
from p2p.web.client.origin import MAX_COMMITMETA_BYTES, Origin
from p2p.web.client.request import Access
from p2p.web.client.retry import Retry
from p2p.web.url import basic
from tests.servers import StartNginx
from tests.web.client.objects import make_metadata
from tests.web.client.servers import (
    Exchange,
    Handler,
    answer,
    files,
    make_identity,
    make_tls,
    replies,
    serving,
)

ACCESS = Access(connect_seconds=2, low_speed_seconds=2)
PHRASE = "secret"
COMMIT = Checksum("ab" * 32)
OTHER = Checksum("cd" * 32)
ARCHIVE = b"[core]\nrepo_version=1\nmode=archive-z2\n"
# What TreeHub answers, blank lines and all.
TREEHUB = b"\n[core]\nrepo_version=1\nmode=archive-z2\nindexed-deltas=true\n\n"


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher() as fetcher:
        yield fetcher


def open_origin(
    fetcher: Fetcher,
    url: str,
    *,
    content_url: str | None = None,
    remote: dict[str, str] | None = None,
    **options: Any,
) -> Origin:
    config = RemoteConfig(
        name="origin", url=url, content_url=content_url, options=remote or {}
    )
    retry = Retry(random=Random(1))
    return Origin(fetcher, config, access=ACCESS, retry=retry, **options)


# -- config ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ARCHIVE, TREEHUB])
async def test_an_archive_repository_is_an_origin(
    fetcher: Fetcher, text: bytes
) -> None:
    async with serving(files({"/repo/config": text})) as server:
        origin = open_origin(fetcher, f"{server.url}/repo/")
        assert (await origin.config()).mode is RepoMode.ARCHIVE
    assert origin.counters.bytes == {"config": len(text)}


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"[core]\nrepo_version=1\nmode=bare\n", "only archive"),
        (b"[core]\nrepo_version=1\nmode=shiny\n", "unknown repository mode"),
        (b"[core]\nrepo_version=2\nmode=archive\n", "version 2"),
        (b"<html>Log in</html>", "not that of an OSTree repository"),
        (b"\xff\xfe", "not that of an OSTree repository"),
    ],
)
async def test_what_is_no_archive_repository_is_no_origin(
    fetcher: Fetcher, text: bytes, reason: str
) -> None:
    async with serving(files({"/config": text})) as server:
        with pytest.raises(OriginError, match=reason):
            await open_origin(fetcher, server.url).config()


async def test_a_url_without_a_repository_is_told(fetcher: Fetcher) -> None:
    async with serving(answer(404)) as server:
        with pytest.raises(OriginNotFoundError) as caught:
            await open_origin(fetcher, server.url).config()
    assert "no OSTree repository" in caught.value.hint


async def test_a_config_too_long_is_refused(fetcher: Fetcher) -> None:
    async with serving(answer(200, b"#" * (1 << 17))) as server:
        with pytest.raises(LimitError):
            await open_origin(fetcher, server.url).config()


@pytest.mark.parametrize("url", ["file:///srv/repo", "/srv/repo", "mirrorlist=ftp://h"])
async def test_only_http_urls_are_fetched_from(fetcher: Fetcher, url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        await open_origin(fetcher, url).config()


# -- refs ------------------------------------------------------------------------------


def summary(*refs: tuple[str, Checksum], collection: str | None = None) -> bytes:
    metadata: tuple[tuple[str, Variant], ...] = ()
    if collection:
        metadata = ((COLLECTION_KEY, Variant("s", collection)),)
    entries = tuple(SummaryRef(ref, commit, 100) for ref, commit in sorted(refs))
    return Summary(entries, metadata).serialize()


@pytest.mark.parametrize("ending", [b"", b"\n"])
async def test_a_ref_is_its_file(fetcher: Fetcher, ending: bytes) -> None:
    served = {
        "/refs/heads/os/x86/stable": COMMIT.encode() + ending,
        "/summary": summary(("os/x86/stable", OTHER)),
    }
    async with serving(files(served)) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.resolve_ref("os/x86/stable") == COMMIT
    assert server.paths == ["/refs/heads/os/x86/stable"]


async def test_a_ref_without_a_file_is_looked_up_in_the_summary(
    fetcher: Fetcher,
) -> None:
    async with serving(files({"/summary": summary(("os", COMMIT))})) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.resolve_ref("os") == COMMIT
        with pytest.raises(OriginNotFoundError, match="no ref other"):
            await origin.resolve_ref("other")


async def test_a_ref_that_nothing_knows_is_not_found(fetcher: Fetcher) -> None:
    async with serving(answer(404)) as server:
        with pytest.raises(OriginNotFoundError, match="no ref os"):
            await open_origin(fetcher, server.url).resolve_ref("os")


async def test_a_ref_of_a_collection_is_looked_for_among_its_mirrors_first(
    fetcher: Fetcher,
) -> None:
    served = {
        "/refs/mirrors/org.example.Os/os": COMMIT.encode(),
        "/refs/heads/os": OTHER.encode(),
        "/summary": summary(("in-summary", COMMIT), collection="org.example.Os"),
    }
    async with serving(files(served)) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.resolve_ref("os", collection="org.example.Os") == COMMIT
        assert await origin.resolve_ref("os", collection="org.example.B") == OTHER
        found = await origin.resolve_ref("in-summary", collection="org.example.Os")
        assert found == COMMIT
        with pytest.raises(OriginNotFoundError):
            await origin.resolve_ref("in-summary", collection="org.example.B")


@pytest.mark.parametrize("ref", ["", "../etc", "a b", "a//b", "-x"])
async def test_what_is_no_ref_is_never_asked_for(fetcher: Fetcher, ref: str) -> None:
    async with serving(answer(200, COMMIT.encode())) as server:
        with pytest.raises(FormatError):
            await open_origin(fetcher, server.url).resolve_ref(ref)
    assert not server.asked


@pytest.mark.parametrize(
    "body", [b"", b"<html>Log in</html>", b"ab" * 31, COMMIT.encode().upper(), b"\xff"]
)
async def test_a_ref_that_is_no_checksum_is_an_error_of_the_origin(
    fetcher: Fetcher, autojump_clock: MockClock, body: bytes
) -> None:
    async with serving(files({"/refs/heads/os": body})) as server:
        with pytest.raises(OriginError, match=r"refs/heads/os.*not a checksum"):
            await open_origin(fetcher, server.url).resolve_ref("os")


async def test_a_ref_as_long_as_a_film_is_refused(fetcher: Fetcher) -> None:
    async with serving(answer(200, bytes(1 << 20))) as server:
        with pytest.raises(OriginError, match="longer than 4096"):
            await open_origin(fetcher, server.url).resolve_ref("os")


async def test_refs_are_listed_from_the_summary(fetcher: Fetcher) -> None:
    made = summary(("a", COMMIT), ("b", OTHER))
    served = {"/summary": made, "/summary.sig": b"signature"}
    async with serving(files(served)) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.list_refs() == {"a": COMMIT, "b": OTHER}
        found = await origin.summary()
    assert found is not None
    assert (found.data, found.signature) == (made, b"signature")


async def test_without_a_summary_refs_cannot_be_listed(fetcher: Fetcher) -> None:
    async with serving(answer(404)) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.summary() is None
        with pytest.raises(OriginNotFoundError, match="no summary") as caught:
            await origin.list_refs()
    assert "Name the ref" in caught.value.hint


async def test_a_summary_may_be_unsigned_or_broken(fetcher: Fetcher) -> None:
    async with serving(files({"/summary": b"nonsense"})) as server:
        origin = open_origin(fetcher, server.url)
        found = await origin.summary()
        assert found is not None
        assert found.signature is None
        with pytest.raises(FormatError):
            await origin.list_refs()


# -- commits ---------------------------------------------------------------------------


DATA = os.urandom(300)
NAME = make_metadata(DATA, ObjectType.COMMIT)


async def test_a_commit_is_checked_against_its_name(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    path = f"/objects/{NAME.path()}"
    async with serving(files({path: DATA})) as server:
        assert (
            await open_origin(fetcher, server.url).fetch_commit(NAME.checksum) == DATA
        )
    async with serving(files({path: DATA + b"x"})) as server:
        with pytest.raises(IntegrityError, match="tried 5 times") as caught:
            await open_origin(fetcher, server.url).fetch_commit(NAME.checksum)
        assert server.url in str(caught.value)
    async with serving(answer(404)) as server:
        with pytest.raises(OriginNotFoundError):
            await open_origin(fetcher, server.url).fetch_commit(NAME.checksum)


async def test_a_commit_too_long_is_refused(fetcher: Fetcher) -> None:
    async with serving(answer(200, bytes(11 << 20))) as server:
        with pytest.raises(LimitError):
            await open_origin(fetcher, server.url).fetch_commit(NAME.checksum)
    assert len(server.asked) == 1


async def test_detached_metadata_may_be_missing_but_not_broken(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    path = f"/objects/{NAME.path()}meta"
    async with serving(files({path: b"signatures"})) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.fetch_commitmeta(NAME.checksum) == b"signatures"
        assert await origin.fetch_commitmeta(COMMIT) is None
    async with serving(answer(403)) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.fetch_commitmeta(NAME.checksum) is None
    async with serving(answer(500)) as server:
        with pytest.raises(OriginError, match="500"):
            await open_origin(fetcher, server.url).fetch_commitmeta(NAME.checksum)
    async with serving(answer(200, bytes(MAX_COMMITMETA_BYTES + 1))) as server:
        with pytest.raises(LimitError):
            await open_origin(fetcher, server.url).fetch_commitmeta(NAME.checksum)


async def test_a_commit_that_was_deleted_on_purpose_has_a_tombstone(
    fetcher: Fetcher,
) -> None:
    path = f"/objects/{COMMIT[:2]}/{COMMIT[2:]}.tombstone-commit"
    async with serving(files({path: b"tombstone"})) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.is_tombstoned(COMMIT)
        assert not await origin.is_tombstoned(OTHER)


@pytest.mark.parametrize(
    "bad",
    [answer(500), answer(408), answer(429, Retry_After="5"), answer(200, b"")],
)
async def test_a_server_in_trouble_is_asked_again(
    fetcher: Fetcher, autojump_clock: MockClock, bad: Handler
) -> None:
    good = answer(200, DATA)
    async with serving(replies(bad, bad, good)) as server:
        origin = open_origin(fetcher, server.url)
        assert await origin.fetch_commit(NAME.checksum) == DATA
    assert (origin.counters.requests, origin.counters.retries) == (3, 2)


async def test_a_server_that_only_hangs_up_is_given_up(
    fetcher: Fetcher, autojump_clock: MockClock
) -> None:
    async def hang_up(exchange: Exchange) -> None:
        exchange.hang_up()

    async with serving(hang_up) as server:
        with pytest.raises(TransportClosedError, match=r"tried 5 times"):
            await open_origin(fetcher, server.url).config()


# -- url and contenturl ----------------------------------------------------------------


async def test_url_and_contenturl_are_asked_for_what_libostree_asks_them(
    fetcher: Fetcher,
) -> None:
    async def anything(exchange: Exchange) -> None:
        body = DATA if "/objects/" in exchange.asked.path else COMMIT.encode()
        await exchange.reply(200, ARCHIVE if "config" in exchange.asked.path else body)

    async with serving(anything) as first, serving(anything) as second:
        origin = open_origin(fetcher, first.url, content_url=second.url)
        await origin.config()
        await origin.resolve_ref("os")
        await origin.summary()
        await origin.fetch_commitmeta(NAME.checksum)
        await origin.fetch_commit(NAME.checksum)
        origin.want(make_metadata(DATA))
        await origin.next_events()
    assert first.paths == [
        "/config",
        "/refs/heads/os",
        "/summary",
        "/summary.sig",
        f"/objects/{NAME.path()}meta",
    ]
    kinds = {path.rpartition(".")[2] for path in second.paths}
    assert kinds == {"commit", "dirtree"}


# -- whom credentials are sent to ------------------------------------------------------


async def test_credentials_and_headers_go_to_the_origin_only(fetcher: Fetcher) -> None:
    async with (
        serving(answer(200, ARCHIVE)) as first,
        serving(answer(200, DATA)) as cdn,
    ):
        origin = open_origin(
            fetcher,
            first.url,
            content_url=cdn.url,
            credentials=Credentials(basic=BasicUser(user="me", password=PHRASE)),
            headers=(("x-ats-namespace", "site"),),
        )
        await origin.config()
        await origin.fetch_commit(NAME.checksum)
    headers = first.asked[0].headers
    assert headers["authorization"] == basic("me", PHRASE)
    assert headers["x-ats-namespace"] == "site"
    assert "authorization" not in cdn.asked[0].headers
    assert "x-ats-namespace" not in cdn.asked[0].headers


async def test_a_user_in_the_url_is_sent_as_basic_and_shown_nowhere(
    fetcher: Fetcher,
) -> None:
    async with serving(replies(answer(200, ARCHIVE), answer(401))) as server:
        url = server.url.replace("http://", "http://me:pw@")
        origin = open_origin(fetcher, url)
        await origin.config()
        with pytest.raises(CredentialsError) as caught:
            await origin.config()
    assert server.asked[0].headers["authorization"] == basic("me", "pw")
    assert "pw" not in str(caught.value)


async def test_a_client_certificate_of_credentials_is_shown_to_the_origin(
    fetcher: Fetcher, tmp_path: Path
) -> None:
    identity = make_identity(tmp_path)
    tls = make_tls(tmp_path / "tls", client=identity.certificate_path)
    async with serving(files({"/config": ARCHIVE}), tls=tls.context) as server:
        origin = open_origin(
            fetcher,
            server.url,
            remote={"tls-ca-path": str(tls.authority)},
            credentials=Credentials(client_pem=identity.pem),
        )
        await origin.config()


async def test_a_token_that_was_withdrawn_is_renewed_once(fetcher: Fetcher) -> None:
    tokens = 0

    async def guarded(exchange: Exchange) -> None:
        nonlocal tokens
        if exchange.asked.path == "/token":
            tokens += 1
            await exchange.reply(200, b'{"access_token":"t%d"}' % tokens)
        elif exchange.asked.headers.get("authorization") == "Bearer t2":
            await exchange.reply(200, ARCHIVE)
        else:
            await exchange.reply(401)

    async with serving(guarded) as server:
        client = OAuth2Client(
            token_url=f"{server.url}/token", client_id="me", client_secret=PHRASE
        )
        credentials = Credentials(oauth2=client)
        origin = open_origin(fetcher, server.url, credentials=credentials)
        assert (await origin.config()).mode is RepoMode.ARCHIVE
        await origin.config()
    assert tokens == 2


async def test_an_origin_that_wants_credentials_says_so(fetcher: Fetcher) -> None:
    async with serving(answer(401)) as server:
        with pytest.raises(CredentialsError, match="401") as caught:
            await open_origin(fetcher, server.url).resolve_ref("os")
    assert "treehub.json" in caught.value.hint


async def test_a_repository_of_nginx_is_an_origin(
    fetcher: Fetcher, nginx: StartNginx, tmp_path: Path
) -> None:
    (tmp_path / "refs/heads").mkdir(parents=True)
    (tmp_path / "refs/heads/os").write_text(f"{COMMIT}\n")
    (tmp_path / "config").write_bytes(ARCHIVE)
    origin = open_origin(fetcher, nginx(tmp_path).url)
    assert (await origin.config()).mode is RepoMode.ARCHIVE
    assert await origin.resolve_ref("os") == COMMIT
    with pytest.raises(OriginNotFoundError):
        await origin.fetch_commit(COMMIT)
