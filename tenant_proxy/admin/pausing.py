"""PAUSE and RESUME, of a tenant or of all, as PgBouncer has them.

PAUSE answers when nothing of the tenant's is at work on its cluster any more.  Where somebody does not come
to an end it is given up, so that those who wait meanwhile go on.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from tenant_proxy.admin import refusals
from tenant_proxy.admin.context import AdminContext, AdminResult
from tenant_proxy.model import ALL

#: how long PAUSE waits for those who are at work
PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.05


async def pause(arguments: list[str], ctx: AdminContext) -> AdminResult:
    name = _tenant_of(arguments, ctx, "PAUSE")
    number = (await _tell(ctx, "begin", tenant=name))["number"]
    try:
        holding = await _rest(ctx, name)
    except BaseException:
        await _tell(ctx, "give_up", number=number)
        raise
    if holding:
        given_up = (await _tell(ctx, "give_up", number=number))["done"]
        raise refusals.still_at_work(name, holding, paused=not given_up)
    if not (await _tell(ctx, "hold", number=number))["done"]:
        raise refusals.resumed_meanwhile(name)
    return AdminResult(tag="PAUSE")


async def _rest(ctx: AdminContext, name: str) -> int:
    """Waits for those who are at work; how many still were in the end."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while holding := await _holding(ctx, name):
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(_POLL_S)
    return holding


async def resume(arguments: list[str], ctx: AdminContext) -> AdminResult:
    name = _tenant_of(arguments, ctx, "RESUME")
    if not (await _tell(ctx, "resume", tenant=name))["done"]:
        raise refusals.not_paused(name, all_are=ALL in await paused(ctx))
    return AdminResult(tag="RESUME")


async def paused(ctx: AdminContext) -> list[str]:
    status = await ctx.call("supervisor", "status")
    return list(status["paused"])


async def _tell(ctx: AdminContext, step: str, **params: Any) -> dict[str, Any]:
    """The supervisor, which has what other consoles ask for too (admin.pauses)."""
    answer: dict[str, Any] = await ctx.call("supervisor", "pause", {"step": step, **params})
    return answer


async def _holding(ctx: AdminContext, name: str) -> int:
    """Connections at work for the tenant, and clients that wait for one since before."""
    snapshot = await ctx.snapshot("tenants")
    return sum(row["holding"] for row in snapshot.rows("tenants") if name in (ALL, row["tenant"]))


def _tenant_of(arguments: list[str], ctx: AdminContext, command: str) -> str:
    if not arguments:
        return ALL
    name = arguments[0]
    if name.startswith('"') and name.endswith('"') and len(name) > 1:
        name = name[1:-1].replace('""', '"')
    if len(arguments) > 1 or name == ALL:
        raise refusals.bad_argument(command, "the name of a tenant, or nothing for all")
    if name not in ctx.registry.tenants:
        raise refusals.no_such_tenant(name)
    return name
