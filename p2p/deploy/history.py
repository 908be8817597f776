"""The steps of updates as JSON values, for the local API and for commands; pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from p2p.deploy.journal import Journal
from p2p.deploy.machine import Job


def describe(journal: Journal, after: int = 0) -> dict[str, Any]:
    """Return the events behind the one of a number, and the last update."""
    return {
        "events": [asdict(each) for each in journal.events if each.number > after],
        "update": None if journal.job is None else describe_job(journal.job),
        "bad": list(journal.bad),
    }


def describe_job(job: Job) -> dict[str, Any]:
    """Return an update."""
    return {
        "refspec": job.refspec,
        "commit": job.commit,
        "before": job.before,
        "step": job.step,
        "cause": job.cause,
        "ended": job.ended,
    }
