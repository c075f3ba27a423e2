"""Plans."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Path, Request
from fastapi.responses import Response
from pydantic import Field

from tenant_proxy.api.guarded import Rehearsed, answer_of, answered, tagged, verbs_of, version_of
from tenant_proxy.api.routes.common import DryRun, IfMatch, router
from tenant_proxy.catalog.records import Plan, Record, Spec, parse

routes = router("plans")
PlanPath = Annotated[str, Path(description="Its name.", examples=["standard"])]


class PlanBody(Record):
    description: str = ""
    spec: Spec = Spec()
    billing: dict[str, Any] = Field(default_factory=dict)
    """Included amounts and prices, for invoices."""


class Plans(Record):
    items: list[Plan]


@routes.get("/plans", response_model=Plans, summary="All plans")
async def plan_list(request: Request) -> Any:
    return Plans(items=await verbs_of(request).plan_list())


@routes.get("/plans/{plan}", response_model=Plan, summary="One plan")
async def plan_get(request: Request, plan: PlanPath) -> Response:
    found = await verbs_of(request).plan_get(plan)
    return tagged(request, found, found.version)


@routes.put("/plans/{plan}", response_model=Plan | Rehearsed, summary="Makes a plan, or sets it")
async def plan_put(
    request: Request,
    plan: PlanPath,
    body: PlanBody,
    if_match: IfMatch = None,
    if_none_match: Annotated[str | None, Header(description="*: only if there is none yet.")] = None,
    dry_run: DryRun = False,
) -> Response:
    """Its tenants have it at once."""
    verbs = verbs_of(request)
    version = version_of(request)
    new = parse(Plan, {"name": plan, **{key: getattr(body, key) for key in PlanBody.model_fields}})
    if version is not None:
        await verbs.plan_get(plan)
    if if_none_match == "*":
        version = 0
    return await answered(
        request,
        lambda verbs: verbs.plan_put(new, version=version),
        lambda made: tagged(request, made, made.version),
        dry_run=dry_run,
    )


@routes.delete(
    "/plans/{plan}",
    status_code=204,
    responses={200: {"model": Rehearsed}},
    summary="Deletes a plan that no tenant has",
)
async def plan_delete(
    request: Request, plan: PlanPath, if_match: IfMatch = None, dry_run: DryRun = False
) -> Response:
    version = version_of(request)
    return await answered(
        request, lambda verbs: verbs.plan_delete(plan, version=version), answer_of, dry_run=dry_run
    )
