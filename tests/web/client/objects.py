"""Objects for the origin's tests, their paths on a server, and taking them from one."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from p2p.ostree import filez
from p2p.ostree.config import RemoteConfig
from p2p.ostree.messages import Form
from p2p.ostree.objects import Checksum, FileHeader, ObjectName, ObjectType
from p2p.web.client.bulk import (
    ObjectEvent,
    ObjectFailed,
    ObjectPiece,
    ObjectReceived,
    ObjectRestarted,
    OriginPaused,
)
from p2p.web.client.fetch import Fetcher
from p2p.web.client.intake import PIECE_BYTES
from p2p.web.client.origin import Origin
from p2p.web.client.request import Access
from p2p.web.client.retry import Retry

HEADER = FileHeader(0, 0, 0o100644)
ACCESS = Access(connect_seconds=2, low_speed_seconds=1)


@dataclass(frozen=True, slots=True)
class File:
    """A file object in both forms."""

    name: ObjectName
    canonical: bytes
    filez: bytes

    @property
    def path(self) -> str:
        return f"/objects/{self.name.path(archive=True)}"


def make_file(content: bytes, *, level: int = 6) -> File:
    """Return the object of a plain file with this content."""
    canonical = HEADER.frame() + content
    checksum = Checksum(hashlib.sha256(canonical).hexdigest())
    packed = filez.from_content(HEADER, len(content), [content], level=level)
    return File(ObjectName(checksum, ObjectType.FILE), canonical, b"".join(packed))


def make_metadata(data: bytes, kind: ObjectType = ObjectType.DIRTREE) -> ObjectName:
    """Return the name of metadata with these bytes."""
    return ObjectName(Checksum(hashlib.sha256(data).hexdigest()), kind)


def contents(files: Iterable[File]) -> dict[str, bytes]:
    """Return what a server has to answer for these files."""
    return {file.path: file.filez for file in files}


def open_origin(
    fetcher: Fetcher,
    url: str,
    *,
    content_url: str | None = None,
    tries: int = 5,
    **options: Any,
) -> Origin:
    return Origin(
        fetcher,
        RemoteConfig(name="origin", url=url, content_url=content_url),
        access=ACCESS,
        retry=Retry(tries, random=Random(1)),
        **options,
    )


async def collect(
    origin: Origin, pauses: list[float] | None = None
) -> list[ObjectEvent]:
    """Take all events until nothing is wanted any more, consuming as they come."""
    events: list[ObjectEvent] = []
    while origin.wanted or not events:
        for event in await origin.next_events():
            if isinstance(event, OriginPaused):
                if pauses is not None:
                    pauses.append(event.seconds)
                continue
            events.append(event)
            if isinstance(event, ObjectReceived | ObjectPiece):
                origin.consumed(len(event.data))
    return events


async def fetch(origin: Origin, name: ObjectName, form: Form = Form.CANONICAL) -> bytes:
    """Return one object, put together from what came after the last restart."""
    origin.want(name, form=form)
    data = b""
    for event in await collect(origin):
        match event:
            case ObjectReceived():
                return event.data
            case ObjectPiece():
                assert event.offset == len(data)
                assert 0 < len(event.data) <= PIECE_BYTES
                data += event.data
                if event.last:
                    return data
            case ObjectRestarted():
                data = b""
            case ObjectFailed():
                raise event.error
    raise AssertionError("no end")
