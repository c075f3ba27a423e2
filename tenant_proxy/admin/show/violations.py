"""SHOW VIOLATIONS: what the guard refused, or would have refused in mode observe, by shape of statement."""

from __future__ import annotations

from tenant_proxy.admin.context import INT8, TEXT, AdminContext, AdminResult, Column, Row, table, timestamp

COLUMNS: list[Column] = [
    ("tenant", TEXT),
    ("user", TEXT),
    ("action", TEXT),
    ("count", INT8),
    ("reason", TEXT),
    ("object", TEXT),
    ("rule", TEXT),
    ("sqlstate", TEXT),
    ("first_seen", TEXT, lambda row: timestamp(row["first_us"])),
    ("last_seen", TEXT, lambda row: timestamp(row["last_us"])),
    ("statement", TEXT),
]

#: rows shown, the latest first
MAX_SHOWN = 2000

_SAME = ("tenant", "action", "reason", "object", "rule", "sqlstate", "statement")


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("violations")
    merged: dict[tuple[str, ...], Row] = {}
    for row in snapshot.rows("violations"):
        key = tuple(row[name] for name in _SAME)
        known = merged.get(key)
        if known is None:
            merged[key] = dict(row)
            continue
        if row["last_us"] > known["last_us"]:
            known["last_us"], known["user"] = row["last_us"], row["user"]
        known["first_us"] = min(known["first_us"], row["first_us"])
        known["count"] += row["count"]
    rows = sorted(merged.values(), key=lambda row: -row["last_us"])
    dropped = sum(counted.get("dropped", 0) for counted in snapshot.parts("violations_kept"))
    notices = list(snapshot.notices)
    if dropped:
        notices.append(f"{dropped} statements that were not seen for longest were dropped")
    if len(rows) > MAX_SHOWN:
        notices.append(f"the latest {MAX_SHOWN} of {len(rows)} are shown")
    return table(COLUMNS, rows[:MAX_SHOWN], notices)
