"""SHOW WORKERS: the processes of the data plane."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, INT8, TEXT, AdminContext, AdminResult, Column, table

COLUMNS: list[Column] = [
    ("worker", INT4),
    ("pid", INT4),
    ("state", TEXT),
    ("clients", INT4),
    ("servers", INT4),
    ("restarts", INT4),
    ("last_exit", TEXT),
    ("uptime_s", INT8),
    ("rss_bytes", INT8),
    ("cpu_us", INT8),
]


async def show(ctx: AdminContext) -> AdminResult:
    status = await ctx.call("supervisor", "status")
    snapshot = await ctx.snapshot("counters")
    counters = snapshot.counters()
    rows = []
    for worker in status["workers"]:
        counted = counters.get(worker["slot"], {})
        rows.append(
            {
                "worker": worker["slot"],
                "pid": worker["pid"],
                "state": "draining" if counted.get("draining") else worker["phase"],
                "clients": counted.get("clients_open"),
                "servers": counted.get("servers_open"),
                "restarts": worker["restarts"],
                "last_exit": worker["last_exit"] or None,
                "uptime_s": round(worker["uptime_s"]),
                "rss_bytes": counted.get("rss_bytes"),
                "cpu_us": counted.get("cpu_us"),
            }
        )
    return table(COLUMNS, rows, snapshot.notices)
