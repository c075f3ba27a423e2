"""SHOW PINS: clients that keep a backend between transactions, the longest first."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, INT8, TEXT, AdminContext, AdminResult, Column, table, timestamp
from tenant_proxy.admin.show.clients import pointer

COLUMNS: list[Column] = [
    ("tenant", TEXT),
    ("user", TEXT),
    # what pinned it first: temp_table, listen, hold_cursor, advisory_lock, prepare, settings …
    ("reason", TEXT),
    ("since", TEXT, lambda row: timestamp(row["since_us"])),
    ("age_s", INT8),
    ("state", TEXT),
    ("tx_status", TEXT),
    ("application_name", TEXT),
    ("addr", TEXT),
    ("ptr", TEXT, pointer("c", "id")),
    ("link", TEXT, pointer("s", "link")),
    ("remote_pid", INT4),
    ("id", INT4, lambda row: row["global_id"]),
    ("worker", INT4),
]


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("pins")
    rows = sorted(snapshot.rows("pins"), key=lambda row: (-row["age_s"], row["tenant"], row["id"]))
    return table(COLUMNS, rows, snapshot.notices)
