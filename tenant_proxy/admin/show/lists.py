"""SHOW LISTS: counts, one per row."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, TEXT, AdminContext, AdminResult, Column, database_of, table

COLUMNS: list[Column] = [("list", TEXT), ("items", INT4)]


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("counters", "pools")
    counters = snapshot.counters().values()
    pools = snapshot.rows("pools")
    open_clients = sum(c.get("clients_open", 0) for c in counters)
    logged_in = sum(row["cl_active"] + row["cl_waiting"] for row in pools)
    counts = {
        "databases": len(ctx.registry.tenants),
        "users": len(ctx.registry.logins),
        "peers": 0,
        "pools": len({(database_of(row), row["user"]) for row in pools}),
        "peer_pools": 0,
        "free_clients": 0,
        "used_clients": open_clients,
        "login_clients": max(0, open_clients - logged_in),
        "free_servers": 0,
        "used_servers": sum(c.get("servers_open", 0) for c in counters),
        "dns_names": 0,
        "dns_zones": 0,
        "dns_queries": 0,
        "dns_pending": 0,
        # ours
        "tenants": len(ctx.registry.tenants),
        "clusters": len(ctx.config.clusters),
        "workers": ctx.config.workers,
        "guard_verdicts": sum((c.get("guard_cache") or {}).get("entries", 0) for c in counters),
    }
    rows = [{"list": name, "items": count} for name, count in counts.items()]
    return table(COLUMNS, rows, snapshot.notices)
