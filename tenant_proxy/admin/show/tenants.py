"""SHOW TENANTS: every tenant of the file and of the catalog, with what it does now and has done."""

from __future__ import annotations

from tenant_proxy.admin.context import (
    INT4,
    INT8,
    TEXT,
    AdminContext,
    AdminResult,
    Column,
    Row,
    summed,
    table,
)

COLUMNS: list[Column] = [
    ("tenant", TEXT),
    ("cluster", TEXT),
    ("schema", TEXT),
    ("role", TEXT),
    ("pool_mode", TEXT, lambda row: row["mode"]),
    ("isolation", TEXT),
    ("guard_mode", TEXT),
    ("state", TEXT),
    ("clients", INT4),
    ("clients_waiting", INT4),
    ("servers", INT4),
    ("servers_active", INT4),
    ("total_xact_count", INT8, lambda row: row["xacts"]),
    ("total_query_count", INT8, lambda row: row["queries"]),
    ("total_received", INT8, lambda row: row["bytes_in"]),
    ("total_sent", INT8, lambda row: row["bytes_out"]),
    ("total_xact_time", INT8, lambda row: row["xact_us"]),
    ("total_query_time", INT8, lambda row: row["query_us"]),
    ("total_wait_time", INT8, lambda row: row["wait_us"]),
    ("total_rejected", INT8, lambda row: row["rejected"]),
    # on backends that tenants share
    ("shared_active", INT4),
    ("shared_waiting", INT4),
    ("total_switches", INT8, lambda row: row.get("switches", 0)),
    ("total_affinity_hits", INT8, lambda row: row.get("kept", 0)),
    ("total_escalations", INT8, lambda row: row.get("escalations", 0)),
    ("pins", INT4, lambda row: row.get("pinned", 0)),
]

_COUNTED = (
    "clients", "clients_waiting", "servers", "servers_active", "xacts", "queries", "bytes_in", "bytes_out",
    "xact_us", "query_us", "wait_us", "rejected", "shared_active", "shared_waiting", "switches", "kept",
    "escalations", "pinned",
)  # fmt: skip


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("tenants")
    found: dict[str, Row] = {
        row["tenant"]: row for row in summed(snapshot.rows("tenants"), lambda row: (row["tenant"],))
    }
    for tenant in ctx.registry.tenants.values():  # those that no worker has heard of yet
        if tenant.name not in found:
            found[tenant.name] = dict.fromkeys(_COUNTED, 0) | {
                "tenant": tenant.name,
                "cluster": tenant.cluster.name,
                "schema": tenant.schema,
                "role": tenant.role,
                "mode": tenant.pool.mode.value,
                "isolation": tenant.isolation.value,
                "guard_mode": tenant.policy.mode.value,
                "state": "active" if tenant.suspended is None else "suspended",
            }
    return table(COLUMNS, [found[name] for name in sorted(found)], snapshot.notices)
