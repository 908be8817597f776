"""Which services of one type there are on an interface, asked for by multicast.

What the library's own browser does, but for a site in which a hundred devices see a
link at the same moment: there each question lists a hundred known answers, in four
packets, to a hundred hosts. So the more there are, the later and the more unevenly it
is asked again, and whoever hears the same question in time does not ask
(RFC 6762 §7.3). Everything happens in the asyncio thread.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from enum import Enum
from typing import Final

from zeroconf import (  # type: ignore[attr-defined] # exported, but for mypy
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    RecordUpdate,
    RecordUpdateListener,
    Zeroconf,
    current_time_millis,
)

# RFC 6762 §5.2: the first question waits for 20 to 120 ms, the next for at least a
# second after it, and each further one for twice as long.
FIRST_SECONDS: Final = (0.02, 0.12)
SECOND_SECONDS: Final = 1.0
QUESTIONS: Final = 4
# A lost answer is missed sooner in a small site, and costs more in a large one.
SECONDS_EACH: Final = 0.03
MAX_MORE_SECONDS: Final = 3.0
# Records are asked for again once three quarters of their life are over, every tenth.
# Whoever looks first asks for all.
LOOK_SECONDS: Final = 30.0
REFRESH_PERCENT: Final = 75
REPEAT_SECONDS_A_TTL: Final = 0.1

_rng = random.SystemRandom()
_QUERY, _IN = 0, 1
_A, _PTR, _AAAA, _NSEC = 1, 12, 28, 47


def pause_after(asked: int, known: int, chance: float) -> float:
    """Return when to ask again, after so many questions, in a site of so many.

    Half of what a large site waits longer is the same for all, so that who says
    something twice was heard; `chance`, 0 to 1, spreads the rest.
    """
    more = min(known * SECONDS_EACH, MAX_MORE_SECONDS) * (1 + chance) / 2
    return (SECOND_SECONDS + more) * 2 ** float(asked - 1)


class News(Enum):
    """What became of a service."""

    FOUND = "it is there"
    CHANGED = "a record of it is new, or replaces another"
    LOST = "it said goodbye, or was not heard of for too long"


class Watch(RecordUpdateListener):
    """Asks for services of one type and tells which there are."""

    def __init__(
        self,
        zeroconf: Zeroconf,
        service: str,
        tell: Callable[[str, News], None],
        *,
        asks: bool = True,
        every: float = math.inf,
    ) -> None:
        """Begin to ask, if it `asks`, and go on to `every` so many seconds.

        `tell` gets the names of services, with all records that came with them.
        """
        super().__init__()
        self._zeroconf = zeroconf
        self._service = service
        self._suffix = f".{service}".lower()
        self._tell = tell
        self._news: dict[str, News] = {}
        self._asked = 0
        self._asked_at = 0.0
        self._begun_at = 0.0
        self._chance = 0.0
        self._loop = asyncio.get_running_loop()
        zeroconf.async_add_listener(self, None)
        self._every = every
        self._timer: asyncio.TimerHandle | None = None
        if asks:
            self._timer = self._after(_rng.uniform(*FIRST_SECONDS), self._begin)

    def close(self) -> None:
        """Ask and tell no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._zeroconf.async_remove_listener(self)

    # -- asking ------------------------------------------------------------------------

    def _after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, call)

    def _begin(self) -> None:
        """Ask some times, ever later; then only for what is about to expire."""
        # How many there are may have become clear only since the last question.
        pause = pause_after(self._asked, len(self._pointers()), self._chance)
        due = self._begun_at + pause
        if self._asked and due > self._loop.time():
            self._timer = self._loop.call_at(due, self._begin)
            return
        self._ask()
        self._asked += 1
        self._begun_at = self._loop.time()
        self._chance = _rng.random()
        if self._asked < QUESTIONS:
            self._timer = self._after(SECOND_SECONDS, self._begin)
        else:
            self._timer = self._after(LOOK_SECONDS, self._refresh)

    def _refresh(self) -> None:
        now = current_time_millis()
        if now >= self._asked_at + self._every * 1000:
            self._ask()
        for pointer in self._pointers():
            due = pointer.get_expiration_time(REFRESH_PERCENT)
            again = self._asked_at + pointer.ttl * 1000 * REPEAT_SECONDS_A_TTL
            if max(due, again) <= now:
                self._ask()
                break
        pause = _rng.uniform(LOOK_SECONDS / 2, LOOK_SECONDS)
        self._timer = self._after(pause, self._refresh)

    def _pointers(self) -> list[DNSPointer]:
        found = self._zeroconf.cache.get_all_by_details(self._service, _PTR, _IN)
        return [record for record in found if isinstance(record, DNSPointer)]

    def _ask(self) -> None:
        """Ask who is there, but for those known well, unless somebody just did."""
        now = self._asked_at = current_time_millis()
        question = DNSQuestion(self._service, _PTR, _IN)
        known = {each for each in self._pointers() if not each.is_stale(now)}
        history = self._zeroconf.question_history
        if history.suppresses(question, now, set(known)):
            return
        history.add_question_at_time(question, now, set(known))
        query = DNSOutgoing(_QUERY, multicast=True)
        query.add_question(question)
        for pointer in known:
            query.add_answer_at_time(pointer, now)
        self._zeroconf.async_send(query)

    # -- hearing -----------------------------------------------------------------------

    def async_update_records(
        self,
        zc: Zeroconf,  # noqa: ARG002 - the library's signature
        now: float,
        records: list[RecordUpdate],
    ) -> None:
        """Take note of a packet's records; called before they are in the cache."""
        for update in records:
            record, is_known = update.new, update.old is not None
            if isinstance(record, DNSPointer):
                if record.key != self._service:
                    continue
                if not is_known:
                    self._news[record.alias] = News.FOUND
                elif record.is_expired(now):
                    self._news.setdefault(record.alias, News.LOST)
            elif record.type == _NSEC or is_known or record.is_expired(now):
                continue  # it says that there is nothing, or nothing new
            elif record.type in (_A, _AAAA):
                services = self._zeroconf.cache.async_entries_with_server(record.name)
                for service in services:
                    self._note_change(service.name)
            else:
                self._note_change(record.name)

    def _note_change(self, name: str) -> None:
        if name.lower().endswith(self._suffix):
            self._news.setdefault(name, News.CHANGED)

    def async_update_records_complete(self) -> None:
        """Tell what came of them; called once they are in the cache."""
        news, self._news = self._news, {}
        for name, what in news.items():
            self._tell(name, what)
