"""SHOW CLIENTS and the columns that it shares with SHOW SERVERS."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from tenant_proxy.admin.context import (
    INT4,
    TEXT,
    AdminContext,
    AdminResult,
    Column,
    Row,
    constant,
    database_of,
    table,
    timestamp,
)


def pointer(kind: str, name: str) -> Callable[[Row], str]:
    """PgBouncer shows addresses of objects; ours are c<worker>.<id> and s<worker>.<id>."""
    return lambda row: f"{kind}{row['worker']}.{row[name]}" if row.get(name) else ""


def tls_text(row: Row) -> str:
    return "TLS" if row.get("tls") is True else row.get("tls") or ""


def connection_columns(kind: str, peer: str) -> list[Column]:
    """Of a client (kind "c") or server ("s"), linked to a `peer` of the other kind."""
    return [
        ("type", TEXT, constant(kind.upper())),
        ("user", TEXT),
        ("database", TEXT, database_of),
        ("replication", TEXT, constant("none")),
        ("state", TEXT),
        ("addr", TEXT),
        ("port", INT4),
        ("local_addr", TEXT),
        ("local_port", INT4),
        ("connect_time", TEXT, lambda row: timestamp(row["connect_time"])),
        ("request_time", TEXT, lambda row: timestamp(row["request_time"])),
        ("wait", INT4, lambda row: (row.get("wait_us") or 0) // 1_000_000),
        ("wait_us", INT4, lambda row: (row.get("wait_us") or 0) % 1_000_000),
        ("close_needed", INT4, lambda row: int(row.get("close_needed") or 0)),
        ("ptr", TEXT, pointer(kind, "id")),
        ("link", TEXT, pointer(peer, "link")),
        ("remote_pid", INT4, lambda row: row.get("remote_pid") or 0),
        ("tls", TEXT, tls_text),
        ("application_name", TEXT, lambda row: row.get("application_name") or ""),
        ("prepared_statements", INT4),
        ("id", INT4, itemgetter("global_id")),
        # ours
        ("tenant", TEXT, lambda row: row.get("tenant") or None),
        ("worker", INT4),
        ("tx_status", TEXT),
    ]


COLUMNS: list[Column] = [
    *connection_columns("c", "s"),
    ("client_database", TEXT, lambda row: row["database"]),
    ("pinned", INT4, lambda row: int(bool(row.get("pinned")))),
]


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("clients")
    return table(COLUMNS, snapshot.rows("clients"), snapshot.notices)
