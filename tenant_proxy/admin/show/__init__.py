"""SHOW commands, one module each; columns are PgBouncer 1.25's in its order, ours after them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenant_proxy.admin.context import AdminContext, AdminResult
from tenant_proxy.admin.show import (
    catalog,
    clients,
    config,
    databases,
    help_,
    lanes,
    listeners,
    lists,
    pins,
    pools,
    servers,
    state,
    stats,
    tenants,
    users,
    version,
    violations,
    workers,
)


@dataclass(frozen=True, slots=True)
class Show:
    help: str
    run: Callable[[AdminContext], Awaitable[AdminResult]]


SHOWS: dict[str, Show] = {
    "pools": Show("Connections per tenant and login, of all workers together.", pools.show),
    "clients": Show("Every client connection.", clients.show),
    "servers": Show("Every connection to PostgreSQL.", servers.show),
    "stats": Show("Totals and averages per tenant.", stats.show),
    "stats_totals": Show("The totals of SHOW STATS.", stats.show_totals),
    "stats_averages": Show("The averages of SHOW STATS.", stats.show_averages),
    "totals": Show("SHOW STATS summed over all tenants.", stats.show_sums),
    "tenants": Show("Every tenant: where it is, what it may, what it does.", tenants.show),
    "lanes": Show("Tenants with shared backends: what ran there, what on their own, and why.", lanes.show),
    "catalog": Show("Whether the catalog is followed, and what of it can't be used.", catalog.show),
    "pins": Show("Clients that keep a server between transactions, and why.", pins.show),
    "listeners": Show("Clients in transaction mode for which the proxy listens.", listeners.show),
    "databases": Show("Tenants as PgBouncer's databases.", databases.show),
    "users": Show("Logins of the configuration.", users.show),
    "lists": Show("How many there are of what.", lists.show),
    "config": Show("Settings in force, without secrets.", config.show),
    "workers": Show("The worker processes.", workers.show),
    "violations": Show("What the guard refused or would refuse, without literals.", violations.show),
    "state": Show("Whether the proxy is active.", state.show),
    "version": Show("Version of the proxy.", version.show),
}


async def _help(ctx: AdminContext) -> AdminResult:
    return help_.table_of({name: show.help for name, show in SHOWS.items()})


SHOWS["help"] = Show("This list.", _help)
