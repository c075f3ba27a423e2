"""SHOW VERSION."""

from __future__ import annotations

import tenant_proxy
from tenant_proxy.admin.context import TEXT, AdminContext, AdminResult, Column, table

# One column of this name: pgbouncer_exporter takes no other.
COLUMNS: list[Column] = [("version", TEXT)]


async def show(ctx: AdminContext) -> AdminResult:
    return table(COLUMNS, [{"version": f"tenant_proxy {tenant_proxy.__version__}"}])
