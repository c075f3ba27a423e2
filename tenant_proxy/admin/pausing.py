"""PAUSE and RESUME, of a tenant or of all, as PgBouncer has them.

PAUSE answers when nothing of the tenant's is at work on its cluster any more.  Where somebody does not come
to an end it is given up, so that those who wait meanwhile go on.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tenant_proxy.admin import refusals
from tenant_proxy.admin.context import AdminContext, AdminResult
from tenant_proxy.model import ALL

#: how long PAUSE waits for those who are at work
PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.05


async def pause(arguments: list[str], ctx: AdminContext) -> AdminResult:
    name = _tenant_of(arguments, ctx, "PAUSE")
    before = await paused(ctx)
    await _set(ctx, sorted({*before, name}))
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while holding := await _holding(ctx, name):
        if asyncio.get_running_loop().time() >= deadline:
            if name not in before:
                await _set(ctx, [one for one in await paused(ctx) if one != name])
            raise refusals.still_at_work(name, holding)
        await asyncio.sleep(_POLL_S)
    return AdminResult(tag="PAUSE")


async def resume(arguments: list[str], ctx: AdminContext) -> AdminResult:
    name = _tenant_of(arguments, ctx, "RESUME")
    before = await paused(ctx)
    if name == ALL:
        await _set(ctx, [])
    elif name in before:
        await _set(ctx, [one for one in before if one != name])
    else:
        raise refusals.not_paused(name, all_are=ALL in before)
    return AdminResult(tag="RESUME")


async def paused(ctx: AdminContext) -> list[str]:
    status = await ctx.call("supervisor", "status")
    return list(status["paused"])


async def _set(ctx: AdminContext, tenants: list[str]) -> None:
    await ctx.call("supervisor", "pause", {"tenants": tenants})


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
