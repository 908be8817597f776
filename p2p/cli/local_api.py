"""Asks the running agent by its local API."""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any

from p2p.agent.config import SYSTEM_SOCKET, AgentConfig, default_config
from p2p.errors import AgentError, Error, error_named

_ANSWER_SECONDS = 600.0
_MAX_ANSWER_BYTES = 16 << 20


def agent_socket(config: AgentConfig) -> str:
    """Return where the agent is asked: the system's, for a user who runs none."""
    usual = default_config(os.environ, os.geteuid()).socket
    if config.socket == usual and not os.path.exists(usual):
        return SYSTEM_SOCKET if os.path.exists(SYSTEM_SOCKET) else usual
    return config.socket


class _Connection(http.client.HTTPConnection):
    """HTTP over the agent's socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    config: AgentConfig,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    seconds: float = _ANSWER_SECONDS,
) -> dict[str, Any]:
    """Return the agent's answer; with a body, which may be empty, it is a command.

    It may take so many seconds.

    Raises:
        AgentError: no agent answers, or not as it should.
        Error: what the agent reports, of its own class.

    """
    place = agent_socket(config)
    connection = _Connection(place, seconds)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        data = response.read(_MAX_ANSWER_BYTES)
    except FileNotFoundError:
        raise AgentError(f"no agent is running at {place}") from None
    except ConnectionRefusedError:
        raise AgentError(f"the agent at {place} is gone") from None
    except PermissionError:
        raise AgentError(
            f"{place}: this user may not command the agent",
            hint="Run it as root, or as a member of the socket's group.",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise AgentError(f"the agent at {place}: {error}") from None
    finally:
        connection.close()
    return _parse(response.status, data)


def _parse(status: int, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AgentError(f"the agent answered {status} with {data[:200]!r}")
    if status == http.HTTPStatus.OK:
        return answer
    raise _reported(answer)


def _reported(answer: dict[str, Any]) -> Error:
    match answer:
        case {"error": str(kind), "message": str(message), "hint": str(hint)}:
            return error_named(kind, message, hint, default=AgentError)
    return AgentError(f"the agent refused: {answer}")
