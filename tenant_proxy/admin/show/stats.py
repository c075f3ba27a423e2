"""SHOW STATS, STATS_TOTALS, STATS_AVERAGES, TOTALS.

The supervisor sums the workers' counters (`admin.stats_window`), because it alone
still knows what a worker that died had counted.
"""

from __future__ import annotations

from operator import itemgetter

from tenant_proxy.admin.context import NUMERIC, TEXT, AdminContext, AdminResult, Column, Row, table
from tenant_proxy.admin.stats_window import AVERAGES, TOTALS, WINDOW_COLUMN

#: PgBouncer drops the prefix in STATS_TOTALS and STATS_AVERAGES, but not of these averages
_KEEP_PREFIX = ("avg_client_parse_count", "avg_server_parse_count", "avg_bind_count")


#: and calls bytes by other names there
_BYTES = {"received": "bytes_received", "sent": "bytes_sent", "recv": "bytes_received"}


def _short(name: str, prefix: str) -> str:
    if name in _KEEP_PREFIX:
        return name
    short = name.removeprefix(prefix)
    return _BYTES.get(short, short)


def _renamed(names: tuple[str, ...], prefix: str) -> list[Column]:
    return [(_short(name, prefix), NUMERIC, itemgetter(name)) for name in names]


_DATABASE: Column = ("database", TEXT)
_WINDOW: Column = (WINDOW_COLUMN, NUMERIC)
COLUMNS: list[Column] = [_DATABASE, *((name, NUMERIC) for name in (*TOTALS, *AVERAGES)), _WINDOW]
TOTALS_COLUMNS: list[Column] = [_DATABASE, *_renamed(TOTALS, "total_")]
AVERAGES_COLUMNS: list[Column] = [_DATABASE, *_renamed(AVERAGES, "avg_"), _WINDOW]
SUMS_COLUMNS: list[Column] = [("name", TEXT), ("value", NUMERIC)]


async def _rows(ctx: AdminContext, *, together: bool = False) -> list[Row]:
    rows: list[Row] = await ctx.call("supervisor", "stats", {"together": together})
    return rows


async def show(ctx: AdminContext) -> AdminResult:
    return table(COLUMNS, await _rows(ctx))


async def show_totals(ctx: AdminContext) -> AdminResult:
    return table(TOTALS_COLUMNS, await _rows(ctx))


async def show_averages(ctx: AdminContext) -> AdminResult:
    return table(AVERAGES_COLUMNS, await _rows(ctx))


async def show_sums(ctx: AdminContext) -> AdminResult:
    rows = await _rows(ctx, together=True)
    return table(SUMS_COLUMNS, [{"name": name, "value": rows[0][name]} for name in (*TOTALS, *AVERAGES)])
