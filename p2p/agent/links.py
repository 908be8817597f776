"""The links of this machine: where others on them reach it, and whom it may dial."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, closing

from p2p.errors import TransportError
from p2p.net.interfaces import Choice, Interface, choose
from p2p.net.netlink import KernelInterfaces
from p2p.net.target import Target
from p2p.wire.limits import MAX_CLAIM_ADDRESSES
from p2p.wire.record import Address


class Links:
    """The chosen interfaces, as the kernel reports them while `run` runs."""

    def __init__(self, source: KernelInterfaces, choice: Choice) -> None:
        """Read them; TransportError if that is not possible."""
        self._source = source
        self._choice = choice
        self._interfaces: tuple[Interface, ...] = choose(source.read(), choice)

    @classmethod
    async def open(cls, choice: Choice) -> Links:
        """Begin to listen to changes; TransportError if that is not allowed."""
        source = await KernelInterfaces.open()
        try:
            return cls(source, choice)
        except TransportError:
            source.close()
            raise

    def closing(self) -> AbstractContextManager[KernelInterfaces]:
        """Return a block at whose end nobody listens any more."""
        return closing(self._source)

    async def wait(self) -> None:
        """Return when the interfaces have changed; TransportError as `open`."""
        await self._source.wait()
        self._interfaces = choose(self._source.read(), self._choice)

    def own(self, port: int, host: str | None = None) -> tuple[Address, ...]:
        """Return where others reach a port, IPv4 first; or at one address alone."""
        found = [
            network.ip
            for interface in self._interfaces
            for network in interface.networks
            # What is link-local means something else on each link.
            if interface.reaches(network.ip)
            and not network.ip.is_link_local
            and host in (None, str(network.ip))
        ]
        found.sort(key=lambda address: address.version)
        return tuple(Address(ip, port) for ip in found[:MAX_CLAIM_ADDRESSES])

    def targets(self, addresses: Iterable[Address]) -> tuple[Target, ...]:
        """Return those of some addresses that are on a chosen link."""
        return tuple(
            Target(str(host), port)
            for host, port in addresses
            if any(each.reaches(host) for each in self._interfaces)
        )
