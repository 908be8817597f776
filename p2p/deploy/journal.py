"""What is remembered of updates: the one under way, what came before, what failed.

One JSON file, replaced as a whole and durable before anything is done that it tells of.
Only the writer changes it; it is readable without a lock. It outlasts what it tells of:
after the system went back, an older version of this program reads it. So `version` and
`bad` keep their meaning in all versions, and a file of a newer version is set aside
but for these.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from p2p.deploy.machine import Job, Step
from p2p.errors import FormatError
from p2p.ostree.objects import Checksum

VERSION = 1
MAX_BYTES = 1 << 20
MAX_EVENTS = 200
MAX_BAD = 50
_MAX_CAUSE = 2000
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


class NewerVersionError(FormatError):
    """The journal is of a newer version of this program.

    Attributes:
        bad: the commits that it says not to try again.

    """

    def __init__(self, version: int, bad: tuple[Checksum, ...]) -> None:
        """Say which version it is."""
        super().__init__(
            f"the journal is of version {version}, and this program knows {VERSION}: "
            "the system was rolled back to an older one",
            hint="It was set aside; the commits that had failed are still known.",
        )
        self.bad = bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        number: they count up, across restarts.
        time: in seconds since 1970, as the clock was.
        boot: id of the boot.
        step: to which step an update came; None: it is no update's.
        refspec, commit: of the update.
        cause: why, for people.

    """

    number: int
    time: float
    boot: str
    step: Step | None
    refspec: str = ""
    commit: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What is remembered.

    Attributes:
        job: the update under way, or the last one.
        events: the last ones, oldest first.
        bad: commits that failed, oldest first; they are not tried again by themselves.
        uncounted: the boot loader does not come back from what does not start.

    """

    job: Job | None = None
    events: tuple[Event, ...] = ()
    bad: tuple[Checksum, ...] = ()
    uncounted: bool = False

    def with_job(self, job: Job, *, time: float) -> Journal:
        """Return the journal with an update as it is now; a new step is an event."""
        journal = replace(self, job=job)
        if job.bad and job.commit not in self.bad:
            journal = replace(journal, bad=(*self.bad, job.commit)[-MAX_BAD:])
        if self.job is not None and _step(self.job) == _step(job):
            return journal
        event = Event(
            number=journal.next_number,
            time=time,
            boot=job.boot,
            step=job.step,
            refspec=job.refspec,
            commit=job.commit,
            cause=job.cause[:_MAX_CAUSE],
        )
        return replace(journal, events=(*journal.events, event)[-MAX_EVENTS:])

    def with_note(self, cause: str, *, time: float, boot: str) -> Journal:
        """Return the journal with an event that is no update's."""
        event = Event(
            number=self.next_number,
            time=time,
            boot=boot,
            step=None,
            cause=cause[:_MAX_CAUSE],
        )
        return replace(self, events=(*self.events, event)[-MAX_EVENTS:])

    def forgiven(self, commit: Checksum) -> Journal:
        """Return the journal with a commit that a person wants to be tried again."""
        return replace(self, bad=tuple(each for each in self.bad if each != commit))

    @property
    def next_number(self) -> int:
        """Return the number of the next event."""
        return self.events[-1].number + 1 if self.events else 1


def _step(job: Job) -> tuple[Step, str, Checksum, str]:
    return job.step, job.cause, job.commit, job.boot


# -- as bytes --------------------------------------------------------------------------


def encode(journal: Journal) -> bytes:
    """Return the bytes of the file."""
    record = {
        "version": VERSION,
        "bad": journal.bad,
        "uncounted": journal.uncounted,
        "job": None if journal.job is None else _encode_job(journal.job),
        "events": [
            {name: getattr(event, name) for name in Event.__slots__}
            for event in journal.events
        ],
    }
    return json.dumps(record, indent=1).encode() + b"\n"


def _encode_job(job: Job) -> dict[str, Any]:
    record = {name: getattr(job, name) for name in Job.__slots__}
    return record | {"cause": job.cause[:_MAX_CAUSE]}


def decode(data: bytes) -> Journal:
    """Return the journal in these bytes.

    Raises:
        NewerVersionError: a newer version of this program wrote them.
        FormatError: they are no journal.

    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"a journal of more than {MAX_BYTES} bytes")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the journal is not JSON: {error}") from None
    match record:
        case {"version": int(version), "bad": list(bad)} if version > VERSION:
            raise NewerVersionError(version, tuple(map(_checksum, bad)))
        case {"version": 1, "bad": list(bad), "job": job, "events": list(events)}:
            return Journal(
                job=None if job is None else _job(job),
                events=tuple(map(_event, events)),
                bad=tuple(map(_checksum, bad)),
                uncounted=record.get("uncounted") is True,
            )
    raise FormatError("not a journal of updates")


def _checksum(value: object) -> Checksum:
    if not isinstance(value, str) or not _CHECKSUM.fullmatch(value):
        raise FormatError("the journal: a commit is none")
    return Checksum(value)


def _step_named(value: object) -> Step:
    if not isinstance(value, str) or value not in tuple(Step):
        raise FormatError("the journal: a step is none")
    return Step(value)


def _job(value: object) -> Job:
    match value:
        case {
            "refspec": str(refspec),
            "commit": commit,
            "before": before,
            "step": step,
            "cause": str(cause),
            "boot": str(boot),
            "tries": int(tries),
            "asked": str(asked),
            "passed": bool(passed),
            "staged": bool(staged),
            "bad": bool(bad),
        }:
            return Job(
                refspec=refspec,
                commit=_checksum(commit),
                before=None if before is None else _checksum(before),
                step=_step_named(step),
                cause=cause,
                boot=boot,
                tries=tries,
                asked=asked,
                passed=passed,
                staged=staged,
                bad=bad,
            )
    raise FormatError("the journal: the update is malformed")


def _event(value: object) -> Event:
    match value:
        case {
            "number": int(number),
            "time": int() | float() as time,
            "boot": str(boot),
            "step": step,
            "refspec": str(refspec),
            "commit": str(commit),
            "cause": str(cause),
        }:
            return Event(
                number=number,
                time=time,
                boot=boot,
                step=None if step is None else _step_named(step),
                refspec=refspec,
                commit=commit,
                cause=cause,
            )
    raise FormatError("the journal: an event is malformed")
