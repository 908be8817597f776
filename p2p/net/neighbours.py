"""What mDNS says of neighbours, sorted out; sans-IO.

mDNS is open to everybody on a link and says whatever they like. Here is decided what
to make of it: a bounded number of neighbours, each with addresses on the link it was
heard on, and nothing of ourselves. What is believed of a neighbour is only where to
dial; who it is tells the session. Changes wait, one a neighbour, until they are asked
for, so that a slow reader costs no memory and misses no neighbour.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from p2p.errors import FormatError
from p2p.net.advert import Advert, InstanceId, decode
from p2p.net.interfaces import Interface
from p2p.net.target import Target

LABEL_PREFIX = "p2p-"
MAX_NEIGHBOURS = 1024
# Several agents may share a machine, and its address.
MAX_EACH_ADDRESS = 32
MAX_TARGETS_A_LINK = 4
_REMEMBERED_REASONS = 64


@dataclass(frozen=True, slots=True)
class Announcement:
    """What this agent says on each link.

    Attributes:
        port: where it listens.
        txt: RDATA of its TXT record.

    """

    port: int
    txt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One service as it was heard on one link; nothing of it is checked yet.

    Attributes:
        link: index of the interface.
        label: first label of the service's name.
        port: of its SRV record.
        addresses: of its A and AAAA records, without scope.
        txt: RDATA of its TXT record.

    """

    link: int
    label: str
    port: int
    addresses: tuple[str, ...]
    txt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A service said goodbye, or its records ran out, on one link."""

    link: int
    label: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An agent that can be dialled.

    Attributes:
        instance: which run of which agent; its HELLO says the same.
        advert: what it says it holds.
        targets: where to dial it, the likeliest first.

    """

    instance: InstanceId
    advert: Advert
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class PeerAppeared:
    """An agent came, or came back."""

    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """An agent holds something else, or is somewhere else."""

    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class PeerGone:
    """An agent left, or is no longer heard of; sessions with it may go on."""

    instance: InstanceId


PeerEvent = PeerAppeared | PeerChanged | PeerGone


class Ignored(StrEnum):
    """Why something that was heard came to nothing."""

    OWN = "it is our own"
    MALFORMED = "it is malformed"
    OFF_LINK = "no address of it is on the link"
    NOT_CHOSEN = "it was heard on an interface that is not chosen"
    FULL = "there are too many neighbours"


class Neighbours:
    """Everybody who was heard and believed, and what changed since it was asked.

    Attributes:
        ignored: how often something was ignored, by reason.
        reasons: the last of these, as sentences, for debugging.
        on_news: called when `next_event` may have something new.

    """

    def __init__(
        self,
        own: InstanceId,
        *,
        most: int = MAX_NEIGHBOURS,
        most_each: int = MAX_EACH_ADDRESS,
    ) -> None:
        """Begin with no link; `own` is the instance that is ourselves."""
        self._own = own
        self._most = most
        self._most_each = most_each
        self._links: dict[int, Interface] = {}
        self._adverts: dict[InstanceId, Advert] = {}
        self._places: dict[InstanceId, dict[int, tuple[Target, ...]]] = {}
        self._at: dict[str, dict[InstanceId, None]] = {}
        self._confirmed: set[InstanceId] = set()
        self._reported: dict[InstanceId, Neighbour] = {}
        self._dirty: dict[InstanceId, None] = {}
        self.ignored: Counter[Ignored] = Counter()
        self.reasons: deque[str] = deque(maxlen=_REMEMBERED_REASONS)
        self.on_news: Callable[[], None] = _nobody

    def __repr__(self) -> str:
        return f"<Neighbours {len(self._places)} on {len(self._links)} links>"

    def set_links(self, interfaces: Iterable[Interface]) -> None:
        """Take these interfaces as the chosen ones; forget who was on others."""
        self._links = {interface.index: interface for interface in interfaces}
        for instance in list(self._places):
            for link in self._places[instance].keys() - self._links.keys():
                self._leave(instance, link)
        self.on_news()

    def hear(self, said: Heard | Lost) -> None:
        """Take in what was heard."""
        if isinstance(said, Lost):
            instance = _instance(said.label)
            if instance is not None:
                self._leave(instance, said.link)
        else:
            reason, why = self._judge(said)
            if reason is not None:
                self.ignored[reason] += 1
                self.reasons.append(f"{said.label[:64]!r}: {reason}{why}")
        self.on_news()

    def next_event(self) -> PeerEvent | None:
        """Return the next change, or None if there is none."""
        while self._dirty:
            instance = next(iter(self._dirty))
            del self._dirty[instance]
            before = self._reported.pop(instance, None)
            there = instance in self._places
            now = self._neighbour(instance) if there else None
            if now is not None:
                self._reported[instance] = now
            if before is None and now is not None:
                return PeerAppeared(now)
            if before is not None and now is None:
                return PeerGone(instance)
            if now is not None and now != before:
                return PeerChanged(now)
        return None

    def confirm(self, instance: InstanceId) -> None:
        """Note that a session proved a neighbour real: it is never pushed out."""
        if instance in self._places:
            self._confirmed.add(instance)

    def links_of(self, instance: InstanceId) -> tuple[int, ...]:
        """Return on which links a neighbour was heard."""
        return tuple(self._places.get(instance, ()))

    def __iter__(self) -> Iterator[Neighbour]:
        """Return everybody who is there now."""
        return map(self._neighbour, list(self._places))

    # -- what is believed ---------------------------------------------------------

    def _judge(self, heard: Heard) -> tuple[Ignored | None, str]:
        interface = self._links.get(heard.link)
        if interface is None:
            return Ignored.NOT_CHOSEN, ""
        instance = _instance(heard.label)
        if instance is None:
            return Ignored.MALFORMED, ": its name is not p2p- and 32 hex digits"
        if instance == self._own:
            return Ignored.OWN, ""
        try:
            advert = decode(heard.txt)
        except FormatError as error:
            return Ignored.MALFORMED, f": {error}"
        if advert.instance != instance:
            return Ignored.MALFORMED, ": its name and its TXT record disagree"
        if not 1 <= heard.port <= 65535:
            return Ignored.MALFORMED, ": it has no port"
        targets = _targets(heard, interface)
        if not targets:
            return Ignored.OFF_LINK, f": {', '.join(heard.addresses[:4])[:200]}"
        if not self._make_room(instance, targets[0]):
            return Ignored.FULL, ""
        self._enter(instance, advert, heard.link, targets)
        return None, ""

    def _make_room(self, instance: InstanceId, target: Target) -> bool:
        """Whether there is room for one more; an unproven one may have to go."""
        if instance in self._places:
            return True
        there = self._at.get(target.host, {})
        # Nobody shares a port: whoever was there before has been replaced.
        for other in list(there):
            if target in self._all_targets(other):
                self._forget(other)
        if len(there) >= self._most_each and not self._push_out(there):
            return False
        return len(self._places) < self._most or self._push_out(self._places)

    def _push_out(self, among: Iterable[InstanceId]) -> bool:
        """Forget the oldest one whom no session has proved real."""
        for instance in among:
            if instance not in self._confirmed:
                self._forget(instance)
                return True
        return False

    def _enter(
        self,
        instance: InstanceId,
        advert: Advert,
        link: int,
        targets: tuple[Target, ...],
    ) -> None:
        places = self._places.setdefault(instance, {})
        for target in places.get(link, ()):
            self._not_at(target.host, instance)
        places[link] = targets
        self._adverts[instance] = advert
        for target in targets:
            self._at.setdefault(target.host, {})[instance] = None
        self._dirty[instance] = None

    def _leave(self, instance: InstanceId, link: int) -> None:
        places = self._places.get(instance, {})
        for target in places.pop(link, ()):
            self._not_at(target.host, instance)
        if places:
            self._dirty[instance] = None
        elif instance in self._places:
            self._forget(instance)

    def _forget(self, instance: InstanceId) -> None:
        for target in self._all_targets(instance):
            self._not_at(target.host, instance)
        del self._places[instance]
        del self._adverts[instance]
        self._confirmed.discard(instance)
        if instance in self._reported:
            self._dirty[instance] = None
        else:
            self._dirty.pop(instance, None)

    def _not_at(self, host: str, instance: InstanceId) -> None:
        there = self._at.get(host, {})
        there.pop(instance, None)
        if not there:
            self._at.pop(host, None)

    def _all_targets(self, instance: InstanceId) -> list[Target]:
        places = self._places[instance]
        return [target for link in sorted(places) for target in places[link]]

    def _neighbour(self, instance: InstanceId) -> Neighbour:
        targets = tuple(self._all_targets(instance))
        return Neighbour(instance, self._adverts[instance], targets)


def _nobody() -> None:
    """Nobody waits for news."""


def label(instance: InstanceId) -> str:
    """Return the first label of the service's and the host's name of an agent."""
    return LABEL_PREFIX + instance.hex()


def _instance(text: str) -> InstanceId | None:
    """Return whose label it is; DNS does not tell capitals apart."""
    digits = text.lower().removeprefix(LABEL_PREFIX)
    try:
        instance = InstanceId(bytes.fromhex(digits))
    except ValueError:
        return None
    return instance if text.lower() == label(instance) else None


def _targets(heard: Heard, interface: Interface) -> tuple[Target, ...]:
    """Return the addresses that lead to a machine on this link, IPv4 first."""
    found: dict[Target, int] = {}
    for text in heard.addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if interface.reaches(address):
            scope = f"%{interface.name}" if address.is_link_local else ""
            host = f"{address}{scope if address.version == 6 else ''}"
            found[Target(host, heard.port)] = address.version
    return tuple(sorted(found, key=lambda t: (found[t], t))[:MAX_TARGETS_A_LINK])
