"""A server that clients of TreeHub take for one, kept in an OSTree repository.

Interface: uptane/treehub, `src/main/scala/com/advancedtelematic/treehub/http`. Unlike
it, every object is verified as it comes in, a 204 means that it survives a power cut,
a ref only ever names a complete commit, a fast-forward is told from a rewrite, and
signatures made after a push are added.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Sequence

import trio

from p2p.errors import (
    Error,
    FormatError,
    IntegrityError,
    LockedError,
    NoSpaceError,
)
from p2p.ostree.objects import (
    ObjectName,
    ObjectType,
    parse_checksum,
    parse_object_path,
)
from p2p.ostree.refs import RefPath, head
from p2p.trust.sign import MAX_COMMITMETA_BYTES
from p2p.web.server.access_log import AccessLog
from p2p.web.server.exchange import (
    Handler,
    RefusedError,
    Request,
    Response,
    as_json,
    text,
)
from p2p.web.server.files import file_response
from p2p.web.server.guard import Guard
from p2p.web.server.http1 import Server
from p2p.web.server.limits import Limits
from p2p.web.server.listen import name_of, open_listeners
from p2p.web.server.router import Router
from p2p.web.treehub.multipart import MultipartField, boundary_of
from p2p.web.treehub.store import (
    DEFAULT_NAMESPACE,
    IncompleteCommitError,
    NotFastForwardError,
    Store,
    Stores,
    UnknownCommitError,
)

_log = logging.getLogger(__name__)

PREFIXES = ("", "/api/v2", "/api/v3")
_CONFIG = "\n[core]\nrepo_version=1\nmode=archive-z2\nindexed-deltas=true\n\n"
_MAX_REF_BODY_BYTES = 256
_MAX_MANIFEST_BYTES = 4 << 20
_HEALTH = "/health"
_METHODS = "GET HEAD POST PUT DELETE"


class TreeHub:
    """The handlers of TreeHub's interface over some stores."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.router = Router(prefixes=PREFIXES)
        self.router.add("GET", "/objects/{prefix}/{rest}", _answering(self._get))
        self.router.add("HEAD", "/objects/{prefix}/{rest}", _answering(self._head))
        self.router.add("POST", "/objects/{prefix}/{rest}", _answering(self._post))
        self.router.add("GET", "/refs/{ref:path}", _answering(self._get_ref))
        self.router.add("POST", "/refs/{ref:path}", _answering(self._post_ref))
        self.router.add("PUT", "/manifests/{commit}", _answering(self._put_manifest))
        self.router.add(_METHODS, "/config", _get_config)
        self.router.add("GET", _HEALTH, _get_health)

    def _store(self, request: Request, *, create: bool = False) -> Store:
        namespace = request.headers.get("x-ats-namespace", DEFAULT_NAMESPACE)
        store = self._stores.get(namespace, create=create)
        if store is None:
            raise _not_found("missing_entity", "This namespace holds nothing yet.")
        return store

    # -- objects ---------------------------------------------------------------

    async def _get(self, request: Request) -> Response:
        name = _object_name(request)
        try:
            return file_response(request, self._store(request).repo.object_path(name))
        except FileNotFoundError:
            if request.headers.get("user-agent", "").startswith("libostree/"):
                # With a mirror list, release 2022.7 puts what the next mirror sends
                # behind the body of this answer, and takes both for the object.
                return Response(404)
            raise _not_found("object_missing", f"There is no object {name}.") from None

    async def _head(self, request: Request) -> Response:
        if not await self._store(request).has(_object_name(request)):
            raise _not_found("object_missing", "There is no such object.")
        return await self._get(request)

    async def _post(self, request: Request) -> Response:
        name = _object_name(request)
        if "x-ats-accept-redirect" in request.headers:
            raise RefusedError(
                400,
                "out_of_band_storage_not_supported",
                "Send the object itself; there is nowhere to redirect to.",
            )
        boundary = boundary_of(request.headers.get("content-type", ""))
        body: AsyncIterator[bytes] = aiter(request.body)
        length = request.body.length
        if length == 0:
            raise RefusedError(400, "invalid_entity", "The object is empty.")
        if boundary is not None:
            body, length = MultipartField(body, boundary, "file"), None
        store = self._store(request, create=True)
        if name.type is ObjectType.COMMITMETA:
            data = await _read(body, MAX_COMMITMETA_BYTES)
            new = await store.put_detached(name.checksum, data)
        else:
            new = await store.put(name, body, length)
        if not new:
            raise RefusedError(409, "object_exists", f"{name} is here already.")
        return Response(204 if boundary is None else 200)

    # -- refs ------------------------------------------------------------------

    async def _get_ref(self, request: Request) -> Response:
        commit = self._store(request).get_ref(_ref_path(request))
        if commit is None:
            raise _not_found("missing_entity", "There is no such ref.")
        return text(200, commit)

    async def _post_ref(self, request: Request) -> Response:
        ref = _ref_path(request)
        if not ref.startswith("heads/"):
            raise FormatError(f"only heads are set here, not {ref}")
        body = await request.read(_MAX_REF_BODY_BYTES)
        commit = parse_checksum(body.decode("ascii", "replace").strip())
        force = "true" in request.headers.get("x-ats-ostree-force", "").lower()
        store = self._store(request, create=True)
        await store.set_ref(ref, commit, force=force)
        return text(200, commit)

    async def _put_manifest(self, request: Request) -> Response:
        commit = parse_checksum(request.params["commit"])
        data = await request.read(_MAX_MANIFEST_BYTES)
        await self._store(request, create=True).put_manifest(commit, data)
        return Response(200)


async def _get_config(_request: Request) -> Response:
    return text(200, _CONFIG)


async def _get_health(_request: Request) -> Response:
    return as_json(200, {"status": "OK"})


def _object_name(request: Request) -> ObjectName:
    path = f"{request.params['prefix']}/{request.params['rest']}"
    try:
        name = parse_object_path(path)
    except FormatError:
        raise _not_found("missing_entity", "That is not an object's path.") from None
    if path.endswith(".file"):
        raise _not_found("missing_entity", "Files are kept as .filez here.")
    return name


def _ref_path(request: Request) -> RefPath:
    kind, _, name = request.params["ref"].partition("/")
    if kind not in ("heads", "mirrors", "remotes"):
        raise _not_found("missing_entity", "Refs are below heads, mirrors or remotes.")
    return RefPath(f"{kind}/{head(name).removeprefix('heads/')}")


async def _read(body: AsyncIterator[bytes], limit: int) -> bytes:
    data = b""
    async for piece in body:
        data += piece
        if len(data) > limit:
            raise RefusedError(413, "too_large", f"The body exceeds {limit} bytes.")
    return data


def _not_found(code: str, description: str) -> RefusedError:
    return RefusedError(404, code, description)


# The first class that fits decides.
_STATUS: tuple[tuple[type[Error], int, str], ...] = (
    (UnknownCommitError, 412, "commit_missing"),
    (IncompleteCommitError, 412, "commit_incomplete"),
    (NotFastForwardError, 412, "not_fast_forward"),
    (FormatError, 400, "invalid_entity"),
    (IntegrityError, 400, "invalid_entity"),
    (NoSpaceError, 507, "insufficient_storage"),
    (LockedError, 503, "locked"),
    (Error, 500, "internal_server_error"),
)


def _answering(handler: Handler) -> Handler:
    """Return the handler with our errors turned into TreeHub's answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Error as error:
            raise _refusal(request, error) from error

    return answer


def _refusal(request: Request, error: Error) -> RefusedError:
    status, code = next((s, c) for kind, s, c in _STATUS if isinstance(error, kind))
    if status >= 500:
        _log.error("%s %s: %s", request.method, request.path, error)
    return RefusedError(status, code, str(error))


async def serve_treehub(
    store: str,
    listen: str,
    *,
    credentials: Sequence[str] = (),
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    access_log: AccessLog | None = None,
    shutdown: trio.Event | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a store until `shutdown` is set (or this is cancelled).

    Args:
        store: directory of the store; made if it is missing.
        listen: address, as `p2p.web.server.listen` takes it.
        credentials: what is demanded, as `guard.load_credentials` returns it.
        tls: context from `guard.server_context`.
        limits: what a client may cost.
        access_log: is told of every request.
        shutdown: ends accepting; requests that run are finished.
        task_status: is given the URLs that can be used.

    Raises:
        ConfigError: the address or the store cannot be used.
        ReadOnlyError, NoSpaceError, RepositoryError: as the disk says.

    """
    listeners = open_listeners(listen)
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        stores = Stores(store)
        stack.callback(stores.close)
        handler: Handler = TreeHub(stores).router
        if credentials:
            handler = Guard(handler, credentials, open_paths=frozenset({_HEALTH}))
        server = Server(handler, limits=limits, tls=tls, access_log=access_log)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stores.run)
            scheme = "https" if tls else "http"
            task_status.started(
                [f"{scheme}://{name_of(each.getsockname())}" for each in listeners]
            )
            await server.serve(listeners, shutdown=shutdown)
            nursery.cancel_scope.cancel()
