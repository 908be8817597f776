"""nginx with a configuration of its own, on a port of its own, without root."""

import datetime as dt
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.require import find_program

_CONFIGURATION = """\
daemon off;
{user}
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format short '$request_method $request_uri $status $body_bytes_sent';
    access_log {work}/access.log short;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port}{tls};
        root {root};
        {extra}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of an authority and of a server certificate for 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Request:
    """One line of nginx's log; `size` is the body's, in bytes."""

    method: str
    path: str
    status: int
    size: int


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running server; `certificates` is set where it speaks TLS."""

    url: str
    port: int
    work: Path
    pid: int
    certificates: Certificates | None = None

    def requests(self) -> list[Request]:
        """Every request answered so far, in order."""
        lines = (self.work / "access.log").read_text().splitlines()
        fields = (line.split(" ") for line in lines)
        return [Request(m, path, int(s), int(size)) for m, path, s, size in fields]


class StartNginx(Protocol):
    """The fixture `nginx`: serve a directory until the test ends."""

    def __call__(
        self, root: Path, *, tls: bool = False, http2: bool = False, extra: str = ""
    ) -> Nginx:
        """Serve `root`; `extra` are more lines for the server block."""
        ...


@contextmanager
def run_nginx(
    root: Path, *, work: Path, tls: bool = False, http2: bool = False, extra: str = ""
) -> Iterator[Nginx]:
    """Serve a directory until the block ends; `http2` is offered where `tls` is on.

    `work` takes configuration, logs and certificates. `extra` are more lines for
    the server block. The listening socket is handed over as nginx hands it to its
    own successor (`NGINX=FD;`), so there is no port to lose and nothing to wait for.
    """
    program = find_program("nginx")
    if program is None:
        raise RuntimeError("nginx is not installed")
    work.mkdir(exist_ok=True)
    certificates = make_certificates(work) if tls else None
    if certificates:
        extra += f"\nssl_certificate {certificates.certificate};"
        extra += f"\nssl_certificate_key {certificates.key};"
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        configuration = _CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            work=work,
            port=port,
            tls=" ssl" * tls + " http2" * http2,
            root=root,
            extra=extra,
        )
        (work / "nginx.conf").write_text(configuration)
        process = subprocess.Popen(
            [program, "-p", work, "-c", work / "nginx.conf", "-e", work / "error.log"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            stdin=subprocess.DEVNULL,
        )
    try:
        scheme = "https" if tls else "http"
        url = f"{scheme}://127.0.0.1:{port}"
        yield Nginx(url, port, work, process.pid, certificates)
        if process.poll() is not None:
            errors = (work / "error.log").read_text()
            raise RuntimeError(f"nginx ended with {process.returncode}: {errors}")
    finally:
        process.terminate()
        process.wait()


def make_certificates(work: Path) -> Certificates:
    """An authority of its own and a certificate for 127.0.0.1 and localhost."""
    today = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)

    def build(
        name: str, issuer: str, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(_common_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - day)
            .not_valid_after(today + day)
        )

    root_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in "12")
    root = build("test authority", "test authority", root_key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    hosts = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    server = build("localhost", "test authority", server_key).add_extension(
        x509.SubjectAlternativeName(hosts), critical=False
    )
    files = Certificates(work / "ca.pem", work / "server.pem", work / "server.key")
    for path, builder in ((files.authority, root), (files.certificate, server)):
        signed = builder.sign(root_key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
