"""SHOW CATALOG: whether the catalog is followed, and what of it can't be used."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, INT8, NUMERIC, TEXT, AdminContext, AdminResult, Column, table

COLUMNS: list[Column] = [
    ("state", TEXT),
    ("since_sync_s", NUMERIC, lambda row: _rounded(row.get("since_sync_s"))),
    ("tenants", INT4),
    ("logins", INT4),
    ("resyncs", INT8),
    ("notices", INT8),
    ("changes", INT8),
    ("last_lag_ms", NUMERIC, lambda row: _rounded(1000 * row.get("last_lag_s", 0))),
    # a tenant or login that can't be used, and why; or why the catalog can't be followed
    ("unusable", TEXT),
    ("problem", TEXT),
]


async def show(ctx: AdminContext) -> AdminResult:
    if ctx.config.catalog.dsn is None:
        return table(COLUMNS, [{"state": "none"}])
    shown = await ctx.call("control", "catalog")
    if not shown:  # it has not heard yet that there is one
        return table(COLUMNS, [{"state": "not read yet"}])
    state = "followed" if shown["connected"] else "away" if shown["synced"] else "not read yet"
    row = {**shown, "state": state, "unusable": "", "problem": shown["error"]}
    problems = [
        {**row, "unusable": f"{word} {name}".rstrip(), "problem": why}
        for word, name, why in shown["problems"]
    ]
    return table(COLUMNS, problems if problems and not shown["error"] else [row, *problems])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
