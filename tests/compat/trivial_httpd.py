"""`ostree-trivial-httpd` on our HTTP server, as upstream's test scripts start it.

The options are those of the program of that name in ostree's sources; credentials
and headers are compared as it compares them.
"""

import argparse
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import trio

from p2p.web.server.exchange import RefusedError, Request, Response
from p2p.web.server.files import file_response
from p2p.web.server.http1 import Server
from p2p.web.server.listen import open_listeners
from p2p.web.url import basic

# Compiled into the original.
_USER = basic("foouser", "barpw")
_LOOK_SECONDS = 0.2


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", nargs="?", default=".")
    parser.add_argument("-d", "--daemonize", action="store_true")
    parser.add_argument("--autoexit", action="store_true")
    parser.add_argument("-P", "--port", type=int, default=0)
    parser.add_argument("-p", "--port-file", type=Path)
    parser.add_argument("--log-file", type=Path)
    parser.add_argument("--require-basic-auth", action="store_true")
    for status in ("500", "408"):
        parser.add_argument(f"--random-{status}s", type=int, default=0)
        parser.add_argument(f"--random-{status}s-max", type=int, default=100)
    for what in ("header", "cookies"):
        parser.add_argument(f"--expected-{what}", action="append", default=[])
    return parser.parse_args(arguments)


class _Site:
    """The files below one directory, and the faults that were asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._root = os.path.abspath(options.directory)
        self._options = options
        self._left = {500: options.random_500s_max, 408: options.random_408s_max}
        self._percent = {500: options.random_500s, 408: options.random_408s}

    async def __call__(self, request: Request) -> Response:
        self._check_access(request)
        for status, percent in self._percent.items():
            if self._left[status] > 0 and random.random() * 100 < percent:
                self._left[status] -= 1
                raise RefusedError(status, "random", "as was asked for")
        if ".." in request.path.split("/"):
            raise RefusedError(403, "forbidden", "no way up")
        try:
            return file_response(request, self._root + request.path)
        except (FileNotFoundError, NotADirectoryError):
            # Without a body, as libostree's mirror lists need it.
            return Response(404)

    def _check_access(self, request: Request) -> None:
        options = self._options
        user = request.headers.get("authorization")
        if options.require_basic_auth and user != _USER:
            challenge = (("WWW-Authenticate", 'Basic realm="auth-test"'),)
            raise RefusedError(401, "who", "log in", headers=challenge)
        for pair in options.expected_header:
            name, _, value = pair.partition("=")
            if request.headers.get(name.lower()) != value:
                raise RefusedError(403, "header", f"{name} is missing")
        cookies = request.headers.get("cookie", "").split("; ")
        if not set(options.expected_cookies) <= set(cookies):
            raise RefusedError(403, "cookie", "a cookie is missing")


def _start(options: argparse.Namespace) -> Callable[[], None]:
    """Listen and tell the port; return what serves then."""
    listeners = open_listeners(f"127.0.0.1:{options.port}")
    port = listeners[0].getsockname()[1]
    if options.port_file is not None:
        # Whoever waits for the file must not see it empty.
        scratch = options.port_file.with_suffix(".new")
        scratch.write_text(f"{port}\n")
        scratch.rename(options.port_file)
    server = Server(_Site(options))

    def watch() -> None:
        # Nothing tells a process that its directory was deleted.
        while os.stat(".").st_nlink > 0:
            time.sleep(_LOOK_SECONDS)
        os._exit(0)

    def serve() -> None:
        if options.autoexit:
            threading.Thread(target=watch, daemon=True).start()
        trio.run(server.serve, listeners)

    return serve


def _detach() -> None:
    """Go on as a daemon; the process that was started ends."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


if __name__ == "__main__":
    chosen = _parse(sys.argv[1:])
    run = _start(chosen)
    if chosen.daemonize:
        _detach()
    run()
