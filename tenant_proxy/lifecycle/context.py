"""What the verbs and jobs work with: the configuration, the catalog, and a way into each cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.keeping import Keeping
from tenant_proxy.catalog.store import Store, left
from tenant_proxy.config.schema import Cluster, Config
from tenant_proxy.net.tls import asyncpg_ssl

if TYPE_CHECKING:
    from tenant_proxy.catalog.records import Job, Tenant
    from tenant_proxy.lifecycle.at_once import Begun
    from tenant_proxy.lifecycle.rehearsal import Rehearsal

    Connection = asyncpg.Connection[asyncpg.Record]

#: connections to one database of a cluster at most, from one process
ADMIN_CONNECTIONS: Final = 16
#: … of which each ends after as many queries, some fifty tenants: what a session knows of objects that it
#: has made, and plans of functions that are gone, make every change of definitions dearer in it
ADMIN_QUERIES: Final = 300
CONNECT_TIMEOUT_S: Final = 10.0


def local_actor() -> str:
    """Who runs the command here."""
    name = os.environ.get("SUDO_USER") or os.environ.get("USER") or os.environ.get("LOGNAME")
    return f"{name or os.getuid()}@{socket.gethostname()}"


class Context:
    """Opened once a process; closes what it has opened."""

    def __init__(self, config: Config, store: Store, actor: str) -> None:
        self.config = config
        self.store = store
        #: who asks, for the log of changes
        self.actor = actor
        #: told of each point at which the process may die (tests let it)
        self.at_point: Callable[[str], None] = _nothing
        #: told of each job that begins
        self.began: Callable[[Job], None] = _nothing
        #: set while verbs are only tried: SQL for clusters comes here, and nothing is changed anywhere
        self.rehearsal: Rehearsal | None = None
        #: pass phrases of archives, by job: never written with it
        self.secrets: dict[int, str] = {}
        #: told what is being done, how much of it, and of how much
        self.watcher: Callable[[str, int, int], None] | None = None
        #: jobs that this process works on
        self.running: set[int] = set()
        #: of jobs that began here and are not worked on yet
        self.begun: dict[int, Begun] = {}
        #: (cluster, setting, value) that the cluster takes
        self.settings_taken: set[tuple[str, str, str]] = set()
        self._pools: dict[tuple[str, str], Keeping] = {}

    @classmethod
    async def open(
        cls, config: Config, actor: str | None = None, *, check: bool = True, connections: int = 4
    ) -> Self:
        """Of a loaded configuration; Failure where it names no catalog, or that can't be used."""
        dsn = config.catalog.dsn
        if dsn is None:
            raise Failure(
                "invalid",
                "the configuration names no catalog",
                hint="catalog: {dsn: {file: …}}, with postgresql://USER:PASSWORD@HOST:PORT/DATABASE in it",
            )
        store = await Store.connect(dsn.reveal(), connections=connections, check=check)
        return cls(config, store, actor or local_actor())

    async def close(self) -> None:
        for pool in self._pools.values():
            pool.terminate()
        await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def rehearsing(self) -> AsyncIterator[Context]:
        """A context in which everything is done and nothing stays: what the catalog is told is rolled back,
        and what clusters would be told stands in its `rehearsal`.
        """
        from tenant_proxy.lifecycle.rehearsal import Rehearsal

        rehearsal = Rehearsal()
        async with self.store.rehearsing(rehearsal.changed) as store:
            other = Context(self.config, store, self.actor)
            other._pools = self._pools
            other.secrets = self.secrets
            other.settings_taken = self.settings_taken
            other.rehearsal = rehearsal
            yield other

    def acting_as(self, actor: str) -> Context:
        """The same connections for somebody else, as an API serves many."""
        other = Context(self.config, self.store, actor)
        other._pools = self._pools
        other.running = self.running
        other.begun = self.begun
        other.watcher = self.watcher
        other.secrets = self.secrets
        other.settings_taken = self.settings_taken
        other.rehearsal = self.rehearsal
        other.at_point = self.at_point
        return other

    # --- clusters

    def cluster(self, name: str) -> Cluster:
        for cluster in self.config.clusters:
            if cluster.name == name:
                return cluster
        known = ", ".join(sorted(cluster.name for cluster in self.config.clusters))
        raise Failure("not_found", f'there is no cluster "{name}"', hint=f"the configuration has: {known}")

    def database_of(self, tenant: Tenant) -> str:
        return tenant.database or self.cluster(tenant.cluster).database

    @asynccontextmanager
    async def admin(self, cluster: str, database: str | None = None) -> AsyncIterator[Connection]:
        """A connection as the cluster's admin, with an empty search_path; the cluster's database if none is
        given.  What the server refuses is a Failure with its words.
        """
        try:
            keeping = await self._pool(self.cluster(cluster), database)
            connection = await keeping.take(CONNECT_TIMEOUT_S)
        except asyncpg.InvalidCatalogNameError:
            if self.rehearsal is None or database is None:
                raise
            # it is one that would have been made: what is read of it is read where nothing of it is
            async with self.admin(cluster) as elsewhere:
                yield self._told(elsewhere._connection, cluster, database)  # type: ignore[attr-defined]
            return
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _unreachable(cluster, error) from None
        went_well = False
        try:
            yield self._told(connection, cluster, database)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
            raise _unreachable(cluster, error) from None
        except asyncpg.PostgresError as error:
            raise refused(cluster, error) from error
        else:
            went_well = True
        finally:
            await (keeping.give if went_well else keeping.pool.release)(connection)

    def _told(self, connection: Any, cluster: str, database: str | None) -> Connection:
        """The connection, or one that only writes down what it would execute."""
        if self.rehearsal is None:
            return connection  # type: ignore[no-any-return]
        from tenant_proxy.lifecycle.rehearsal import Rehearsed

        name = database or self.cluster(cluster).database
        return Rehearsed(connection, self.rehearsal, cluster, name)  # type: ignore[return-value]

    async def close_database(self, cluster: str, database: str) -> None:
        """Before it is dropped or renamed."""
        if self.rehearsal is not None:
            return
        pool = self._pools.pop((cluster, database), None)
        if pool is not None:
            await pool.close()

    async def _pool(self, cluster: Cluster, database: str | None) -> Keeping:
        key = cluster.name, database or cluster.database
        if key not in self._pools:
            user = cluster.admin.user
            if user is None:
                raise Failure(
                    "invalid",
                    f'the cluster "{cluster.name}" has no admin login',
                    hint="clusters: [{name: …, admin: {user: …, password: {file: …}}}]",
                )
            password = cluster.admin.password
            # nothing is awaited before it is in place: two who ask at once get the same
            pool = asyncpg.create_pool(
                host=cluster.host,
                port=cluster.port,
                user=user,
                # not None: PGPASSWORD and .pgpass are none of the configuration's
                password=password.reveal() if password is not None else "",
                passfile=os.devnull,
                database=key[1],
                ssl=asyncpg_ssl(cluster.tls),
                direct_tls=cluster.tls.negotiation == "direct",
                timeout=CONNECT_TIMEOUT_S,
                min_size=0,
                max_size=ADMIN_CONNECTIONS,
                max_queries=ADMIN_QUERIES,
                reset=left,
                # a tenant's code could put another statement under the name of one that is kept
                statement_cache_size=0,
                server_settings={
                    "search_path": "",
                    "application_name": "tenant-proxy lifecycle",
                    "client_min_messages": "warning",
                },
            )
            self._pools[key] = Keeping(pool)
        await self._pools[key].pool
        return self._pools[key]


def refused(cluster: str, error: asyncpg.PostgresError) -> Failure:
    """The server's own words.  They may name objects, never secrets: none are written into statements but
    verifiers, and PostgreSQL does not repeat those."""
    detail = " ".join(filter(None, (f"SQLSTATE {error.sqlstate}.", error.detail)))
    return Failure("refused", f'cluster "{cluster}": {error}', detail=detail, hint=error.hint or "")


def _unreachable(cluster: str, error: BaseException) -> Failure:
    text = str(error) or "it takes too long"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return Failure("refused", f'cluster "{cluster}" refuses the admin login: {text}')
    return Failure("unavailable", f'cluster "{cluster}" can\'t be reached: {text}')


def _nothing(what: object) -> None:
    pass
