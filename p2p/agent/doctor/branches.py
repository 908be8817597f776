"""Checks of the followed branches: their remotes, keys, credentials and origins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import trio

from p2p.agent.config import AgentConfig, Follow
from p2p.agent.doctor.finding import Finding, fail, failed, ok, warn
from p2p.agent.remotes import ensure_remote
from p2p.errors import ConfigError, CredentialsError, Error, OriginError
from p2p.ostree.config import RemoteConfig
from p2p.ostree.repo import Repo
from p2p.trust.keys import load_key_file
from p2p.trust.verify import Verifier
from p2p.web.client.credentials import load_credentials
from p2p.web.client.failure import TlsError
from p2p.web.client.fetch import Fetcher
from p2p.web.client.origin import NO_CREDENTIALS, Origin
from p2p.web.client.retry import Retry

# Beyond this a person takes the command for dead.
ORIGIN_SECONDS = 20.0


def find_remote(repo: Repo | None, follow: Follow) -> RemoteConfig:
    """Return a branch's remote, also where the agent has yet to add it.

    Raises:
        ConfigError: it is neither there nor described, or it is described otherwise.

    """
    if repo is not None and follow.remote in repo.remote_names():
        ensure_remote(repo, follow)  # nothing is written of one that is there
        return repo.remote(follow.remote)
    if follow.url is None or follow.key is None:
        if repo is not None:
            return repo.remote(follow.remote)
        raise ConfigError(
            f"remote {follow.remote!r}",
            "there is no repository that has it, and nothing describes it",
            hint="Give `url` and `key` beside its `ref` in [[follow]].",
        )
    if not load_key_file(Path(follow.key)):
        raise ConfigError(follow.key, "no key in it")
    return RemoteConfig(
        name=follow.remote,
        url=follow.url,
        gpg_verify=False,
        sign_verify=("ed25519",),
        options={"verification-ed25519-file": follow.key},
    )


def check_verification(remote: RemoteConfig, repo: Repo | None) -> Finding:
    """Tell whether commits of a remote are believed only when they are signed."""
    check = f"remote {remote.name}"
    directories = [] if repo is None else [Path(repo.path)]
    try:
        verifier = Verifier.for_remote(remote, directories=directories)
    except Error as error:
        return failed(check, error)
    if not verifier.demands_signatures:
        return warn(
            check,
            "its commits are believed without a signature, and neighbours give none",
            f"`p2p remote delete {remote.name}`, then add it with its key: `p2p remote "
            f"add --sign-verify=ed25519=file:PUB {remote.name} {remote.url}`.",
        )
    kinds = {"ed25519": verifier.ed25519, "gpg": verifier.gpg}
    demanded = " and ".join(kind for kind, keys in kinds.items() if keys is not None)
    return ok(check, f"{demanded} signatures are demanded, keys are readable")


async def check_origin(
    fetcher: Fetcher, remote: RemoteConfig, credentials_path: str | None
) -> Finding:
    """Tell whether the origin of a remote answers, and if not, what stands between."""
    check = f"origin {remote.name}"
    credentials = NO_CREDENTIALS
    try:
        if credentials_path is not None:
            credentials = load_credentials(Path(credentials_path))
        origin = Origin(fetcher, remote, credentials=credentials, retry=Retry(tries=1))
        with trio.fail_after(ORIGIN_SECONDS):
            await origin.config()
    except trio.TooSlowError:
        return fail(
            check,
            f"{remote.url}: no answer within {ORIGIN_SECONDS:g} seconds",
            "Check the network and the server; neighbours still give what they have.",
        )
    except Error as error:
        return failed(check, error, before=_stage(error))
    return ok(check, f"{remote.url} answers")


def _stage(error: Error) -> str:
    """Return how far it came."""
    match error:
        case ConfigError():
            return ""
        case CredentialsError():
            return "reached, but the credentials do not do: "
        case TlsError():
            return "reached, but TLS was not agreed on: "
        case OriginError():
            return "reached, but it does not answer as an origin: "
    return "not reached: "


async def check_branches(
    config: AgentConfig, repo: Repo | None, follows: Iterable[Follow]
) -> list[Finding]:
    """Check each remote that is followed, origins all at once."""
    findings: dict[str, list[Finding]] = {}
    async with Fetcher() as fetcher, trio.open_nursery() as nursery:

        async def ask(remote: RemoteConfig) -> None:
            path = config.credentials.get(remote.name)
            findings[remote.name].append(await check_origin(fetcher, remote, path))

        for follow in follows:
            if follow.remote in findings:
                continue
            found = findings[follow.remote] = []
            try:
                remote = find_remote(repo, follow)
            except Error as error:
                found.append(failed(f"remote {follow.remote}", error))
            else:
                found.append(check_verification(remote, repo))
                nursery.start_soon(ask, remote)
    return [finding for found in findings.values() for finding in found]
