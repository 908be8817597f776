"""The writer as a process: `python -m p2p.writer REPO FD [OPTION…] [KEY=VALUE…]`.

FD is an inherited AF_UNIX stream socket with one agent at its other end; KEY=VALUE is a
setting of `[core]` that counts instead of the repository's own. `--tree=DIR`, or
`--sysroot=DIR` with `--os=NAME`, is where it deploys to; without either it does not.
The first message is `Done`, or `Failed` if the repository cannot be written. The
process ends when the agent closes its end.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from p2p.deploy.target import make_target, open_updater
from p2p.errors import ConfigError, Error, FormatError, WriterError
from p2p.ostree.disk import writing
from p2p.ostree.messages import Done, Failed, Reply, decode, encode
from p2p.ostree.repo import Repo
from p2p.writer.service import WriterService

_READ_BUFFER_BYTES = 1 << 20
_PLACES = {
    "--tree": "tree",
    "--sysroot": "sysroot",
    "--os": "os_name",
    "--settings": "settings",
}


def serve(connection: socket.socket, service: WriterService) -> None:
    """Answer requests until the agent closes the connection.

    Raises:
        FormatError: the agent does not speak the protocol; nothing is answered.
        ConnectionError: the agent went away with a reply on its way.

    """
    with connection.makefile("rb", buffering=_READ_BUFFER_BYTES) as reader:
        while (request := decode(reader.read)) is not None:
            if isinstance(request, Done | Failed):
                raise FormatError("a reply where a request belongs")
            _send(connection, service.handle(request))


def _send(connection: socket.socket, reply: Reply) -> None:
    connection.sendall(b"".join(encode(reply)))


def main(arguments: list[str]) -> int:
    """Run the writer; the exit status is that of the error, if there was one."""
    path, number, *options = arguments
    with socket.socket(fileno=int(number)) as connection:
        try:
            with writing(path):
                service = _open_service(path, options)
        except Error as error:
            _send(connection, Failed.of(error))
            return error.exit_code
        try:
            with service:
                _send(connection, Done())
                serve(connection, service)
        except Error as error:
            sys.stderr.write(f"writer: {error}\n")
            return error.exit_code
        except ConnectionError as error:
            sys.stderr.write(f"writer: the agent went away: {error}\n")
            return WriterError.exit_code
    return 0


def _open_service(path: str, options: Sequence[str]) -> WriterService:
    """Return the service that the options describe; ConfigError if one is wrong."""
    settings, places = {}, {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or (key not in _PLACES and key.startswith("-")):
            raise ConfigError("the writer's command line", f"{option!r} is no option")
        if key in _PLACES:
            places[_PLACES[key]] = value
        else:
            settings[key] = value
    repo = Repo.open(path, settings)
    target = make_target(**places)
    return WriterService(
        repo, open_updater(repo, target, is_apart=True) if target else None
    )
