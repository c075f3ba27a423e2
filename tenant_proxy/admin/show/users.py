"""SHOW USERS: logins of the configuration (those found by auth_query are not listed)."""

from __future__ import annotations

from tenant_proxy.admin.context import INT4, TEXT, AdminContext, AdminResult, Column, Row, constant, table

COLUMNS: list[Column] = [
    ("name", TEXT),
    ("pool_size", TEXT, constant("")),
    ("reserve_pool_size", TEXT, constant("")),
    ("pool_mode", TEXT, constant(None)),
    ("max_user_connections", INT4, constant(0)),
    ("current_connections", INT4),
    ("max_user_client_connections", INT4),
    ("current_client_connections", INT4),
    # ours
    ("tenants", TEXT),
    ("rights", TEXT),
]

#: of a row of SHOW POOLS
_CLIENTS = ("cl_active", "cl_waiting")
_SERVERS = (
    "sv_active", "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login",
)  # fmt: skip


async def show(ctx: AdminContext) -> AdminResult:
    snapshot = await ctx.snapshot("pools")
    clients: dict[str, int] = {}
    servers: dict[str, int] = {}
    for row in snapshot.rows("pools"):
        user = row["user"]
        clients[user] = clients.get(user, 0) + sum(row[name] for name in _CLIENTS)
        servers[user] = servers.get(user, 0) + sum(row[name] for name in _SERVERS)
    rows: list[Row] = []
    for user in sorted(ctx.registry.logins.values(), key=lambda user: user.name):
        rights = [right for right, given in (("admin", user.admin), ("stats", user.stats)) if given]
        rows.append(
            {
                "name": user.name,
                "current_connections": servers.get(user.name, 0),
                "max_user_client_connections": user.max_clients,
                "current_client_connections": clients.get(user.name, 0),
                "tenants": ", ".join(user.tenants),
                "rights": ", ".join(rights),
            }
        )
    return table(COLUMNS, rows, snapshot.notices)
