"""`p2p treehub`: an origin of one's own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TextIO

import click
import trio

from p2p.cli.options import json_option, print_json
from p2p.rate import parse_rate
from p2p.web.server.access_log import AccessRecord
from p2p.web.server.guard import load_credentials, server_context
from p2p.web.server.limits import Limits
from p2p.web.treehub.api import serve_treehub


@click.command
@click.option("--store", required=True, metavar="DIR", help="Where everything is kept.")
@click.option(
    "--listen",
    default="127.0.0.1:8084",
    show_default=True,
    metavar="HOST:PORT",
    help="Port 0 lets the system choose.",
)
@click.option(
    "--credentials-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Only let in who knows a line: `basic USER:PASSWORD` or `bearer TOKEN`.",
)
@click.option("--tls-cert", metavar="PEM", type=click.Path(exists=True, dir_okay=False))
@click.option("--tls-key", metavar="PEM", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--client-ca",
    metavar="PEM",
    type=click.Path(exists=True, dir_okay=False),
    help="Demand a client certificate by this authority.",
)
@click.option(
    "--rate",
    metavar="RATE",
    help="Send no more than that, such as 10mbit: to spare, or to try, a thin link.",
)
@click.option(
    "--access-log",
    type=click.File("a", lazy=False),
    metavar="FILE",
    help="Note every request there, a line of JSON each; `-` is standard output.",
)
@json_option
def treehub(  # noqa: PLR0913 - one argument an option
    *,
    store: str,
    listen: str,
    credentials_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    client_ca: str | None,
    rate: str | None,
    access_log: TextIO | None,
    as_json: bool,
) -> None:
    """Serve an OSTree repository with TreeHub's interface, in the foreground.

    Prints the addresses it listens on. The store is an archive repository that
    `ostree` and web servers can read too; what is uploaded is verified first.
    """
    if tls_cert is None and (tls_key or client_ca):
        raise click.UsageError("--tls-key and --client-ca need --tls-cert")
    credentials = load_credentials(credentials_file) if credentials_file else ()
    tls = None
    if tls_cert is not None:
        tls = server_context(tls_cert, tls_key or tls_cert, client_ca=client_ca)
    limits = Limits()
    if rate is not None:
        limits = replace(limits, bytes_per_second=parse_rate(rate, where="--rate"))
    serve = partial(
        serve_treehub,
        store,
        listen,
        credentials=credentials,
        tls=tls,
        limits=limits,
        access_log=None if access_log is None else partial(_note, access_log),
    )
    trio.run(partial(_serve, store, serve, as_json=as_json))


def _note(file: TextIO, entry: AccessRecord) -> None:
    file.write(json.dumps({"time": round(time.time(), 3)} | asdict(entry)) + "\n")
    file.flush()


async def _serve(
    store: str, serve: Callable[..., Awaitable[None]], *, as_json: bool
) -> None:
    shutdown = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(partial(serve, shutdown=shutdown))
            if as_json:
                print_json({"urls": urls})
            else:
                for url in urls:
                    click.echo(f"serving {store} at {url}")
            async for _ in signals:
                shutdown.set()
                break
