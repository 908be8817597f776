"""Where the system keeps its CA certificates, and secrets as files in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

# libcurl inside a binary wheel has the path of the machine it was built on, or none.
# In this order: Debian and Alpine, Fedora, openSUSE, the BSDs and old Alpine.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_DIRECTORY = "/etc/ssl/certs"


class Authorities(NamedTuple):
    """CA certificates as one file, or as a directory hashed by `openssl rehash`."""

    file: str | None
    directory: str | None


def system_authorities(
    environment: Mapping[str, str] = os.environ,
    exists: Callable[[str], bool] = os.path.exists,
) -> Authorities:
    """Return the system's CA certificates; both are None where there are none.

    CURL_CA_BUNDLE, SSL_CERT_FILE and SSL_CERT_DIR name others, as they do for curl.
    """
    for variable in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := environment.get(variable):
            return Authorities(path, None)
    if path := environment.get("SSL_CERT_DIR"):
        return Authorities(None, path)
    for path in _BUNDLES:
        if exists(path):
            return Authorities(path, None)
    return Authorities(None, _DIRECTORY if exists(_DIRECTORY) else None)


class MemoryFile:
    """Bytes that a library can open by name and that never touch a disk."""

    def __init__(self, content: bytes) -> None:
        self._descriptor = os.memfd_create("p2p", os.MFD_CLOEXEC)
        view = memoryview(content)
        while view:
            view = view[os.write(self._descriptor, view) :]

    @property
    def path(self) -> str:
        """Where it can be opened, within this process."""
        return f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._descriptor)
