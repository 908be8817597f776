"""HTTP servers on loopback that do exactly what a test says, good or bad."""

from __future__ import annotations

import datetime as dt
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from types import MappingProxyType

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers import make_certificates

_MAX_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the server saw it; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Exchange:
    """One request and the bytes that are sent back."""

    def __init__(self, asked: Asked, stream: trio.abc.Stream) -> None:
        self.asked = asked
        self.stream = stream
        self.keep = True

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def reply(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        length: int | None = None,
    ) -> None:
        """Send an answer; `length` is claimed instead of the true one."""
        claimed = len(body) if length is None else length
        lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {claimed}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        await self.send(head if self.asked.method == "HEAD" else head + body)

    def hang_up(self) -> None:
        """Close the connection after this exchange."""
        self.keep = False

    def reset(self) -> None:
        """Have the connection end with a TCP reset."""
        stream = self.stream
        if not isinstance(stream, trio.SocketStream):
            raise TypeError("only a plain connection can be reset")
        stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.keep = False

    async def stall(self) -> None:
        """Send nothing more until the client gives up."""
        self.keep = False
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class Server:
    """A running server and all it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    @property
    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Server]:
    """Run a server until the block ends."""
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    port = listener.socket.getsockname()[1]
    server = Server(f"{'https' if tls else 'http'}://{host}:{port}")

    async def serve(stream: trio.SocketStream) -> None:
        server.connections += 1
        number = server.connections
        link: trio.abc.Stream = stream
        if tls is not None:
            link = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            async with link:
                await _converse(link, handler, server, number)
        except (trio.BrokenResourceError, ssl.SSLError):
            pass  # the client has gone, which many tests are about

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def _converse(
    stream: trio.abc.Stream, handler: Handler, server: Server, number: int
) -> None:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = await stream.receive_some()
            if not data or len(buffer) > _MAX_HEAD_BYTES:
                return
            buffer += data
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        while len(buffer) < length:
            data = await stream.receive_some()
            if not data:
                return
            buffer += data
        body, buffer = bytes(buffer[:length]), buffer[length:]
        asked = Asked(method, target, headers, body, number)
        server.asked.append(asked)
        exchange = Exchange(asked, stream)
        await handler(exchange)
        if not exchange.keep:
            return


def replies(*handlers: Handler) -> Handler:
    """Return a handler that uses one after the other, the last one for the rest."""
    left = list(handlers)

    async def handle(exchange: Exchange) -> None:
        handler = left.pop(0) if len(left) > 1 else left[0]
        await handler(exchange)

    return handle


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    """Return a handler that always answers this."""

    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handle(exchange: Exchange) -> None:
        await exchange.reply(status, body, fields)

    return handle


def files(contents: Mapping[str, bytes], *, fallback: Handler | None = None) -> Handler:
    """Return a handler that serves these paths and 404 otherwise."""

    async def handle(exchange: Exchange) -> None:
        body = contents.get(exchange.asked.path)
        if body is not None:
            await exchange.reply(200, body)
        elif fallback is not None:
            await fallback(exchange)
        else:
            await exchange.reply(404, b"no such file")

    return handle


# -- TLS ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tls:
    """A server's TLS context and the authority that its clients must trust."""

    context: ssl.SSLContext
    authority: Path


def make_tls(work: Path, *, client: Path | None = None) -> Tls:
    """Return TLS for 127.0.0.1; `client` is a certificate that clients must show."""
    work.mkdir(exist_ok=True)
    made = make_certificates(work)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client)
    return Tls(context, made.authority)


@dataclass(frozen=True, slots=True)
class Identity:
    """A self-signed client certificate with its key, in memory and as PEM files."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    certificate_path: Path
    key_path: Path

    @property
    def pem(self) -> bytes:
        return self.certificate_path.read_bytes() + self.key_path.read_bytes()


def make_identity(work: Path) -> Identity:
    """Return a new client certificate."""
    work.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = work / "client.pem", work / "client.key"
    encoding = serialization.Encoding.PEM
    certificate_path.write_bytes(certificate.public_bytes(encoding))
    key_path.write_bytes(
        key.private_bytes(
            encoding,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Identity(key, certificate, certificate_path, key_path)
