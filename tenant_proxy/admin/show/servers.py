"""SHOW SERVERS."""

from __future__ import annotations

from tenant_proxy.admin.context import TEXT, AdminContext, AdminResult, Column, table
from tenant_proxy.admin.show.clients import connection_columns

COLUMNS: list[Column] = [
    *connection_columns("s", "c"),
    ("server_database", TEXT, lambda row: row["database"]),
]


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("servers")
    return table(COLUMNS, snapshot.rows("servers"), snapshot.notices)
