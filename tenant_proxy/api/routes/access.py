"""Who may reach a tenant: logins, their passwords, roles of a tenant's own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Request
from fastapi.responses import Response
from pydantic import Field

from tenant_proxy.api.cursors import after_two, cursor_of_two
from tenant_proxy.api.guarded import (
    Rehearsed,
    answer_of,
    answered,
    principal_of,
    tagged,
    verbs_of,
    version_of,
)
from tenant_proxy.api.permissions import other_tenant
from tenant_proxy.api.routes.common import (
    Cursor,
    DryRun,
    IfMatch,
    Key,
    Limit,
    LoginPath,
    TenantPath,
    router,
)
from tenant_proxy.catalog.records import Access, CustomRole, Login, Record
from tenant_proxy.config.schema import Count
from tenant_proxy.lifecycle.granting import OVERLAP_S
from tenant_proxy.lifecycle.records import Granted, NewAccess, Rotated

routes = router("access")
RolePath = Annotated[str, Path(description="Its name.", examples=["clerk"])]


class Accesses(Record):
    items: list[Access]
    next: str | None = None
    """Cursor of the next page; null on the last."""


class Roles(Record):
    items: list[CustomRole]


class Grants(Record):
    grants: dict[str, list[str]]
    """Table → rights on it, and all that the role has."""


class Rotation(Record):
    password: Annotated[str | None, Field(repr=False)] = None
    """Made if null."""
    overlap_s: Annotated[float, Field(ge=0, le=31_536_000)] = OVERLAP_S
    """The one before it is good for so long."""
    end: bool = False
    """Ends the overlap now; there is no new password."""


class LoginPatch(Record):
    addresses: list[str] | None = None
    max_clients: Count | None = None
    disabled: bool | None = None
    expires_at: datetime | Literal["never"] | None = None


async def _check_login(request: Request, login: str, *, may_be_new: bool = False) -> None:
    """A tenant's admin has to do only with logins that reach no other: a password opens all of them."""
    principal = principal_of(request)
    if principal.tenant is None:
        return
    reached = {one.tenant for one in await verbs_of(request).access_list(login=login)}
    if reached - {principal.tenant} or not (reached or may_be_new):
        raise other_tenant(principal)


@routes.get("/access", response_model=Accesses, summary="Who may reach what")
async def access_list_all(
    request: Request, login: str | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Any:
    return await _page(request, None, login, cursor, limit)


@routes.get("/tenants/{tenant}/access", response_model=Accesses, summary="Who may reach a tenant")
async def access_list(
    request: Request,
    tenant: TenantPath,
    login: str | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Any:
    return await _page(request, tenant, login, cursor, limit)


async def _page(
    request: Request, tenant: str | None, login: str | None, cursor: str | None, limit: int
) -> Accesses:
    found = await verbs_of(request).access_list(
        tenant=tenant, login=login, after=after_two(cursor), limit=limit + 1
    )
    last = found[limit - 1] if len(found) > limit else None
    next_ = None if last is None else cursor_of_two(last.tenant, last.login)
    return Accesses(items=found[:limit], next=next_)


@routes.post(
    "/tenants/{tenant}/access",
    response_model=Granted,
    status_code=201,
    responses={200: {"model": Rehearsed}},
    summary="Lets a login reach a tenant",
)
async def access_grant(
    request: Request, tenant: TenantPath, body: NewAccess, key: Key = None, dry_run: DryRun = False
) -> Response:
    """A login that does not exist is made; its password is in this answer alone."""
    await _check_login(request, body.login, may_be_new=True)
    return await answered(
        request,
        lambda verbs: verbs.access_grant(tenant, body),
        lambda granted: answer_of(granted, 201),
        dry_run=dry_run,
    )


@routes.delete(
    "/tenants/{tenant}/access/{login}",
    status_code=204,
    responses={200: {"model": Rehearsed}},
    summary="Takes a tenant from a login",
)
async def access_revoke(
    request: Request, tenant: TenantPath, login: LoginPath, dry_run: DryRun = False
) -> Response:
    """Its connections end; a login that has no tenant left is deleted."""
    return await answered(
        request, lambda verbs: verbs.access_revoke(tenant, login), answer_of, dry_run=dry_run
    )


@routes.get("/logins/{login}", response_model=Login, summary="One login")
async def login_get(request: Request, login: LoginPath) -> Response:
    await _check_login(request, login)
    found = await verbs_of(request).login_get(login)
    return tagged(request, found, found.version)


@routes.patch("/logins/{login}", response_model=Login | Rehearsed, summary="What proxies hold a login to")
async def login_set(
    request: Request, login: LoginPath, body: LoginPatch, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response:
    await _check_login(request, login)
    given: dict[str, Any] = {name: getattr(body, name) for name in LoginPatch.model_fields}
    given["version"] = version_of(request)
    return await answered(
        request,
        lambda verbs: verbs.login_set(login, **given),
        lambda changed: tagged(request, changed, changed.version),
        dry_run=dry_run,
    )


@routes.post("/logins/{login}/rotate", response_model=Rotated | Rehearsed, summary="A new password")
async def access_rotate(
    request: Request,
    login: LoginPath,
    body: Rotation | None = None,
    key: Key = None,
    if_match: IfMatch = None,
    dry_run: DryRun = False,
) -> Response:
    """It is in this answer alone; the one before it is good while they overlap."""
    await _check_login(request, login)
    asked = body or Rotation()
    given: dict[str, Any] = {"password": asked.password, "overlap_s": asked.overlap_s, "end": asked.end}
    given["version"] = version_of(request)
    return await answered(
        request, lambda verbs: verbs.access_rotate(login, **given), answer_of, dry_run=dry_run
    )


@routes.get("/tenants/{tenant}/roles", response_model=Roles, summary="Roles of a tenant's own")
async def role_list(request: Request, tenant: TenantPath) -> Any:
    return Roles(items=await verbs_of(request).role_list(tenant))


@routes.put(
    "/tenants/{tenant}/roles/{role}",
    response_model=CustomRole | Rehearsed,
    summary="Makes a role with rights on tables, or sets it",
)
async def role_put(
    request: Request, tenant: TenantPath, role: RolePath, body: Grants, dry_run: DryRun = False
) -> Response:
    return await answered(
        request, lambda verbs: verbs.role_put(tenant, role, body.grants), answer_of, dry_run=dry_run
    )


@routes.delete(
    "/tenants/{tenant}/roles/{role}",
    status_code=204,
    responses={200: {"model": Rehearsed}},
    summary="Takes a role away",
)
async def role_delete(
    request: Request, tenant: TenantPath, role: RolePath, dry_run: DryRun = False
) -> Response:
    return await answered(request, lambda verbs: verbs.role_delete(tenant, role), answer_of, dry_run=dry_run)
