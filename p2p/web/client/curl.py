"""The only door to pycurl: handles, and the loop's calls into libcurl.

libcurl because a fetch costs it 40 µs of CPU, docs/adr/0001-libcurl-fetches.md.
Everything here runs on the one thread that owns the multi handle.
"""

from __future__ import annotations

import os
import resource
import select
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import pycurl

from p2p.web.client.certificates import MemoryFile, system_authorities
from p2p.web.client.request import Access, Headers
from p2p.web.client.transfer import Transfer

_LIBCURL: int = pycurl.version_info()[2]
_PROTOCOLS = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
# pycurl 7.45 of Debian 12 cannot ask libcurl for Retry-After, and libcurl before
# 8.3 does not bound headers: there every answer's headers go through our callback.
_KEEP_HEADERS = _LIBCURL < 0x080300 or not hasattr(pycurl, "RETRY_AFTER")
# Without CURLOPT_QUICK_EXIT (curl.h; pycurl has no name for it) giving up on a name
# server that does not answer waits for the resolver's thread, and all others with it.
_QUICK_EXIT = 322
_QUICK_EXIT_SINCE = 0x075700
_LENGTH = getattr(  # the old one is a float, and all that pycurl 7.45 has
    pycurl, "CONTENT_LENGTH_DOWNLOAD_T", pycurl.CONTENT_LENGTH_DOWNLOAD
)
_HAS_HTTP2 = bool(pycurl.version_info()[4] & pycurl.VERSION_HTTP2)
_BUFFER_BYTES = 1 << 17
_LIMITED_BUFFER_BYTES = 1 << 13
_FD_SETSIZE = 1024  # of glibc; libcurl does not report sockets from there on
_CROWDED_WAIT_MS = 5
_NO_DESCRIPTOR_WAIT_MS = 100  # what curl_multi_fdset(3) advises


class Handle:
    """An easy handle for one access, used for one transfer after the other.

    Attributes:
        curl: pycurl's object; no subclass of it, whose attributes are slow.
        transfer: which it is used for now.
        plain: nothing was set that a later transfer must not inherit.

    """

    __slots__ = (
        "_buffer_bytes",
        "_headers",
        "_max_bytes",
        "access",
        "curl",
        "plain",
        "setopt",
        "transfer",
    )

    transfer: Transfer

    def __init__(
        self, access: Access, identity: str | None, prepare: Callable[[int], None]
    ) -> None:
        """Set what all transfers with this access share.

        Args:
            access: how servers are reached.
            identity: path of a PEM file.
            prepare: is called with each new socket before it is connected.

        """
        self.access = access
        self.plain = True
        self._max_bytes = -1
        self._buffer_bytes = -1
        self._headers: Headers | None = None
        self.curl = pycurl.Curl()
        self.setopt = self.curl.setopt
        self.setopt(pycurl.NOSIGNAL, 1)
        if _LIBCURL >= _QUICK_EXIT_SINCE:
            self.setopt(_QUICK_EXIT, 1)
        self.setopt(pycurl.PROTOCOLS, _PROTOCOLS)
        self.setopt(pycurl.USERAGENT, access.user_agent)
        self.setopt(pycurl.OPT_FILETIME, 1)
        self.setopt(pycurl.CONNECTTIMEOUT_MS, int(access.connect_seconds * 1000))
        self.setopt(pycurl.LOW_SPEED_LIMIT, access.low_speed_bytes)
        self.setopt(pycurl.LOW_SPEED_TIME, access.low_speed_seconds)
        if access.http2 and _HAS_HTTP2:
            self.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
            self.setopt(pycurl.PIPEWAIT, 1)
        else:
            self.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        if access.proxy is not None:
            self.setopt(pycurl.PROXY, access.proxy)
        self._configure_tls(access, identity)

        def sockopt(descriptor: int, _purpose: int) -> int:
            prepare(descriptor)
            return 0  # CURL_SOCKOPT_OK

        self.setopt(pycurl.SOCKOPTFUNCTION, sockopt)

    def _configure_tls(self, access: Access, identity: str | None) -> None:
        if access.permissive:
            self.setopt(pycurl.SSL_VERIFYPEER, 0)
            self.setopt(pycurl.SSL_VERIFYHOST, 0)
        elif access.ca_path is not None:
            self.setopt(pycurl.CAINFO, access.ca_path)
        else:
            authorities = system_authorities()
            if authorities.file is not None:
                self.setopt(pycurl.CAINFO, authorities.file)
            elif authorities.directory is not None:
                self.setopt(pycurl.CAPATH, authorities.directory)
        if identity is not None:
            self.setopt(pycurl.SSLCERT, identity)
            self.setopt(pycurl.SSLKEY, identity)
        elif access.client_cert_path is not None:
            self.setopt(pycurl.SSLCERT, access.client_cert_path)
            self.setopt(
                pycurl.SSLKEY, access.client_key_path or access.client_cert_path
            )

    def arm(self, transfer: Transfer, *, is_limited: bool, fresh: bool) -> None:
        """Set what differs between transfers; the handle is new or was disarmed.

        Args:
            transfer: what it is used for next.
            is_limited: whether little is to be read ahead of what may pass.
            fresh: whether it gets a connection of its own.

        """
        request = transfer.request
        self.transfer = transfer
        transfer.handle = self
        self.setopt(pycurl.URL, transfer.url)
        self.setopt(pycurl.WRITEFUNCTION, transfer.write)
        if request.max_bytes != self._max_bytes:
            self._max_bytes = request.max_bytes
            self.setopt(pycurl.MAXFILESIZE_LARGE, request.max_bytes)
        buffer_bytes = _LIMITED_BUFFER_BYTES if is_limited else _BUFFER_BYTES
        if buffer_bytes != self._buffer_bytes:
            self._buffer_bytes = buffer_bytes
            self.setopt(pycurl.BUFFERSIZE, buffer_bytes)
        headers = request.headers + transfer.private
        if headers != self._headers:
            self._headers = headers
            lines = [f"{name}: {value}" for name, value in headers]
            # Without Expect libcurl does not wait a second before a large body.
            self.setopt(pycurl.HTTPHEADER, [*lines, "Expect:"])
        if fresh:
            self.plain = False
            self.setopt(pycurl.FRESH_CONNECT, 1)
        if request.want_headers or _KEEP_HEADERS or transfer.offset:
            self._arm_more(transfer)
        if request.method != "GET" or request.body is not None:
            self._arm_method(transfer)

    def _arm_more(self, transfer: Transfer) -> None:
        self.plain = False
        self.setopt(pycurl.HEADERFUNCTION, transfer.header)
        if transfer.offset:
            # libcurl also checks that the answer begins there.
            self.setopt(pycurl.RESUME_FROM_LARGE, transfer.offset)

    def _arm_method(self, transfer: Transfer) -> None:
        self.plain = False
        outgoing = transfer.outgoing
        if transfer.request.method == "HEAD":
            self.setopt(pycurl.NOBODY, 1)
            self.setopt(pycurl.MAXFILESIZE_LARGE, 0)  # it is not the length to come
            return
        if outgoing is not None:
            self.setopt(pycurl.UPLOAD, 1)
            self.setopt(pycurl.INFILESIZE_LARGE, outgoing.size)
            self.setopt(pycurl.READFUNCTION, outgoing.read)
            self.setopt(pycurl.SEEKFUNCTION, outgoing.seek)
        self.setopt(pycurl.CUSTOMREQUEST, transfer.request.method)

    def disarm(self) -> None:
        """Let go of the transfer, so that it and its body can be forgotten."""
        self.transfer.handle = None
        del self.transfer

    def status(self) -> int:
        """Return the HTTP status."""
        status: int = self.curl.getinfo(pycurl.RESPONSE_CODE)
        return status

    def last_modified(self) -> int | None:
        """Return the Last-Modified header in seconds since 1970."""
        seconds = int(self.curl.getinfo(pycurl.INFO_FILETIME))
        return None if seconds < 0 else seconds

    def length(self) -> int | None:
        """Return the Content-Length."""
        length = int(self.curl.getinfo(_LENGTH))
        return None if length < 0 else length

    def redirect_url(self) -> str | None:
        """Return the absolute URL that a Location header means."""
        url: str | None = self.curl.getinfo(pycurl.REDIRECT_URL)
        return url

    def retry_after(self) -> float | None:
        """Return the seconds of a Retry-After header, given as such or as a date."""
        seconds = self.curl.getinfo(pycurl.RETRY_AFTER)
        return float(seconds) if seconds > 0 else None

    def forbid_reuse(self) -> None:
        """Have the connection closed after the transfer that runs."""
        self.plain = False
        self.setopt(pycurl.FORBID_REUSE, 1)

    def header_bytes(self) -> int:
        """Return how many bytes of headers came."""
        size: int = self.curl.getinfo(pycurl.HEADER_SIZE)
        return size

    def socket(self) -> int | None:
        """Return the descriptor that it uses now."""
        descriptor: int = self.curl.getinfo(pycurl.ACTIVESOCKET)
        return None if descriptor < 0 else descriptor

    @property
    def multiplexed(self) -> bool:
        """Tell whether the server talks HTTP/2."""
        version: int = self.curl.getinfo(pycurl.INFO_HTTP_VERSION)
        return version == pycurl.CURL_HTTP_VERSION_2_0


class Completion(NamedTuple):
    """A transfer that libcurl has ended; `code` is its CURLcode, 0 for success."""

    handle: Handle
    code: int
    message: str


class Handles:
    """Handles that wait to be used again, because configuring one takes 20 calls."""

    def __init__(self, prepare: Callable[[int], None]) -> None:
        """`prepare` is called with each new socket."""
        self._prepare = prepare
        self._idle: dict[Access, list[Handle]] = {}
        self._secrets: dict[Access, MemoryFile] = {}

    def take(self, access: Access) -> Handle:
        """Return a handle that is configured for an access."""
        idle = self._idle.get(access)
        if idle:
            return idle.pop()
        return Handle(access, self._identity(access), self._prepare)

    def _identity(self, access: Access) -> str | None:
        if access.client_pem is None:
            return None
        # Kept to the end: libcurl tells connections apart by the file's name.
        if access not in self._secrets:
            self._secrets[access] = MemoryFile(access.client_pem)
        return self._secrets[access].path

    def give(self, handle: Handle, *, clean: bool) -> None:
        """Take a handle back that is in no multi handle any more.

        `clean` says that its transfer came to its end; libcurl before 8 refuses some
        options for a handle that was stopped half-way, even after a reset.
        """
        handle.disarm()
        if clean and handle.plain:
            self._idle.setdefault(handle.access, []).append(handle)
        else:
            handle.curl.close()

    def close(self) -> None:
        """Free all."""
        for idle in self._idle.values():
            for handle in idle:
                handle.curl.close()
        for secret in self._secrets.values():
            secret.close()


class Multi:
    """Runs many handles at once and waits for whatever comes first."""

    def __init__(self, *, connections: int, host_connections: int, wake: int) -> None:
        """`wake` is an eventfd that ends a wait."""
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, connections)
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, host_connections)
        self._multi.setopt(pycurl.M_MAXCONNECTS, 2 * connections)
        self._added: dict[pycurl.Curl, Handle] = {}
        self._wake = wake
        self._may_crowd = resource.getrlimit(resource.RLIMIT_NOFILE)[0] > _FD_SETSIZE
        self._crowded = False

    def add(self, handle: Handle) -> None:
        """Start a transfer."""
        self._added[handle.curl] = handle
        self._multi.add_handle(handle.curl)

    def remove(self, handle: Handle) -> None:
        """Take a handle out, whether it has ended or not."""
        self._multi.remove_handle(handle.curl)
        del self._added[handle.curl]

    def perform(self) -> None:
        """Let all transfers do what they can without waiting."""
        self._multi.perform()

    def completions(self) -> Iterator[Completion]:
        """Yield the transfers that have ended since."""
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            for curl in succeeded:
                yield Completion(self._added[curl], 0, "")
            for curl, code, message in failed:
                yield Completion(self._added[curl], code, message)

    def resume(self, handle: Handle) -> tuple[int, str]:
        """Let a transfer go on whose write callback asked for a pause.

        Returns CURLcode and message: the callback may have been called again.
        """
        try:
            handle.curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            return cast("tuple[int, str]", error.args)
        return 0, ""

    def wait(self, *, running: int, longest_ms: int = -1) -> None:
        """Wait for a socket, a timer of libcurl's or the wake descriptor.

        Args:
            running: how many transfers were added and not removed.
            longest_ms: return after this time in any case, if it is not negative.

        """
        timeouts = [self._multi.timeout(), longest_ms]
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if running:
            readable, writable, _ = self._multi.fdset()
            masks = dict.fromkeys(readable, select.POLLIN)
            for descriptor in writable:
                masks[descriptor] = masks.get(descriptor, 0) | select.POLLOUT
            for descriptor, mask in masks.items():
                poll.register(descriptor, mask)
            timeouts.append(self._patience_ms(len(masks), running))
        timeout = min((t for t in timeouts if t >= 0), default=None)
        for descriptor, _ in poll.poll(timeout):
            if descriptor == self._wake:
                os.eventfd_read(descriptor)

    def _patience_ms(self, descriptors: int, running: int) -> int:
        """Return how long to wait although libcurl may not show all its sockets."""
        if descriptors < running and self._may_crowd:
            # The lowest free number tells whether sockets lie beyond what it can show.
            probe = os.dup(self._wake)
            os.close(probe)
            self._crowded = self._crowded or probe >= _FD_SETSIZE
        if self._crowded:
            return _CROWDED_WAIT_MS
        return -1 if descriptors else _NO_DESCRIPTOR_WAIT_MS

    def close(self) -> None:
        """Close all connections."""
        self._multi.close()
