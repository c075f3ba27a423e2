"""SHOW DATABASES: PgBouncer's databases are our tenants."""

from __future__ import annotations

from tenant_proxy.admin.context import (
    INT4,
    TEXT,
    AdminContext,
    AdminResult,
    Column,
    Row,
    constant,
    summed,
    table,
)
from tenant_proxy.admin.pausing import paused
from tenant_proxy.model import ALL, IN_MOVE

COLUMNS: list[Column] = [
    ("name", TEXT),
    ("host", TEXT),
    ("port", INT4),
    ("database", TEXT),
    ("force_user", TEXT, constant(None)),
    ("pool_size", INT4),
    ("min_pool_size", INT4),
    ("reserve_pool_size", INT4, constant(0)),
    ("server_lifetime", INT4),
    ("pool_mode", TEXT),
    ("load_balance_hosts", TEXT, constant(None)),
    ("max_connections", INT4),
    ("current_connections", INT4),
    ("max_client_connections", INT4),
    ("current_client_connections", INT4),
    ("paused", INT4),
    ("disabled", INT4, constant(0)),
    # ours
    ("cluster", TEXT),
    ("schema", TEXT),
]


async def show(ctx: AdminContext) -> AdminResult:
    snapshot, names = await ctx.snapshot("tenants"), await paused(ctx)
    now = {row["tenant"]: row for row in summed(snapshot.rows("tenants"), lambda row: (row["tenant"],))}
    rows: list[Row] = []
    for tenant in sorted(ctx.registry.tenants.values(), key=lambda tenant: tenant.name):
        cluster, pool = tenant.cluster, tenant.pool
        counts = now.get(tenant.name, {})
        rows.append(
            {
                "name": tenant.name,
                "host": cluster.host,
                "port": cluster.port,
                "database": cluster.database,
                "pool_size": pool.max,
                "min_pool_size": pool.min,
                "server_lifetime": round(pool.server_lifetime_s),
                "pool_mode": pool.mode.value,
                "max_connections": cluster.max_backends,
                "current_connections": counts.get("servers", 0),
                "max_client_connections": tenant.max_clients,
                "current_client_connections": counts.get("clients", 0),
                "paused": int(tenant.name in names or ALL in names or tenant.suspended in IN_MOVE),
                "cluster": cluster.name,
                "schema": tenant.schema,
            }
        )
    return table(COLUMNS, rows, snapshot.notices)
