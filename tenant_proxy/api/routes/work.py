"""Jobs, the log of changes, and the API's own tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import AwareDatetime

from tenant_proxy.api.cursors import after_time, before, cursor_of, cursor_of_two
from tenant_proxy.api.guarded import (
    Rehearsed,
    answer_of,
    answered,
    digest,
    principal_of,
    started,
    tagged,
    verbs_of,
)
from tenant_proxy.api.permissions import other_tenant
from tenant_proxy.api.routes.common import STARTED, Cursor, DryRun, Key, Limit, Prefer, router
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import AuditEntry, Job, JobState, Record, Token
from tenant_proxy.lifecycle.records import Every, IssuedToken, NewToken, Verification
from tenant_proxy.lifecycle.usage import Invoice, Used

routes = router("work")
JobPath = Annotated[int, Path(ge=1, le=2**53, description="Its number.", examples=[1])]

#: a job is looked at so often for those who watch it, and for so long at most
_EVENTS_EVERY_S: Final = 0.5
_EVENTS_S: Final = 600.0


class Jobs(Record):
    items: list[Job]
    next: str | None = None
    """Cursor of the next page; null on the last."""


class AuditEntries(Record):
    items: list[AuditEntry]
    next: str | None = None
    """Cursor of the next page; null on the last."""


class Tokens(Record):
    items: list[Token]


class Usage(Record):
    items: list[Used]
    next: str | None = None
    """Cursor of the next page; null on the last."""


class Invoices(Record):
    items: list[Invoice]


class Whoami(Record):
    actor: str
    role: str
    tenant: str | None = None


@routes.get("/whoami", response_model=Whoami, summary="Who asks, and as what")
async def whoami(request: Request) -> Any:
    principal = principal_of(request)
    return Whoami(actor=principal.actor, role=principal.role.value, tenant=principal.tenant)


# --- jobs


async def _job(request: Request, number: int) -> Job:
    """A tenant's admin sees jobs of that tenant, and not whether there are others."""
    own = principal_of(request).tenant
    if own is None:
        return await verbs_of(request).job_show(number)
    try:
        job = await verbs_of(request).job_show(number)
        tenant = await verbs_of(request).tenant_get(own)
    except Failure as failure:
        if failure.code != "not_found":
            raise
        raise other_tenant(principal_of(request)) from None
    if job.tenant != tenant.id:
        raise other_tenant(principal_of(request))
    return job


@routes.get("/jobs", response_model=Jobs, summary="Jobs, the newest first")
async def job_list(
    request: Request,
    tenant: str | None = None,
    state: JobState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Any:
    own = principal_of(request).tenant
    verbs = verbs_of(request)
    found = await verbs.job_list(tenant=own or tenant, state=state, before=before(cursor), limit=limit + 1)
    next_ = cursor_of(found[limit - 1].id) if len(found) > limit else None
    found = found[:limit]
    if own is not None:  # not those of another that had this name once
        number = (await verbs.tenant_get(own)).id
        found = [job for job in found if job.tenant == number]
    return Jobs(items=found, next=next_)


@routes.get("/jobs/{job}", response_model=Job, summary="One job: its steps, and what became of it")
async def job_show(request: Request, job: JobPath) -> Any:
    found = await _job(request, job)
    response = tagged(request, found, digest(found.to_json()))
    if found.is_open:
        response.headers["Retry-After"] = "1"
    return response


@routes.get(
    "/jobs/{job}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    summary="One job, as server-sent events until it ends",
)
async def job_events(request: Request, job: JobPath) -> StreamingResponse:
    """An event `job` with the job as JSON, at once and whenever it changes."""
    first = await _job(request, job)

    async def events() -> AsyncIterator[str]:
        found, deadline = first, asyncio.get_running_loop().time() + _EVENTS_S
        yield _event(found)
        while found.is_open and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_EVENTS_EVERY_S)
            seen, found = found.updated_at, await verbs_of(request).job_show(job)
            yield _event(found) if found.updated_at != seen else ": still at it\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _event(job: Job) -> str:
    return f"event: job\nid: {job.position}\ndata: {json.dumps(job.to_json())}\n\n"


@routes.post(
    "/jobs/{job}/resume",
    response_model=Job | Rehearsed,
    responses=STARTED,
    summary="Goes on with a job that failed",
)
async def job_resume(
    request: Request, job: JobPath, key: Key = None, prefer: Prefer = None, dry_run: DryRun = False
) -> Response:
    return await _worked(request, job, undo=False, dry_run=dry_run)


@routes.post(
    "/jobs/{job}/undo",
    response_model=Job | Rehearsed,
    responses=STARTED,
    summary="Undoes what a job has done",
)
async def job_undo(
    request: Request, job: JobPath, key: Key = None, prefer: Prefer = None, dry_run: DryRun = False
) -> Response:
    return await _worked(request, job, undo=True, dry_run=dry_run)


async def _worked(request: Request, number: int, *, undo: bool, dry_run: bool) -> Response:
    verbs = verbs_of(request)
    found = await verbs.job_show(number)

    async def verb(verbs: Any) -> Job:
        work = asyncio.ensure_future(verbs.job_undo(number) if undo else verbs.job_resume(number))
        await asyncio.wait((work,), timeout=0.05)  # what is refused is refused at once
        if not work.done():
            verbs.context.began(found)
        done = await work
        assert isinstance(done, Job)
        return done

    return await started(request, verb, dry_run=dry_run)


# --- the log of changes


@routes.get("/audit", response_model=AuditEntries, summary="Who changed what, the newest first")
async def audit_log(
    request: Request,
    kind: Annotated[str | None, Query(description="tenant, plan, login, access, job, token …")] = None,
    name: Annotated[str | None, Query(description="Of one of them.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Any:
    """A tenant's admin sees what was done to the tenant itself."""
    own, verbs = principal_of(request).tenant, verbs_of(request)
    if own is not None:
        kind, name = "tenant", own
    found = await verbs.audit_log(kind=kind, name=name, before=before(cursor), limit=limit + 1)
    next_ = cursor_of(found[limit - 1].id) if len(found) > limit else None
    found = found[:limit]
    if own is not None:  # not what was done to another that had this name once
        since = (await verbs.tenant_get(own)).created_at
        found = [entry for entry in found if entry.at >= since]
    return AuditEntries(items=found, next=next_)


@routes.get("/audit/verify", response_model=Verification, summary="Whether the log is as it was written")
async def audit_verify(
    request: Request,
    head: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="A hash noted earlier, which must be in it.")
    ] = None,
) -> Any:
    return await verbs_of(request).audit_verify(head)


# --- usage


def _of(request: Request, tenant: list[str]) -> list[str] | None:
    own = principal_of(request).tenant
    return [own] if own is not None else tenant or None


@routes.get("/usage", response_model=Usage, summary="What tenants have used")
async def usage_show(
    request: Request,
    since: Annotated[AwareDatetime, Query(examples=["2026-11-01T00:00:00Z"])],
    until: Annotated[AwareDatetime, Query(description="Before this.", examples=["2026-12-01T00:00:00Z"])],
    tenant: Annotated[list[str], Query(description="May be given again; all if not.")] = [],  # noqa: B006
    every: Annotated[Every, Query(description="What rows are summed over.")] = Every.ALL,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Any:
    """By time and tenant."""
    found = await verbs_of(request).usage_show(
        since, until, tenants=_of(request, tenant), every=every, after=after_time(cursor), limit=limit + 1
    )
    last = found[limit - 1] if len(found) > limit else None
    next_ = None if last is None else cursor_of_two(last.since.isoformat(), last.tenant)
    return Usage(items=found[:limit], next=next_)


@routes.get("/usage/invoices", response_model=Invoices, summary="What a month comes to; nobody is charged")
async def usage_invoices(
    request: Request,
    month: Annotated[str, Query(pattern="^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])$", examples=["2026-11"])],
    tenant: Annotated[list[str], Query(description="May be given again; all if not.")] = [],  # noqa: B006
) -> Any:
    return Invoices(items=await verbs_of(request).usage_invoices(month, _of(request, tenant)))


# --- tokens


@routes.get("/tokens", response_model=Tokens, summary="The API's tokens, without their secrets")
async def token_list(request: Request) -> Any:
    return Tokens(items=await verbs_of(request).token_list())


@routes.post(
    "/tokens",
    response_model=IssuedToken,
    status_code=201,
    responses={200: {"model": Rehearsed}},
    summary="Makes a token",
)
async def token_create(
    request: Request, body: NewToken, key: Key = None, dry_run: DryRun = False
) -> Response:
    """Its secret is in this answer alone."""
    return await answered(
        request,
        lambda verbs: verbs.token_create(
            body.name, body.role, tenant=body.tenant, expires_at=body.expires_at
        ),
        lambda made: answer_of(made, 201),
        dry_run=dry_run,
    )


@routes.delete(
    "/tokens/{token}",
    status_code=204,
    responses={200: {"model": Rehearsed}},
    summary="A token is good no longer",
)
async def token_revoke(
    request: Request, token: Annotated[str, Path(examples=["ci"])], dry_run: DryRun = False
) -> Response:
    return await answered(request, lambda verbs: verbs.token_revoke(token), answer_of, dry_run=dry_run)
