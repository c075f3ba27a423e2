"""SHOW LISTENERS: clients in transaction mode for which the proxy listens."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, INT8, TEXT, AdminContext, AdminResult, Column, table
from tenant_proxy.admin.show.clients import pointer

COLUMNS: list[Column] = [
    ("tenant", TEXT),
    ("user", TEXT),
    ("channels", INT4),
    # the first of them by name
    ("channel", TEXT),
    # that it was told
    ("notifications", INT8),
    # the server process that listens for it
    ("listener_pid", INT4),
    ("state", TEXT),
    ("application_name", TEXT),
    ("addr", TEXT),
    ("ptr", TEXT, pointer("c", "id")),
    ("id", INT4, lambda row: row["global_id"]),
    ("worker", INT4),
]


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("listeners")
    rows = sorted(snapshot.rows("listeners"), key=lambda row: (row["tenant"], row["id"]))
    return table(COLUMNS, rows, snapshot.notices)
