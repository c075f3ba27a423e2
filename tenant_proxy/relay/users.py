"""auth_query: the secrets of logins that the file does not know, asked of the server.

What it runs is the operator's query on a connection of its own, with search_path empty, and the
user's name bound as a parameter.  Answers are kept for `cache_s`, also that there is no such user.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg

from tenant_proxy.auth.secret import Secret
from tenant_proxy.config.schema import Cluster
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.obs.log import get_logger

log = get_logger("auth_query")

QUERY_S = 5.0
MAX_CACHED = 10_000


class Users:
    """Answers of auth_query, by cluster and name."""

    def __init__(self) -> None:
        self._cache: dict[tuple[str, str], tuple[float, Secret | None]] = {}
        self._connections: dict[str, asyncpg.Connection[asyncpg.Record]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def look_up(self, cluster: Cluster, name: str) -> Secret | None:
        """The secret of a login, None if there is none; a failing query counts as none, and is logged."""
        key = (cluster.name, name)
        cached = self._cache.get(key)
        if cached is not None and time.monotonic() - cached[0] < cluster.auth_query.cache_s:
            return cached[1]
        lock = self._locks.setdefault(cluster.name, asyncio.Lock())
        async with lock:
            try:
                async with asyncio.timeout(QUERY_S):
                    secret = await self._ask(cluster, name)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning(
                    "auth_query failed", cluster=cluster.name, error=str(error) or type(error).__name__
                )
                connection = self._connections.pop(cluster.name, None)
                if connection is not None:
                    connection.terminate()
                return None
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[key] = (time.monotonic(), secret)
        return secret

    async def _ask(self, cluster: Cluster, name: str) -> Secret | None:
        connection = self._connections.get(cluster.name)
        if connection is None or connection.is_closed():
            connection = await self._connect(cluster)
            self._connections[cluster.name] = connection
        row = await connection.fetchrow(cluster.auth_query.query, name)
        if row is None or row[1] is None:
            return None
        return Secret.parse(row[1])

    async def _connect(self, cluster: Cluster) -> asyncpg.Connection[asyncpg.Record]:
        auth = cluster.auth_query
        return await asyncpg.connect(
            host=cluster.host,
            port=cluster.port,
            user=auth.user,
            password=auth.password.reveal() if auth.password is not None else None,
            database=auth.database or cluster.database,
            ssl=asyncpg_ssl(cluster.tls),
            timeout=QUERY_S,
            statement_cache_size=0,
            server_settings={"search_path": "", "application_name": "tenant_proxy auth_query"},
        )

    def forget(self) -> None:
        """A reload: ask again."""
        self._cache.clear()
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()
