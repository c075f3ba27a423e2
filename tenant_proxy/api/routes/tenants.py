"""Tenants, from their first day to their last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request
from fastapi.responses import Response
from pydantic import Field

from tenant_proxy.api.cursors import after, cursor_of
from tenant_proxy.api.guarded import (
    Rehearsed,
    answer_of,
    answered,
    digest,
    principal_of,
    started,
    tagged,
    verbs_of,
    version_of,
)
from tenant_proxy.api.routes.common import (
    STARTED,
    Cursor,
    DryRun,
    IfMatch,
    Key,
    Limit,
    Prefer,
    TenantPath,
    labels_of,
    router,
)
from tenant_proxy.catalog.records import Job, Name, Record, Tenant
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import PgName
from tenant_proxy.lifecycle.records import NewAccess, NewTenant, Onboarded, TenantDetails

routes = router("tenants")


class Tenants(Record):
    items: list[Tenant]
    next: str | None = None
    """Cursor of the next page; null on the last."""


class TenantPatch(Record):
    plan: str | None = None
    """Another; empty: none."""
    labels: dict[str, str | None] | None = None
    """Merged over those it has; null takes one away."""
    sni: list[str] | None = None
    spec: dict[str, Any] | None = None
    """Merged over its own values; null takes one away."""


class Rename(Record):
    name: Name


class Reason(Record):
    reason: str = ""
    """Told to those who are refused."""


class Clone(Record):
    name: Name
    """Of the new tenant."""
    cluster: str | None = None
    database: PgName | None = None
    labels: dict[str, str | None] | None = None
    accept: bool = False
    """Also where something can't be brought along as it is."""


class Move(Record):
    cluster: str
    pause_s: Annotated[float, Field(gt=0, le=86400)] | None = None
    """How long clients are to wait at most; 60 if null."""
    force: bool = False
    """Ends sessions that hold a connection, after the tenant's grace time, rather than give up."""


class Adopt(Record):
    logins: list[PgName] = Field(default_factory=list)
    """Roles of the server that are the tenant's already."""
    accept: bool = False
    """Also where something breaks isolation that no rule mends."""


class ScanProblem(Record):
    """What keeps a schema from being the tenant's alone."""

    weight: Literal["breaks", "doubt", "note"]
    kind: str
    """What kind of thing it is, a stable word."""
    object: str
    """As SQL names it."""
    what: str
    mend: str
    """SQL that mends it; empty where somebody has to decide."""


class Scan(Record):
    items: list[ScanProblem]


class Erase(Record):
    at_once: bool = False
    """Before its grace is over."""
    cascade: bool = False
    """With objects of others that depend on its own."""


class Onboard(Record):
    tenant: NewTenant
    access: NewAccess


def _shown(request: Request) -> Callable[[Tenant], Response]:
    """With the tag that it has now."""
    return lambda tenant: tagged(request, tenant, tenant.version)


@routes.get("/tenants", response_model=Tenants, summary="Tenants, by name")
async def tenant_list(
    request: Request,
    state: Annotated[list[State], Query(description="May be given again; all but erased ones if not.")] = [],  # noqa: B006 (FastAPI copies it)
    plan: str | None = None,
    cluster: str | None = None,
    label: Annotated[list[str], Query(description="NAME=VALUE; may be given again.")] = [],  # noqa: B006
    prefix: Annotated[str, Query(description="Names that begin so.")] = "",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Any:
    found = await verbs_of(request).tenant_list(
        states=state,
        plan=plan,
        cluster=cluster,
        labels=labels_of(label),
        prefix=prefix,
        after=after(cursor),
        limit=limit + 1,
    )
    own = principal_of(request).tenant
    if own is not None:
        found = await verbs_of(request).tenant_list(states=state, prefix=own)
        return Tenants(items=[one for one in found if one.name == own and one.state is not State.ERASED])
    return Tenants(items=found[:limit], next=cursor_of(found[limit - 1].name) if len(found) > limit else None)


@routes.post(
    "/tenants",
    response_model=Tenant,
    status_code=201,
    responses={200: {"model": Rehearsed}},
    summary="Writes a tenant down, as a draft",
)
async def tenant_create(
    request: Request, body: NewTenant, key: Key = None, dry_run: DryRun = False
) -> Response:
    """Nothing is made on its cluster yet."""

    def shown(made: Tenant) -> Response:
        return tagged(request, made, made.version, 201, location=f"/v1/tenants/{made.name}")

    return await answered(request, lambda verbs: verbs.tenant_create(body), shown, dry_run=dry_run)


@routes.post(
    "/onboard",
    response_model=Onboarded,
    status_code=201,
    responses={200: {"model": Rehearsed}},
    summary="Create, provision, grant and activate in one",
)
async def tenant_onboard(
    request: Request, body: Onboard, key: Key = None, dry_run: DryRun = False
) -> Response:
    """The password is in this answer alone."""

    def shown(made: Onboarded) -> Response:
        return answer_of(made, 201, location=f"/v1/tenants/{made.tenant.name}")

    return await answered(
        request, lambda verbs: verbs.tenant_onboard(body.tenant, body.access), shown, dry_run=dry_run
    )


@routes.get("/tenants/{tenant}", response_model=Tenant, summary="One tenant")
async def tenant_get(request: Request, tenant: TenantPath) -> Response:
    found = await verbs_of(request).tenant_get(tenant)
    return tagged(request, found, found.version)


@routes.get(
    "/tenants/{tenant}/details",
    response_model=TenantDetails,
    summary="All about one: values, access, its job",
)
async def tenant_show(request: Request, tenant: TenantPath) -> Any:
    found = await verbs_of(request).tenant_show(tenant)
    return tagged(request, found, digest(found.to_json()))


@routes.patch("/tenants/{tenant}", response_model=Tenant | Rehearsed, summary="Changes what a tenant has")
async def tenant_set(
    request: Request, tenant: TenantPath, body: TenantPatch, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response:
    """Proxies have it within a second."""
    given: dict[str, Any] = {"plan": body.plan, "labels": body.labels, "sni": body.sni, "spec": body.spec}
    given["version"] = version_of(request)
    return await answered(
        request, lambda verbs: verbs.tenant_set(tenant, **given), _shown(request), dry_run=dry_run
    )


@routes.delete(
    "/tenants/{tenant}", response_model=Tenant | Rehearsed, summary="Deletes a tenant, with a time of grace"
)
async def tenant_delete(
    request: Request,
    tenant: TenantPath,
    reason: str = "",
    grace_s: Annotated[float | None, Query(ge=0, le=315_360_000)] = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    """Its logins are refused from now on; it is erased once its grace is over."""
    version = version_of(request)
    return await answered(
        request,
        lambda verbs: verbs.tenant_delete(tenant, reason, grace_s, version=version),
        _shown(request),
        dry_run=dry_run,
    )


@routes.post(
    "/tenants/{tenant}/provision",
    response_model=Tenant | Rehearsed,
    responses=STARTED,
    summary="Makes its schema, roles and rights",
)
async def tenant_provision(
    request: Request,
    tenant: TenantPath,
    key: Key = None,
    prefer: Prefer = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    version = version_of(request)
    return await started(
        request, lambda verbs: verbs.tenant_provision(tenant, version=version), dry_run=dry_run
    )


@routes.post("/tenants/{tenant}/activate", response_model=Tenant | Rehearsed, summary="Lets its logins in")
async def tenant_activate(
    request: Request, tenant: TenantPath, key: Key = None, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response:
    version = version_of(request)
    return await answered(
        request,
        lambda verbs: verbs.tenant_activate(tenant, version=version),
        _shown(request),
        dry_run=dry_run,
    )


@routes.post("/tenants/{tenant}/suspend", response_model=Tenant | Rehearsed, summary="Refuses its logins")
async def tenant_suspend(
    request: Request,
    tenant: TenantPath,
    body: Reason | None = None,
    key: Key = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    """Those who are connected may stay for its grace time."""
    version = version_of(request)
    return await answered(
        request,
        lambda verbs: verbs.tenant_suspend(tenant, body.reason if body else "", version=version),
        _shown(request),
        dry_run=dry_run,
    )


@routes.post(
    "/tenants/{tenant}/resume", response_model=Tenant | Rehearsed, summary="Lets its logins in again"
)
async def tenant_resume(
    request: Request, tenant: TenantPath, key: Key = None, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response:
    version = version_of(request)
    return await answered(
        request, lambda verbs: verbs.tenant_resume(tenant, version=version), _shown(request), dry_run=dry_run
    )


@routes.post(
    "/tenants/{tenant}/rename", response_model=Tenant | Rehearsed, summary="Changes what clients call it"
)
async def tenant_rename(
    request: Request,
    tenant: TenantPath,
    body: Rename,
    key: Key = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:

    version = version_of(request)

    def shown(renamed: Tenant) -> Response:
        return tagged(request, renamed, renamed.version, location=f"/v1/tenants/{renamed.name}")

    return await answered(
        request, lambda verbs: verbs.tenant_rename(tenant, body.name, version=version), shown, dry_run=dry_run
    )


@routes.post("/tenants/{tenant}/restore", response_model=Tenant | Rehearsed, summary="Takes a deletion back")
async def tenant_restore(
    request: Request, tenant: TenantPath, key: Key = None, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response:
    """It is suspended then."""
    version = version_of(request)
    return await answered(
        request, lambda verbs: verbs.tenant_restore(tenant, version=version), _shown(request), dry_run=dry_run
    )


# --- whole tenants


@routes.post(
    "/tenants/{tenant}/clone", response_model=Job | Rehearsed, responses=STARTED, summary="Makes a copy"
)
async def tenant_clone(
    request: Request,
    tenant: TenantPath,
    body: Clone,
    key: Key = None,
    prefer: Prefer = None,
    dry_run: DryRun = False,
) -> Response:
    """With everything that it has now, but its logins."""
    return await started(
        request,
        lambda verbs: verbs.tenant_clone(
            tenant,
            body.name,
            cluster=body.cluster,
            database=body.database,
            labels=body.labels,
            accept=body.accept,
        ),
        dry_run=dry_run,
    )


@routes.post(
    "/tenants/{tenant}/move",
    response_model=Job | Rehearsed,
    responses=STARTED,
    summary="Moves it to another cluster",
)
async def tenant_move(
    request: Request,
    tenant: TenantPath,
    body: Move,
    key: Key = None,
    prefer: Prefer = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    """What clients begin meanwhile waits, and runs where it is then.  Where it was, it is kept until that is
    confirmed."""
    version = version_of(request)
    return await started(
        request,
        lambda verbs: verbs.tenant_move(
            tenant, body.cluster, pause_s=body.pause_s, force=body.force, version=version
        ),
        dry_run=dry_run,
    )


@routes.post(
    "/tenants/{tenant}/move/confirm",
    response_model=Job | Rehearsed,
    responses={**STARTED, 204: {"description": "Nothing was kept."}},
    summary="Takes away what was kept where it was",
)
async def tenant_move_confirm(
    request: Request, tenant: TenantPath, key: Key = None, prefer: Prefer = None, dry_run: DryRun = False
) -> Response:
    return await started(request, lambda verbs: verbs.tenant_move_confirm(tenant), dry_run=dry_run)


@routes.post(
    "/tenants/{tenant}/erase",
    response_model=Job | Rehearsed,
    responses=STARTED,
    summary="Erases a deleted tenant",
)
async def tenant_erase(
    request: Request,
    tenant: TenantPath,
    body: Erase | None = None,
    key: Key = None,
    prefer: Prefer = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    """The job's result is the signed record."""
    version = version_of(request)
    asked = body or Erase()
    return await started(
        request,
        lambda verbs: verbs.tenant_erase(
            tenant, at_once=asked.at_once, cascade=asked.cascade, version=version
        ),
        dry_run=dry_run,
    )


@routes.get(
    "/tenants/{tenant}/scan",
    response_model=Scan,
    summary="What keeps an existing schema from being its alone",
)
async def tenant_scan(
    request: Request,
    tenant: TenantPath,
    login: Annotated[
        list[str], Query(description="A role of the server that is the tenant's already; may be given again.")
    ] = [],  # noqa: B006
) -> Any:
    """The worst first."""
    found = await verbs_of(request).tenant_scan(tenant, login)
    return Scan(items=[ScanProblem.model_validate(one.as_dict()) for one in found])


@routes.post(
    "/tenants/{tenant}/adopt",
    response_model=Job | Rehearsed,
    responses=STARTED,
    summary="Makes an existing schema its own",
)
async def tenant_adopt(
    request: Request,
    tenant: TenantPath,
    body: Adopt | None = None,
    key: Key = None,
    prefer: Prefer = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    """Of a draft that names the schema: mends what the scan finds, and lays its rights."""
    version = version_of(request)
    asked = body or Adopt()
    return await started(
        request,
        lambda verbs: verbs.tenant_adopt(tenant, logins=asked.logins, accept=asked.accept, version=version),
        dry_run=dry_run,
    )


@routes.get("/erasures/{name}", response_model=dict[str, Any], summary="The record of an erasure")
async def erasure_record(
    request: Request, name: Annotated[str, Path(description="What the tenant was called.", examples=["acme"])]
) -> Any:
    """Of the last tenant of this name that was erased."""
    return await verbs_of(request).erasure_record(name)
