"""What is deployed, and what every form of deploying can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from p2p.ostree.objects import Checksum


class State(StrEnum):
    """What a deployment is to the system, in the order in which they are listed."""

    PENDING = "pending"
    """The next boot takes it."""
    CURRENT = "current"
    """It runs, or is what runs where nothing was booted."""
    PREVIOUS = "previous"
    """A rollback goes to it."""
    OTHER = "other"
    """It is kept for another reason, such as a pin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A commit's tree, ready to run.

    Attributes:
        id: what it is called: `COMMIT.SERIAL`.
        commit: the commit it was made from.
        refspec: the `REMOTE:REF` that it follows, if that is known.
        state: what it is to the system.
        pinned: whether somebody asked to keep it.
        time: when it was deployed, in seconds since 1970, if that is known.
        path: its directory.

    """

    id: str
    commit: Checksum
    refspec: str | None
    state: State
    pinned: bool
    time: int | None
    path: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change led to.

    Attributes:
        deployment: the one that runs now, or from the next boot on.
        changed: False if it was that already, and nothing was done.
        notes: sentences for a person, such as what could not be cleared away.

    """

    deployment: Deployment
    changed: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a place shows of its deployments.

    Attributes:
        running: the commit that runs; None if none of this place does.
        default: the commit that runs after the next boot; where no boot is needed,
            what runs.
        kept: the commits that are deployed.
        boots: whether another commit runs only after a boot.

    """

    running: Checksum | None
    default: Checksum | None
    kept: frozenset[Checksum]
    boots: bool


class Deployer(Protocol):
    """Deploys commits of one repository to one place; every call blocks.

    Reading (`list`) needs no right to write. A change that fails or is killed leaves
    the deployment of before or the new one in force, complete.
    """

    def list(self) -> tuple[Deployment, ...]:
        """Return the deployments: pending, current, previous, then the others.

        Raises:
            DeployError: what is there contradicts itself.

        """
        ...

    def deploy(self, refspec: str, commit: Checksum) -> Outcome:
        """Make a commit what runs; the commit must have been verified.

        Raises:
            DeployError: it cannot be deployed; what ran before still does.
            RepositoryError: the repository or the disk is the reason.

        """
        ...

    def standing(self) -> Standing:
        """Return what runs and what will; errors as `list`."""
        ...

    def claim(self) -> str:
        """Return why another tool is to deploy here, for people; empty if none is.

        Then `deploy` and `rollback` refuse. Errors as `list`.
        """
        ...

    def rollback(self, to: Checksum | None = None) -> Outcome:
        """Make the deployment before the newest one what runs, or the one of a commit.

        Raises:
            DeployError: there is none, or it cannot be made so.
            RepositoryError: the disk is the reason.

        """
        ...

    def pin(self, deployment_id: str, *, pinned: bool = True) -> Outcome:
        """Keep a deployment until it is unpinned; errors as `rollback`."""
        ...
