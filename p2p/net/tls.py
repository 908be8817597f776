"""TLS 1.3 between neighbours: mutual authentication, dialling, what is then known.

Who is at the other end is its device id, taken from its certificate; the certificate
must come from the membership's authority. Names and addresses prove nothing and are
not checked. OpenSSL judges no times, since devices' clocks are often wrong: that is
`p2p.net.x509.judge`, for the device's own certificate. The authority's end of
validity is not enforced: it would cut off a whole fleet at once.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from p2p.errors import (
    ConfigError,
    ConnectError,
    FormatError,
    TransportError,
    TransportTimeoutError,
)
from p2p.net.failure import connect_failure, tls_failure
from p2p.net.identity import Identity, load_chain
from p2p.net.stream import TLSStream
from p2p.net.target import Target
from p2p.net.traffic import Traffic
from p2p.net.transport import Transport
from p2p.net.x509 import Certificate, Validity, judge, parse_certificate
from p2p.trust.policy import Clock
from p2p.wire.messages import DeviceId

ALPN: Final = "ostree-p2p/1"
"""The protocol's name and major version."""

# X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h; Python's ssl has no name for it.
_NO_CHECK_TIME = 0x200000


@dataclass(frozen=True, slots=True, kw_only=True)
class DialLimits:
    """How long a dial may take, in seconds.

    Attributes:
        connect: until TCP has an answer from one of the targets.
        handshake: for TLS after that; a device may need a second for its key.
        stagger: before the next target is tried beside the ones before it.

    """

    connect: float = 4.0
    handshake: float = 5.0
    stagger: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """An authenticated connection.

    The side that listens has judged the other; the one that dialled learns with its
    first receive whether it was accepted.

    Attributes:
        stream: bytes to and from the peer; who gets the contact closes it.
        peer: device id of the peer.
        certificate: what its certificate says.
        validity: what this device's clock says of the certificate's times.
        address: where the peer is, for people.

    """

    stream: Transport
    peer: DeviceId
    certificate: Certificate
    validity: Validity
    address: str


class Endpoint:
    """This device's half of every TLS session.

    Attributes:
        identity: this device's.
        traffic: what all sessions share.

    """

    def __init__(
        self,
        identity: Identity,
        clock: Callable[[], Clock],
        traffic: Traffic | None = None,
    ) -> None:
        """Load certificate, key and authority, and prove that they fit together.

        Args:
            identity: this device's.
            clock: what is known of the time, asked at each handshake.
            traffic: what all sessions share; by default no limits.

        Raises:
            ConfigError: neighbours could not accept this certificate.

        """
        self.identity = identity
        self.traffic = traffic or Traffic()
        self._clock = clock
        self._server = _context(ssl.PROTOCOL_TLS_SERVER, identity)
        self._server.num_tickets = 0  # a session is resumed by a new handshake
        self._client = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
        self._prove()

    def __repr__(self) -> str:
        short = self.identity.device_id[:12]
        return f"<Endpoint {self.identity.membership} {short}>"

    async def meet(
        self, sock: trio.SocketStream, address: str, *, server_side: bool
    ) -> Contact:
        """Shake hands over a connected socket, which is closed if that fails.

        Takes as long as the peer likes: the caller sets the time.

        Raises:
            ConnectError: one side does not accept the other; it says why.
            TransportError: the connection broke.

        """
        if self.traffic.avoids(sock):
            sock.socket.close()
            raise ConnectError(
                f"{address}: reached over a metered network",
                hint='Allow it with metered = "use" in [limits], if it may cost.',
            )
        _watch(sock)
        self.traffic.add(sock)
        context = self._server if server_side else self._client
        stream = TLSStream(
            sock, context, server_side=server_side, download=self.traffic.download
        )
        try:
            await stream.handshake()
            return self._judge(stream, address)
        except FormatError as error:
            stream.abort()
            raise ConnectError(f"{address}: {error}", hint=error.hint) from error
        except TransportError as error:
            stream.abort()
            raise type(error)(f"{address}: {error}", hint=error.hint) from error
        except BaseException:
            stream.abort()
            raise

    def _judge(self, stream: TLSStream, address: str) -> Contact:
        if stream.protocol() != ALPN:
            raise ConnectError(
                f"it does not speak {ALPN}",
                hint="Both devices need a version of this program in common.",
            )
        certificate = parse_certificate(stream.peer_certificate())
        if certificate.device_id == self.identity.device_id:
            raise ConnectError(
                "it has this device's own key",
                hint="Either it is this device, or its disk was copied from this one: "
                "then delete the copied key there, so that a new one is made.",
            )
        return Contact(
            stream=stream,
            peer=certificate.device_id,
            certificate=certificate,
            validity=judge(certificate, self._clock()),
            address=address,
        )

    def _prove(self) -> None:
        """Shake hands with ourselves in memory: what fails here fails everywhere."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self._server.wrap_bio(to_server, to_client, server_side=True)
        client = self._client.wrap_bio(to_client, to_server)
        try:
            for side in (client, server, client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        except ssl.SSLError as error:
            failure = tls_failure(error)
            raise ConfigError(
                self.identity.certificate_file,
                f"neighbours would refuse this certificate: {failure}",
                hint=failure.hint,
            ) from error


async def dial(
    endpoint: Endpoint,
    targets: Sequence[Target],
    limits: DialLimits = DialLimits(),
) -> Contact:
    """Connect to the one peer that is at all of these targets; the first wins.

    Raises:
        ConnectError: none answers, or one of the two sides is a stranger.
        TransportTimeoutError: the peer is too slow.
        TransportClosedError: the peer hung up.

    """
    sock, target = await _race(targets, limits)
    with trio.move_on_after(limits.handshake):
        return await endpoint.meet(sock, str(target), server_side=False)
    raise TransportTimeoutError(f"{target}: the TLS handshake took too long")


async def _race(
    targets: Sequence[Target], limits: DialLimits
) -> tuple[trio.SocketStream, Target]:
    """Return the first connection, trying each target a little after the last."""
    won: list[tuple[trio.SocketStream, Target]] = []
    lost: list[str] = []

    async def attempt(target: Target, over: trio.Event) -> None:
        try:
            won.append((await trio.open_tcp_stream(*target), target))
        except OSError as error:
            lost.append(f"{target}: {connect_failure(error)}")
            over.set()
        else:
            nursery.cancel_scope.cancel()

    try:
        with trio.move_on_after(limits.connect):
            async with trio.open_nursery() as nursery:
                for target in targets:
                    over = trio.Event()
                    nursery.start_soon(attempt, target, over)
                    with trio.move_on_after(limits.stagger):
                        await over.wait()
    except BaseException:
        _close(won)
        raise
    _close(won[1:])
    if won:
        return won[0]
    if len(lost) < len(targets):
        lost.append(f"no answer within {limits.connect:g} s")
    raise ConnectError("; ".join(lost) or "there is no address to dial")


def _close(connections: Sequence[tuple[trio.SocketStream, Target]]) -> None:
    for sock, _ in connections:
        sock.socket.close()


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # Each certificate of the authority file is trusted as it stands, root or not.
    context.verify_flags |= _NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN
    # A session that ends without close_notify was cut, and must look like it.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols([ALPN])
    load_chain(context, identity.certificate_file, identity.key_file)
    try:
        context.load_verify_locations(cadata=identity.authority)
    except ssl.SSLError as error:
        raise ConfigError(
            "the authority", f"its certificates cannot be read: {error.reason}"
        ) from error
    return context


def _watch(sock: trio.SocketStream) -> None:
    """Let the kernel notice within half a minute that a peer lost power."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
