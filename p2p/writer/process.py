"""The writer as a process: `python -m p2p.writer REPO FD`, one agent on a socketpair.

FD is an inherited AF_UNIX stream socket. The process ends when the agent closes it.
"""

from __future__ import annotations

import socket
import sys

from p2p.errors import Error, FormatError
from p2p.ostree.messages import Done, Failed, decode, encode
from p2p.ostree.repo import Repo
from p2p.writer.service import WriterService

_READ_BUFFER_BYTES = 1 << 20


def serve(connection: socket.socket, service: WriterService) -> None:
    """Answer requests until the agent closes the connection.

    Raises:
        FormatError: the agent does not speak the protocol; nothing is answered.

    """
    with connection.makefile("rb", buffering=_READ_BUFFER_BYTES) as reader:
        while (request := decode(reader.read)) is not None:
            if isinstance(request, Done | Failed):
                raise FormatError("a reply where a request belongs")
            connection.sendmsg(encode(service.handle(request)))


def main(arguments: list[str]) -> int:
    """Run the writer; the exit status is that of the error, if there was one."""
    path, number = arguments
    connection = socket.socket(fileno=int(number))
    with connection:
        try:
            service = WriterService(Repo.open(path))
        except Error as error:
            connection.sendmsg(encode(Failed.of(error)))
            return error.exit_code
        connection.sendmsg(encode(Done()))
        with service:
            try:
                serve(connection, service)
            except (FormatError, ConnectionError) as error:
                sys.stderr.write(f"writer: {error}\n")
                return FormatError.exit_code
    return 0
