"""SHOW STATE."""

from __future__ import annotations

from tenant_proxy.admin.context import TEXT, AdminContext, AdminResult, Column, table
from tenant_proxy.model import ALL

COLUMNS: list[Column] = [("key", TEXT), ("value", TEXT)]


async def show(ctx: AdminContext) -> AdminResult:
    status = await ctx.call("supervisor", "status")
    stopping = status["stopping"]
    states = {
        "active": not stopping,
        "paused": ALL in status["paused"],
        "suspended": False,
        "draining": stopping,
    }
    return table(COLUMNS, [{"key": key, "value": "yes" if on else "no"} for key, on in states.items()])
