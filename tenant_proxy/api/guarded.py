"""What every request goes through before it is answered: who asks, may they, was it asked before."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tenant_proxy.api.callers import Callers, Unauthenticated
from tenant_proxy.api.once import once, request_hash
from tenant_proxy.api.permissions import Principal, authorize
from tenant_proxy.api.problems import problem, problem_of, wrong_values
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Job, Record
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.verbs import Verbs
from tenant_proxy.obs.log import get_logger

T = TypeVar("T")

MAX_BODY_BYTES: Final = 1 << 20
MAX_WAIT_S: Final = 60.0
#: whose bodies are taken as they come
_STREAMED: Final = frozenset({"archive_put"})
#: whose bodies may be longer: the files of all versions are in them
_LONGER: Final = {"migrate": 16 * MAX_BODY_BYTES, "migrate_status": 16 * MAX_BODY_BYTES}
_MINUTE_S: Final = 60.0
#: that failures are counted of
_MAX_ADDRESSES: Final = 10_000

#: what a catalog says, or does not, whose server is being stopped or started
_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

log = get_logger("api")


@dataclass
class Api:
    """What requests have in common."""

    context: Context
    callers: Callers
    failures: Failures
    #: jobs that go on after their request was answered
    working: set[asyncio.Task[Any]] = field(default_factory=set)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """The job's row says what becomes of it; what a task raises is taken so that nobody complains."""
        self.working.add(task)
        task.add_done_callback(self.working.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def stop(self) -> None:
        """Jobs that are not at their end are gone on with by whoever finds them."""
        for task in self.working:
            task.cancel()
        await asyncio.gather(*self.working, return_exceptions=True)


class _TooLarge(Exception):
    def __init__(self, longest: int) -> None:
        super().__init__(longest)
        self.longest = longest


class _TooMany(Exception):
    def __init__(self, left_s: float) -> None:
        super().__init__(left_s)
        self.left_s = left_s


class Failures:
    """Counts, by address, who guesses tokens: so many a minute, and then nothing is looked up for it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: address -> when its minute began, failures since then; the oldest first
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str) -> None:
        began, count = self._counts.get(address, (time.monotonic(), 0))
        if time.monotonic() - began >= _MINUTE_S:
            began, count = time.monotonic(), 0
        self._counts[address] = (began, count + 1)
        while len(self._counts) > _MAX_ADDRESSES:
            self._counts.popitem(last=False)

    def left_s(self, address: str) -> float:
        """For how long it is refused; not at all if not positive."""
        began, count = self._counts.get(address, (0.0, 0))
        if not self._limit or count < self._limit:
            return 0.0
        left = began + _MINUTE_S - time.monotonic()
        if left <= 0:
            del self._counts[address]
        return left


class Guarded(APIRoute):
    """The name of a route's function is the operation that `permissions` knows."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        operation, path = self.name, self.path
        compares = "if_match" in inspect.signature(self.endpoint).parameters
        rehearses = "dry_run" in inspect.signature(self.endpoint).parameters

        async def guarded(request: Request) -> Response:
            api: Api = request.app.state.api
            begun = time.monotonic()
            actor = ""
            address = request.client.host if request.client is not None else ""
            try:
                if (left := api.failures.left_s(address)) > 0:
                    raise _TooMany(left)
                principal = await api.callers.identify(request.headers.get("authorization"))
                actor = principal.actor
                authorize(principal, operation, request.path_params.get("tenant"))
                if not rehearses and request.method != "GET" and "dry_run" in request.query_params:
                    raise Failure("invalid", "that can't be rehearsed")  # rather than done
                if not compares and request.method != "GET" and version_of(request) is not None:
                    raise Failure("stale", "that has no tag which If-Match could name")  # rather than done
                response = await _answer(api, principal, operation, request, handle)
            except _TooMany as error:
                response = problem(
                    429,
                    "too_many",
                    "this address has sent too many requests without a good token",
                    headers={"Retry-After": str(math.ceil(error.left_s))},
                )
            except Unauthenticated:
                api.failures.note(address)
                challenge = {"WWW-Authenticate": 'Bearer realm="tenant_proxy"'}
                response = problem(
                    401, "unauthenticated", "no token, or none that is good", headers=challenge
                )
            except _TooLarge as error:
                response = problem(413, "too_large", f"the body has more than {error.longest} bytes")
            except Failure as failure:
                response = problem_of(failure)
            except ClientDisconnect:  # nobody reads it, but the log
                response = problem(400, "malformed", "the body has not come whole")
            except _AWAY:
                response = problem_of(Failure("unavailable", "the catalog can't be reached"))
            except Exception as error:  # the place is enough to find it; the text may hold what it should not
                log.error("internal error", reason=type(error).__name__, place=_place(error))
                response = problem(500, "internal", "please report it; the log says where it was")
            took = round(time.monotonic() - begun, 4)
            log.info(
                "request",
                method=request.method,
                path=path,
                status=response.status_code,
                user=actor,
                took_s=took,
            )
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return guarded


async def _answer(
    api: Api,
    principal: Principal,
    operation: str,
    request: Request,
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
) -> Response:
    request.state.principal = principal
    request.state.verbs = Verbs(api.context.acting_as(principal.actor))
    # an archive is not gathered: its route takes it as it comes
    body = b"" if operation in _STREAMED else await _read(request, operation)

    async def answer() -> Response:
        try:
            return await handle(request)
        except Failure as failure:
            return problem_of(failure)
        except RequestValidationError as error:
            return wrong_values(error.errors())
        except HTTPException as error:  # of a body that is not even text
            return problem(error.status_code, "malformed", "the body can't be read")
        except (asyncpg.DataError, UnicodeError, OverflowError):
            return problem(422, "invalid", "there is a value that PostgreSQL can't hold")

    key = request.headers.get("idempotency-key")
    if key is None or request.method != "POST":
        return await answer()
    target = f"{request.url.path}?{request.url.query}"
    asked = request_hash(request.method, target, body)
    return await once(api.context.store, principal.actor, key, asked, answer)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"


async def _read(request: Request, operation: str) -> bytes:
    """The body, which is not read further than it may be long."""
    parts, size, longest = [], 0, _LONGER.get(operation, MAX_BODY_BYTES)
    async for part in request.stream():
        size += len(part)
        if size > longest:
            raise _TooLarge(longest)
        parts.append(part)
    # where Request keeps it for those who ask again
    body = request._body = b"".join(parts)
    return body


# --- for routes ----------------------------------------------------------------------------------------


def verbs_of(request: Request) -> Verbs:
    verbs = request.state.verbs
    assert isinstance(verbs, Verbs)
    return verbs


def principal_of(request: Request) -> Principal:
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


def answer_of(record: Record | None, status: int = 200, **headers: str) -> Response:
    """204 where there is nothing to tell."""
    if record is None:
        return Response(status_code=204)
    return JSONResponse(
        record.to_json(), status, headers={key.title(): value for key, value in headers.items()}
    )


def version_of(request: Request) -> int | None:
    """Of If-Match: what the caller has read, and wants to change."""
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    match = re.fullmatch(r'"(\d{1,18})"', given.strip())
    if match is None:
        raise Failure("stale", "If-Match has no tag of this API", detail='a tag is "NUMBER"')
    return int(match[1])


def digest(said: object) -> str:
    """A tag for what has no version of its own: it can be read again by it, and not be changed."""
    text = json.dumps(said, sort_keys=True, default=str).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def tagged(
    request: Request, record: Record, version: int | str, status: int = 200, **headers: str
) -> Response:
    """With its ETag; 304 for a reader who has it already."""
    tag = f'"{version}"'
    if request.method == "GET" and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag})
    response = answer_of(record, status, **headers)
    response.headers["ETag"] = tag
    return response


async def started(
    request: Request, verb: Callable[[Verbs], Awaitable[Record | None]], *, dry_run: bool = False
) -> Response:
    """The verb's answer, if it is there at once or within `Prefer: wait=SECONDS`; else 202 and its job."""
    if dry_run:
        return await rehearsed(request, verb)
    api: Api = request.app.state.api
    verbs = verbs_of(request)
    begun: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
    verbs.context.began = lambda job: None if begun.done() else begun.set_result(job)
    task = asyncio.ensure_future(_awaited(verb(verbs)))
    api.keep(task)
    await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await asyncio.wait((task,), timeout=_wait_s(request))
    if task.done():
        return answer_of(task.result())
    job = begun.result()
    return answer_of(job, 202, location=f"/v1/jobs/{job.id}")


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _wait_s(request: Request) -> float:
    match = re.search(r"\bwait=(\d{1,4})\b", request.headers.get("prefer", ""))
    return min(float(match[1]), MAX_WAIT_S) if match else 0.0


class Rehearsed(Record):
    """What would be run on clusters, or where it is all, in the catalog; nothing was changed anywhere."""

    sql: list[str]


async def answered(
    request: Request,
    verb: Callable[[Verbs], Awaitable[T]],
    shown: Callable[[T], Response],
    *,
    dry_run: bool,
) -> Response:
    """The verb's answer, `shown`; with `dry_run` what it would have run."""
    return await rehearsed(request, verb) if dry_run else shown(await verb(verbs_of(request)))


async def rehearsed(request: Request, verb: Callable[[Verbs], Awaitable[object]]) -> Response:
    async with verbs_of(request).context.rehearsing() as rehearsal:
        await verb(Verbs(rehearsal))
    assert rehearsal.rehearsal is not None
    return answer_of(Rehearsed(sql=rehearsal.rehearsal.shown()))
