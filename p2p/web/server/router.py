"""Finds the handler for a method and path."""

from __future__ import annotations

import re
from collections.abc import Sequence

from p2p.web.server.exchange import Handler, RefusedError, Request, Response

_PLACE = re.compile(r"\{(\w+)(:path)?\}")


class Router:
    """A handler that passes each request on to the handler of its route.

    A template such as `/refs/{ref:path}` names parts of the path: `{name}` is one
    segment, `{name:path}` all that is left. Routes are tried in the order they were
    added. A route for GET answers HEAD too, unless HEAD has one of its own.
    """

    def __init__(self, *, prefixes: Sequence[str] = ("",)) -> None:
        """Serve every route below each of the prefixes, such as `/api/v2`."""
        self._prefix = f"(?:{'|'.join(map(re.escape, prefixes))})"
        self._routes: dict[str, list[tuple[re.Pattern[str], Handler]]] = {}

    def add(self, methods: str, template: str, handler: Handler) -> None:
        """Let the handler answer these methods (`GET POST`) on matching paths."""
        pattern = re.compile(self._prefix + _to_regex(template), re.DOTALL)
        for method in methods.split():
            self._routes.setdefault(method, []).append((pattern, handler))

    async def __call__(self, request: Request) -> Response:
        """Answer the request; RefusedError 404 or 405 when there is no route."""
        handler = self._find(request, request.method)
        if handler is None and request.method == "HEAD":
            handler = self._find(request, "GET")
        if handler is None:
            raise self._no_route(request)
        return await handler(request)

    def _find(self, request: Request, method: str) -> Handler | None:
        for pattern, handler in self._routes.get(method, ()):
            found = pattern.fullmatch(request.path)
            if found is not None:
                request.params = found.groupdict()
                return handler
        return None

    def _no_route(self, request: Request) -> RefusedError:
        allowed = {method for method in self._routes if self._find(request, method)}
        if not allowed:
            return RefusedError(404, "missing_entity", "There is nothing here.")
        if "GET" in allowed:
            allowed.add("HEAD")
        return RefusedError(
            405,
            "method_not_allowed",
            f"{request.method} is not answered here.",
            headers=(("Allow", ", ".join(sorted(allowed))),),
        )


def _to_regex(template: str) -> str:
    regex, at = "", 0
    for place in _PLACE.finditer(template):
        name, rest = place.groups()
        regex += re.escape(template[at : place.start()])
        regex += f"(?P<{name}>{'.+' if rest else '[^/]+'})"
        at = place.end()
    return regex + re.escape(template[at:])
