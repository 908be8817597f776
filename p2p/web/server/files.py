"""Files as answers: validators, conditions and ranges of RFC 9110 §13 and §14."""

from __future__ import annotations

import email.utils
import os
import re
import stat
from functools import lru_cache

from p2p.web.server.exchange import OCTETS, FileBody, RefusedError, Request, Response

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_response(
    request: Request,
    path: str,
    *,
    content_type: str = OCTETS,
    headers: tuple[tuple[str, str], ...] = (),
) -> Response:
    """Return the answer to GET or HEAD for a regular file.

    Raises:
        FileNotFoundError: it is not there, or no regular file.
        RefusedError: 416 for a range outside the file.

    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(path)
        response = _answer(request, fd, status, (("Content-Type", content_type),))
    except BaseException:
        os.close(fd)
        raise
    if not isinstance(response.body, FileBody):
        os.close(fd)
    response.headers += headers
    return response


def _answer(
    request: Request,
    fd: int,
    status: os.stat_result,
    headers: tuple[tuple[str, str], ...],
) -> Response:
    size = status.st_size
    etag = f'"{status.st_mtime_ns:x}-{size:x}"'
    modified = http_date(int(status.st_mtime))
    headers += (
        ("ETag", etag),
        ("Last-Modified", modified),
        ("Accept-Ranges", "bytes"),
    )
    asked = request.headers
    if _is_fresh(asked.get("if-none-match"), asked.get("if-modified-since"), status):
        return Response(304, headers)
    if request.method == "HEAD":
        return Response(200, headers, length=size)
    wanted = asked.get("range")
    if wanted is not None and asked.get("if-range", etag) in (etag, modified):
        part = _parse_range(wanted, size)
        if part is not None:
            begin, end = part
            headers += (("Content-Range", f"bytes {begin}-{end - 1}/{size}"),)
            return Response(206, headers, FileBody(fd, begin, end - begin))
    return Response(200, headers, FileBody(fd, 0, size))


def _is_fresh(tags: str | None, since: str | None, status: os.stat_result) -> bool:
    """Tell whether the client's copy is the present one (304)."""
    if tags is not None:
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        given = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return "*" in given or etag in given
    if since is None:
        return False
    try:
        when = email.utils.parsedate_to_datetime(since)
        return int(status.st_mtime) <= when.timestamp()
    except (ValueError, OverflowError):
        return False


def _parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return where the one range asked for begins and ends.

    None when it is not understood or are several: then all is sent, as allowed.
    """
    found = _RANGE.fullmatch(text.replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise RefusedError(
            416,
            "range_not_satisfiable",
            f"The file has {size} bytes.",
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return begin, end


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """Return a time as HTTP writes it, in seconds since 1970."""
    return email.utils.formatdate(seconds, usegmt=True)
