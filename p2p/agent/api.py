"""The local API: what may be asked of a running agent, as JSON over HTTP.

It is served on a Unix socket, and whoever may open that socket may command. The
commands of `p2p` are its clients, so there is no second truth.

    GET  /status      all of the agent
    GET  /peers       its neighbours
    POST /enable      share, and look for neighbours; /disable: neither
    POST /follow      {"refspec", "deploy"}; /unfollow: {"refspec"}
    POST /check       {"refspec" or null}: look for a new head now
    POST /deploy      {"refspec"}; /rollback
    POST /history     {"after": number}: the steps of updates behind an event
    GET  /limits      what is limited, and who said so
    POST /limits      {"set": {setting: text}, "until": seconds since 1970 or null}
    POST /limits/reset  {"settings": [setting, …]}; none is all
    POST /reload      read the configuration again
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from p2p.agent.config import Follow, parse_refspec
from p2p.errors import Error, FormatError
from p2p.ostree.disk import disk_error
from p2p.web.server.exchange import Handler, Request, Response, as_json
from p2p.web.server.router import Router

_MAX_BODY_BYTES = 1 << 16
_Body = dict[str, Any]


class Commanded(Protocol):
    """What the API commands: `p2p.agent.daemon.Agent`."""

    async def status(self) -> _Body:
        """Return all that is known."""

    def peers(self) -> _Body:
        """Return who is met."""

    async def enable(self, *, enabled: bool) -> None:
        """Share and look for neighbours, or do neither."""

    async def follow(self, follow: Follow) -> None:
        """Keep up with a branch."""

    async def unfollow(self, refspec: str) -> None:
        """Keep up with it no more."""

    def check(self, refspec: str | None) -> None:
        """Look for a new head of one branch, or of all."""

    async def deploy(self, refspec: str) -> _Body:
        """Deploy the head of a branch."""

    async def rollback(self) -> _Body:
        """Go back to the deployment before."""

    async def history(self, after: int) -> _Body:
        """Return the steps of updates."""

    def limits(self) -> _Body:
        """Return what is limited."""

    async def set_limits(self, texts: Mapping[str, str], until: float | None) -> None:
        """Have limits hold until a time or further notice."""

    async def reset_limits(self, names: Sequence[str]) -> None:
        """Have configured limits hold again."""

    async def reload(self) -> _Body:
        """Read the configuration again."""


class Api:
    """The requests and what each has the agent do."""

    def __init__(self, agent: Commanded) -> None:
        """Command this agent; `router` answers the requests."""
        self._agent = agent
        self.router = Router()
        for method, path, command in (
            ("GET", "/status", self._status),
            ("GET", "/peers", self._peers),
            ("POST", "/enable", self._enable),
            ("POST", "/disable", self._disable),
            ("POST", "/follow", self._follow),
            ("POST", "/unfollow", self._unfollow),
            ("POST", "/check", self._check),
            ("POST", "/deploy", self._deploy),
            ("POST", "/rollback", self._rollback),
            ("POST", "/history", self._history),
            ("GET", "/limits", self._limits),
            ("POST", "/limits", self._set_limits),
            ("POST", "/limits/reset", self._reset_limits),
            ("POST", "/reload", self._reload),
        ):
            self.router.add(method, path, _answering(command))

    async def _status(self, _: _Body) -> _Body:
        return await self._agent.status()

    async def _peers(self, _: _Body) -> _Body:
        return self._agent.peers()

    async def _enable(self, _: _Body) -> _Body:
        await self._agent.enable(enabled=True)
        return await self._agent.status()

    async def _disable(self, _: _Body) -> _Body:
        await self._agent.enable(enabled=False)
        return await self._agent.status()

    async def _follow(self, body: _Body) -> _Body:
        remote, ref = parse_refspec(_text(body, "refspec"))
        deploy = body.get("deploy", False) is True
        await self._agent.follow(Follow(remote=remote, ref=ref, deploy=deploy))
        return await self._agent.status()

    async def _unfollow(self, body: _Body) -> _Body:
        await self._agent.unfollow(_text(body, "refspec"))
        return await self._agent.status()

    async def _check(self, body: _Body) -> _Body:
        refspec = body.get("refspec")
        self._agent.check(None if refspec is None else _text(body, "refspec"))
        return await self._agent.status()

    async def _deploy(self, body: _Body) -> _Body:
        return await self._agent.deploy(_text(body, "refspec"))

    async def _rollback(self, _: _Body) -> _Body:
        return await self._agent.rollback()

    async def _history(self, body: _Body) -> _Body:
        after = body.get("after", 0)
        if type(after) is not int:
            raise FormatError("the request's 'after' is no number of an event")
        return await self._agent.history(after)

    async def _limits(self, _: _Body) -> _Body:
        return self._agent.limits()

    async def _set_limits(self, body: _Body) -> _Body:
        match body:
            case {"set": dict(said), **rest} if said:
                texts = {name: _text(said, name) for name in said}
            case _:
                raise FormatError("the request lacks an object 'set'")
        match rest.get("until"):
            case None | int() | float() as until:
                await self._agent.set_limits(texts, until)
            case _:
                raise FormatError("the request's 'until' is no time")
        return self._agent.limits()

    async def _reset_limits(self, body: _Body) -> _Body:
        match body.get("settings", []):
            case [*names] if all(isinstance(name, str) for name in names):
                await self._agent.reset_limits(names)
            case _:
                raise FormatError("the request's 'settings' is no list of texts")
        return self._agent.limits()

    async def _reload(self, _: _Body) -> _Body:
        return await self._agent.reload()


def _answering(command: Callable[[_Body], Awaitable[_Body]]) -> Handler:
    """Return a handler that turns our errors into answers which carry them whole."""

    async def answer(request: Request) -> Response:
        try:
            return as_json(200, await command(await _body(request)))
        except OSError as error:
            return _failure(disk_error("this system", error))
        except Error as error:
            return _failure(error)

    return answer


def _failure(error: Error) -> Response:
    status = 400 if isinstance(error, FormatError) else 409
    return as_json(
        status,
        {
            "error": type(error).__name__,
            "message": str(error),
            "hint": error.hint,
            "exit_code": error.exit_code,
        },
    )


async def _body(request: Request) -> _Body:
    data = await request.read(_MAX_BODY_BYTES)
    if not data:
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the request is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise FormatError("the request is not a JSON object")
    return body


def _text(body: _Body, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise FormatError(f"the request lacks a text {key!r}")
    return value
