"""SHOW LANES: of tenants with isolation shared, what ran on shared backends, what on their own, and why."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, INT8, TEXT, AdminContext, AdminResult, Column, summed, table

COLUMNS: list[Column] = [
    ("tenant", TEXT),
    ("user", TEXT),
    ("cluster", TEXT),
    # "proven", or why all of the tenant runs on its own backends
    ("code", TEXT),
    ("begins_own", TEXT, lambda row: "on" if row["begins_own"] else "off"),
    ("shared_active", INT4),
    ("shared_waiting", INT4),
    # so many statements run at once on the shared backends of its worker (pool.width); 0: any number
    ("width", INT4),
    ("own_active", INT4),
    ("own_idle", INT4),
    ("pinned", INT4),
    ("switches", INT8),
    ("kept", INT8),
    ("escalated_statement", INT8),
    ("escalated_transaction", INT8),
    ("escalated_code", INT8),
    ("escalated_refused", INT8),
    ("weight", INT4),
    ("reserved", INT4),
]

#: the same in every worker
_MAXIMA = frozenset(("weight", "reserved"))


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("lanes")
    rows = summed(snapshot.rows("lanes"), lambda row: (row["tenant"], row["user"]), _MAXIMA)
    return table(COLUMNS, rows, snapshot.notices)
