"""TreeHub as it is, in memory: no verification, and its own faults included.

Interface and faults: uptane/treehub, as described in its `RefUpdateValidation` (a
branch that exists is never moved without force) and `ObjectResource` (the first
upload of a name wins for ever, detached metadata too).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from p2p.web.server.exchange import RefusedError, Request, Response, text
from p2p.web.server.router import Router

Fault = Callable[[Request], Response | None]


@dataclass
class Upstream:
    """A handler; `fault` may answer in its place."""

    objects: dict[str, bytes] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault | None = None

    def __post_init__(self) -> None:
        self._router = Router(prefixes=("/api/v3",))
        self._router.add("HEAD GET", "/objects/{name:path}", self._get)
        self._router.add("POST", "/objects/{name:path}", self._post)
        self._router.add("GET", "/refs/{ref:path}", self._get_ref)
        self._router.add("POST", "/refs/{ref:path}", self._post_ref)

    def asked(self, method: str) -> list[str]:
        """The paths that were asked for with a method."""
        return [path for asked, path in self.log if asked == method]

    async def __call__(self, request: Request) -> Response:
        self.log.append((request.method, request.path.removeprefix("/api/v3/")))
        answer = self.fault(request) if self.fault is not None else None
        return answer or await self._router(request)

    async def _get(self, request: Request) -> Response:
        data = self.objects.get(request.params["name"])
        if data is None:
            raise RefusedError(404, "object_missing", "object not found")
        return Response(200, (), data)

    async def _post(self, request: Request) -> Response:
        if not request.body.length:
            raise RefusedError(400, "invalid_entity", "no content length")
        data = await request.read(1 << 30)
        name = request.params["name"]
        if name in self.objects:
            raise RefusedError(409, "object_exists", "object already exists")
        self.objects[name] = data
        return Response(204)

    async def _get_ref(self, request: Request) -> Response:
        commit = self.refs.get(request.params["ref"])
        if commit is None:
            raise RefusedError(404, "missing_entity", "ref not found")
        return text(200, commit)

    async def _post_ref(self, request: Request) -> Response:
        ref, commit = request.params["ref"], (await request.read(100)).decode()
        if f"{commit[:2]}/{commit[2:]}.commit" not in self.objects:
            raise RefusedError(412, "commit_missing", "commit does not exist")
        forced = request.headers.get("x-ats-ostree-force") == "true"
        if ref in self.refs and self.refs[ref] != commit and not forced:
            return text(412, "Cannot force push")
        self.refs[ref] = commit
        return text(200, commit)
