"""The body of a request on its way out: libcurl's callbacks that read it."""

from __future__ import annotations

import io

from p2p.errors import ConfigError
from p2p.web.client.request import Upload

_ABORT = 0x10000000  # CURL_READFUNC_ABORT of curl.h
_SEEK_OK = 0  # CURL_SEEKFUNC_OK


class Outgoing:
    """Bytes or a file being sent.

    Attributes:
        size: length in bytes.
        error: why reading failed, which libcurl cannot carry.

    """

    error: Exception | None = None

    def __init__(self, body: bytes | Upload) -> None:
        if isinstance(body, bytes):
            body = Upload(io.BytesIO(body), len(body))
        self.size = body.size
        self._file = body.file
        self._file.seek(0)
        self._sent = 0

    def read(self, size: int) -> bytes | int:
        """CURLOPT_READFUNCTION."""
        left = self.size - self._sent
        try:
            data = self._file.read(min(size, left))
            if left and not data:
                raise ConfigError(
                    getattr(self._file, "name", "upload"),
                    f"ends {left} bytes before the {self.size} announced",
                )
        except Exception as error:  # noqa: BLE001 - told to the asker
            self.error = error
            return _ABORT
        self._sent += len(data)
        return data

    def seek(self, offset: int, origin: int) -> int:
        """CURLOPT_SEEKFUNCTION: the body is sent again, on another connection."""
        self._sent = self._file.seek(offset, origin)
        return _SEEK_OK
