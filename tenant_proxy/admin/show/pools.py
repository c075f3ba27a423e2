"""SHOW POOLS: one row per tenant and login."""

from __future__ import annotations

from tenant_proxy.admin.context import (
    INT4,
    TEXT,
    AdminContext,
    AdminResult,
    Column,
    constant,
    database_of,
    summed,
    table,
)

COLUMNS: list[Column] = [
    ("database", TEXT, database_of),
    ("user", TEXT),
    ("cl_active", INT4),
    ("cl_waiting", INT4),
    ("cl_active_cancel_req", INT4),
    ("cl_waiting_cancel_req", INT4),
    ("sv_active", INT4),
    ("sv_active_cancel", INT4),
    ("sv_being_canceled", INT4),
    ("sv_idle", INT4),
    ("sv_used", INT4),
    ("sv_tested", INT4),
    ("sv_login", INT4),
    ("maxwait", INT4, lambda row: row["maxwait_us"] // 1_000_000),
    ("maxwait_us", INT4, lambda row: row["maxwait_us"] % 1_000_000),
    ("pool_mode", TEXT),
    ("load_balance_hosts", TEXT, constant(None)),
    # ours
    ("tenant", TEXT),
    ("cluster", TEXT),
    ("server_database", TEXT),
    ("pool_size", INT4, lambda row: row["max"]),
    ("sv_pinned", INT4, lambda row: row["pinned"]),
]

#: the same in every worker, or the worst of all
_MAXIMA = frozenset(("maxwait_us", "max"))


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("pools")
    rows = summed(snapshot.rows("pools"), lambda row: (database_of(row), row["user"]), _MAXIMA)
    databases = {cluster.name: cluster.database for cluster in ctx.config.clusters}
    for row in rows:
        row["server_database"] = databases.get(row["cluster"])
    return table(COLUMNS, rows, snapshot.notices)
