"""Measures what tenants store, and says who has more than they may.

Sizes are asked of each database once a minute, in one statement, and only of schemas that may have changed:
of tenants that ran something since they were measured, and of each other one every FULL_S.  It is the
admin's login of the cluster that asks, or the service's where there is none; a cluster with neither is not
measured.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.config.schema import Cluster, SecretRef
from tenant_proxy.control.catalog import FAILURES
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.obs.log import get_logger
from tenant_proxy.tenancy.records import TenantInfo

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = get_logger("storage")

CONNECT_S: Final = 10.0
QUERY_S: Final = 30.0
#: each tenant is measured so often, whatever it does
FULL_S: Final = 600.0

# Partitions, indexes, TOAST tables and materialized views are relations of the schema or belong to one.
_SIZES = """
SELECT n.nspname AS schema, coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint AS bytes
  FROM pg_catalog.pg_namespace n
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'm', 'S')
 WHERE n.nspname = ANY ($1::pg_catalog.text[])
 GROUP BY n.nspname
"""

_SAVE = """
WITH measured AS (
    SELECT t.id, m.bytes,
           coalesce(((coalesce(p.spec, '{}') || t.spec) ->> 'storage_bytes')::numeric, 0) AS most
      FROM unnest($1::text[], $2::bigint[]) AS m (name, bytes)
      JOIN tenant t ON t.name = m.name AND t.state IN ('active', 'suspended', 'deleting')
      LEFT JOIN plan p ON p.name = t.plan)
UPDATE tenant t
   SET storage_bytes = m.bytes, storage_at = now(), over_storage = m.most > 0 AND m.bytes > m.most
  FROM measured m
 WHERE t.id = m.id
   AND (t.storage_bytes <> m.bytes OR t.over_storage <> (m.most > 0 AND m.bytes > m.most)
        OR t.storage_at IS NULL)
"""


class Storage:
    """What tenants store, as last measured."""

    def __init__(self) -> None:
        #: tenant -> bytes
        self.bytes: dict[str, int] = {}
        self._measured_at: dict[str, float] = {}
        self._failed: set[str] = set()

    async def measure(self, tenants: Iterable[TenantInfo], active: Callable[[str], bool]) -> dict[str, int]:
        """Measures those that need it; returns their bytes."""
        now = time.monotonic()
        places: dict[tuple[str, str], list[TenantInfo]] = defaultdict(list)
        for tenant in tenants:
            last = self._measured_at.get(tenant.name)
            if last is None or now - last > FULL_S or active(tenant.name):
                places[tenant.cluster.name, tenant.cluster.database].append(tenant)
        found: dict[str, int] = {}
        for some in places.values():
            found |= await self._measure_database(some)
        self._measured_at |= dict.fromkeys(found, now)
        self.bytes |= found
        return found

    async def _measure_database(self, tenants: list[TenantInfo]) -> dict[str, int]:
        cluster = tenants[0].cluster
        login = _login(cluster)
        if login is None:
            return {}
        connection = None
        try:
            async with asyncio.timeout(QUERY_S):
                connection = await _connect(cluster, *login)
                rows = await connection.fetch(_SIZES, list({tenant.schema for tenant in tenants}))
        except FAILURES as error:
            if cluster.name not in self._failed:
                why = str(error) or type(error).__name__
                log.error("storage can't be measured", cluster=cluster.name, error=why)
            self._failed.add(cluster.name)
            return {}
        finally:
            if connection is not None:
                connection.terminate()
        self._failed.discard(cluster.name)
        sizes = {row["schema"]: row["bytes"] for row in rows}
        return {tenant.name: sizes[tenant.schema] for tenant in tenants if tenant.schema in sizes}

    def full(self, tenants: Iterable[TenantInfo]) -> list[str]:
        """Of tenants whose limit the file says: those that have more."""
        return sorted(
            tenant.name
            for tenant in tenants
            if tenant.storage_bytes and self.bytes.get(tenant.name, 0) > tenant.storage_bytes
        )


async def save(connect: Callable[[], Awaitable[Connection]], sizes: dict[str, int]) -> None:
    """Writes sizes of the catalog's tenants into it; proxies hear who is full, or no longer is."""
    connection = await connect()
    try:
        await connection.execute(_SAVE, list(sizes), list(sizes.values()))
    finally:
        connection.terminate()


def _login(cluster: Cluster) -> tuple[str, SecretRef | None] | None:
    for login in (cluster.admin, cluster.service):
        if login.user is not None:
            return login.user, login.password
    return None


async def _connect(cluster: Cluster, user: str, password: SecretRef | None) -> Connection:
    return await asyncpg.connect(
        host=cluster.host,
        port=cluster.port,
        user=user,
        password=password.reveal() if password is not None else "",
        database=cluster.database,
        ssl=asyncpg_ssl(cluster.tls),
        direct_tls=cluster.tls.negotiation == "direct",
        timeout=CONNECT_S,
        statement_cache_size=0,
        server_settings={"search_path": "", "application_name": "tenant_proxy storage"},
    )
