"""What is known of tenants' own code: functions, views, defaults, policies … that run without being named.

A tenant's statements run on shared backends only while all of its code is proven (relay.lanes): each
function's body is judged by the guard, and stored expressions are searched for functions that may not be
called there.  The code is read with the service's login when the tenant first comes, and again when it
may have changed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.config.schema import Cluster, Isolation
from tenant_proxy.guard.functions import FUNCTIONS, OIDS, extension_fact
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.sharing import is_proven
from tenant_proxy.model import Action, Effect
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.obs.log import get_logger
from tenant_proxy.pool.budget import CODE_COUNTERS
from tenant_proxy.tenancy.registry import TenantInfo

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("code")

QUERY_S: Final = 10.0
#: pause before code that is not proven is read again; doubles up to the longest
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
#: a statement that may change code waits this long for what runs on shared backends
QUIET_S: Final = 10.0
QUIET_POLL_S: Final = 0.02

#: transactions that were open before it is read are waited for
OLD_S: Final = 1.0
OLD_POLL_S: Final = 0.02

CODE, SHARING, CODING = CODE_COUNTERS

#: extensions whose functions in C run no SQL of their callers'
EXTENSIONS: Final = frozenset(
    {
        *("btree_gin", "btree_gist", "citext", "cube", "dict_int", "dict_xsyn", "earthdistance"),
        *("fuzzystrmatch", "hstore", "intagg", "intarray", "isn", "ltree", "pg_trgm", "pgcrypto", "seg"),
        *("tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector"),
        *("autoinc", "insert_username", "moddatetime", "lo", "bloom", "plpgsql"),
    }
)

#: functions of pg_catalog that stored expressions must not call unseen
RISKY_OIDS: Final = frozenset(
    oid
    for oid, names in OIDS.items()
    for name in names
    if (fact := FUNCTIONS.get(name)) is not None
    and (fact.refused or fact.sets or fact.queries or fact.effects & Effect.PINS)
)
FIRST_USER_OID: Final = 16384

_OPEN = """
SELECT l.virtualtransaction
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'virtualxid' AND l.granted AND a.usename = ANY ($1::pg_catalog.text[])
"""

#: why the service login must not be shared by tenants, if so
_UNFIT = """
SELECT CASE WHEN r.rolsuper THEN 'SUPERUSER' WHEN r.rolbypassrls THEN 'BYPASSRLS'
            WHEN r.rolcreaterole THEN 'CREATEROLE'
            WHEN coalesce(m.inherits, r.rolinherit) THEN 'INHERIT' END
  FROM pg_catalog.pg_roles r
 CROSS JOIN LATERAL (
   SELECT pg_catalog.bool_or((pg_catalog.to_jsonb(a) ->> 'inherit_option')::pg_catalog.bool)
     FROM pg_catalog.pg_auth_members a WHERE a.member = r.oid) AS m (inherits)
 WHERE r.rolname = SESSION_USER
"""

_FUNCTIONS = """
SELECT p.oid, n.nspname || '.' || p.proname AS name, l.lanname AS language, e.extname AS extension,
       p.prokind::text,
       CASE WHEN l.lanname IN ('sql', 'plpgsql') AND p.prokind IN ('f', 'p', 'w')
            THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
 WHERE n.nspname = ANY ($1::pg_catalog.text[])
"""

#: stands for session_user among the functions that are called
SESSION_USER: Final = (1 << 32) - 1


def _called() -> str:
    """SQL for the functions that stored expressions, triggers, operators, casts and aggregates call."""
    trees = (
        ("pg_rewrite", "ev_class", ("ev_action", "ev_qual")),
        ("pg_attrdef", "adrelid", ("adbin",)),
        ("pg_policy", "polrelid", ("polqual", "polwithcheck")),
        ("pg_trigger", "tgrelid", ("tgqual",)),
        ("pg_index", "indrelid", ("indexprs", "indpred")),
        ("pg_partitioned_table", "partrelid", ("partexprs",)),
        ("pg_statistic_ext", "stxrelid", ("stxexprs",)),
    )
    parts = [
        f"SELECT {column}::pg_catalog.text FROM pg_catalog.{table}"
        f" WHERE {key} IN (SELECT oid FROM relations) AND {column} IS NOT NULL"
        for table, key, columns in trees
        for column in columns
    ]
    parts += [
        f"SELECT {column}::pg_catalog.text FROM pg_catalog.{table}"
        f" WHERE {key} IN (SELECT oid FROM spaces) AND {column} IS NOT NULL"
        for table, key, columns in (
            ("pg_constraint", "connamespace", ("conbin",)),
            ("pg_proc", "pronamespace", ("proargdefaults", "prosqlbody")),
            ("pg_type", "typnamespace", ("typdefaultbin",)),
        )
        for column in columns
    ]
    calls = [
        "SELECT m[1]::pg_catalog.oid FROM trees,"
        " pg_catalog.regexp_matches(t, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m",
        f"SELECT {SESSION_USER}::pg_catalog.oid FROM trees WHERE t ~ 'SQLVALUEFUNCTION :op 12 '",
        "SELECT tgfoid FROM pg_catalog.pg_trigger WHERE tgrelid IN (SELECT oid FROM relations)",
        "SELECT oprcode::pg_catalog.oid FROM pg_catalog.pg_operator"
        " WHERE oprnamespace IN (SELECT oid FROM spaces)",
        "SELECT castfunc FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t"
        " ON t.oid IN (c.castsource, c.casttarget) WHERE t.typnamespace IN (SELECT oid FROM spaces)",
    ]
    calls += [
        f"SELECT a.{column}::pg_catalog.oid FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc p"
        " ON p.oid = a.aggfnoid WHERE p.pronamespace IN (SELECT oid FROM spaces)"
        for column in (
            *("aggtransfn", "aggfinalfn", "aggcombinefn", "aggserialfn", "aggdeserialfn"),
            *("aggmtransfn", "aggminvtransfn", "aggmfinalfn"),
        )
    ]
    return (
        "WITH spaces AS (SELECT oid FROM pg_catalog.pg_namespace"
        " WHERE nspname = ANY ($1::pg_catalog.text[])),"
        " relations AS (SELECT c.oid FROM pg_catalog.pg_class c"
        " WHERE c.relnamespace IN (SELECT oid FROM spaces)),"
        f" trees (t) AS ({' UNION ALL '.join(parts)})"
        f" SELECT DISTINCT f FROM ({' UNION ALL '.join(calls)}) AS calls (f)"
    )


_CALLED = _called()

#: what a login of the role would have set (settings that only superusers may set are left out)
_DEFAULTS = """
SELECT s.setting FROM pg_catalog.pg_db_role_setting r
  JOIN pg_catalog.pg_roles o ON o.oid = r.setrole
 CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS s (setting)
  LEFT JOIN pg_catalog.pg_settings g
    ON pg_catalog.lower(g.name) = pg_catalog.lower(pg_catalog.split_part(s.setting, '=', 1))
 WHERE o.rolname = $1 AND coalesce(g.context, 'user') = 'user'
   AND r.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                              WHERE d.datname = pg_catalog.current_database()))
 ORDER BY r.setdatabase
"""


@dataclass(slots=True)
class Knowledge:
    """What is known of one tenant's code."""

    #: why it is not proven; "" if it is
    doubt: str = "not read yet"
    #: the shared counter's sum when it was read
    mark: int = 0
    read: bool = False
    #: role -> settings of its logins
    defaults: dict[str, dict[str, str]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    again_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    #: what is done when it has been read
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Code:
    """The code of a worker's tenants with shared backends."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._guard = Guard()
        self._known: dict[str, Knowledge] = {}
        self._connections: dict[str, asyncpg.Connection[asyncpg.Record]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        #: client -> since when it waits to change code
        self._changing: dict[int, float] = {}

    def of(self, tenant: str) -> Knowledge:
        known = self._known.get(tenant)
        if known is None:
            known = self._known[tenant] = Knowledge()
        return known

    def doubt(self, tenants: Iterable[str]) -> None:
        """What is known of these tenants is read again."""
        for name in tenants:
            known = self._known.get(name)
            if known is not None:
                known.again_at = 0.0
                known.read = False
                self._tell(name, known)

    def forget(self) -> None:
        """A reload: everything is read again."""
        self.doubt(list(self._known))
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()

    # --- clients that wait ---------------------------------------------------------

    def when_read(self, tenant: TenantInfo, work: Callable[[], None]) -> None:
        """Calls `work` when the tenant's code has been read, which is begun if need be."""
        known = self.of(tenant.name)
        known.waiting.append(work)
        self._begin(tenant, known)

    def on_unread(self, client: int, tenant: TenantInfo) -> None:
        """A client waits until its tenant's code has been read."""
        self.when_read(tenant, lambda: self._worker.engine.client_retry(client))

    def may_wait_on(self, client: int) -> bool:
        """Whether a client may go on waiting for shared backends to become quiet; it is read again soon."""
        now = time.monotonic()
        since = self._changing.setdefault(client, now)
        if now - since > QUIET_S:
            del self._changing[client]
            return False
        asyncio.get_running_loop().call_later(QUIET_POLL_S, self._retry, client)
        return True

    def on_client_gone(self, client: int) -> None:
        self._changing.pop(client, None)

    def _retry(self, client: int) -> None:
        self._worker.engine.client_retry(client)
        self._worker.engine.poke()

    # --- when it is read -------------------------------------------------------------

    def sweep(self) -> None:
        """Reads again what may have changed."""
        now = time.monotonic()
        for name, known in self._known.items():
            tenant = self._worker.state.registry.tenants.get(name)
            if tenant is None or tenant.isolation is not Isolation.SHARED:
                continue
            stale = known.read and known.mark != self._worker.budget.used(f"{CODE}:{tenant.code}")
            if (stale or known.doubt) and known.task is None and now >= known.again_at:
                self._begin(tenant, known)
        for client, since in list(self._changing.items()):
            if now - since > 2 * QUIET_S:
                del self._changing[client]

    def _begin(self, tenant: TenantInfo, known: Knowledge) -> None:
        if known.task is None:
            known.task = asyncio.get_running_loop().create_task(self._read(tenant, known))

    async def _read(self, tenant: TenantInfo, known: Knowledge) -> None:
        budget = self._worker.budget
        mark = budget.used(f"{CODE}:{tenant.code}")
        try:
            if budget.used(f"{CODING}:{tenant.code}"):
                doubt = "changing"
            else:
                lock = self._locks.setdefault(tenant.cluster.name, asyncio.Lock())
                async with lock, asyncio.timeout(QUERY_S):
                    doubt = await self._ask(tenant, known)
                if mark != budget.used(f"{CODE}:{tenant.code}"):
                    doubt = "changed while it was read"
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            doubt = f"could not be read: {str(error) or type(error).__name__}"
            connection = self._connections.pop(tenant.cluster.name, None)
            if connection is not None:
                connection.terminate()
        finally:
            known.task = None
        if doubt != known.doubt:
            log.info("code of a tenant was read", tenant=tenant.name, doubt=doubt or None)
        known.doubt, known.mark, known.read = doubt, mark, True
        known.pause_s = min(LONGEST_PAUSE_S, 2 * known.pause_s) if doubt else FIRST_PAUSE_S
        known.again_at = time.monotonic() + known.pause_s
        self._tell(tenant.name, known)
        waiting, known.waiting = known.waiting, []
        for work in waiting:
            work()
        self._worker.engine.poke()

    def _tell(self, tenant: str, known: Knowledge) -> None:
        for record in self._worker.pools:
            if record.tenant.name == tenant and record.shared:
                self.tell(record.id, known)

    def tell(self, pool: int, known: Knowledge) -> None:
        """What the engine is to think of a pool's tenant: 0 not proven, 1 proven, 2 not read yet."""
        self._worker.engine.pool_proven(pool, int(not known.doubt) if known.read else 2, known.mark)

    # --- reading ------------------------------------------------------------------------

    async def _old_ones_end(self, connection: asyncpg.Connection[asyncpg.Record], logins: list[str]) -> bool:
        """Waits a while for the transactions that are open now, which may have changed code unseen: those of
        workers that have died too.  What begins later and may change code is counted."""
        old = {row[0] for row in await connection.fetch(_OPEN, logins)}
        end = time.monotonic() + OLD_S
        while old:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(OLD_POLL_S)
            old &= {row[0] for row in await connection.fetch(_OPEN, logins)}
        return True

    async def _ask(self, tenant: TenantInfo, known: Knowledge) -> str:
        connection = await self._connection(tenant.cluster)
        schemas = [tenant.schema, *tenant.policy.allowed_schemas]
        if not await self._old_ones_end(connection, self._writers(tenant)):
            return "transactions are open"
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            unfit = await connection.fetchval(_UNFIT)
            if unfit:
                return f"the service login is {unfit}"
            functions = await connection.fetch(_FUNCTIONS, schemas)
            called = {row["f"] for row in await connection.fetch(_CALLED, schemas)}
            for role in self._roles(tenant):
                rows = await connection.fetch(_DEFAULTS, role)
                known.defaults[role] = dict(row["setting"].split("=", 1) for row in rows)
        scope = self._scope(tenant)
        own = set()
        for row in functions:
            own.add(row["oid"])
            doubt = self._judge(scope, row)
            if doubt:
                return doubt
        if SESSION_USER in called:
            return "an expression names session_user"
        risky = called & RISKY_OIDS
        if risky:
            return f"an expression calls {OIDS[min(risky)][0]}"
        strange = {oid for oid in called if oid is not None and oid >= FIRST_USER_OID} - own
        if strange:
            return f"an expression calls function {min(strange)} of another schema"
        return ""

    def _logins(self, tenant: TenantInfo) -> list[str]:
        registry = self._worker.state.registry
        names = set(registry.roles_of(tenant))
        names |= {pool.server_user for pool in self._worker.pools if pool.tenant.name == tenant.name}
        return sorted(names)

    def _writers(self, tenant: TenantInfo) -> list[str]:
        """Logins by which the tenant's code is changed: also those of others in its schema."""
        tenants = self._worker.state.registry.neighbours(tenant)
        return [login for one in tenants for login in self._logins(one)]

    def _roles(self, tenant: TenantInfo) -> set[str]:
        """The roles that shared backends take for it."""
        roles = {
            login.roles.get(tenant.name) or tenant.role or user
            for login in self._worker.state.registry.logins_of(tenant.name)
            for user in login.server_users
        }
        roles |= {
            pool.tenant.role or pool.server_user
            for pool in self._worker.pools
            if pool.tenant.name == tenant.name
        }
        return roles

    def _scope(self, tenant: TenantInfo) -> GuardScope:
        """As the tenant's, but functions of the schemas that it may read are judged too."""
        scope = GuardScope.build(
            id=0,
            tenant=tenant.name,
            schema=tenant.schema,
            policy=tenant.policy,
            role=tenant.role,
            roles=self._logins(tenant),
        )
        return dataclasses.replace(scope, writable=scope.readable)

    def _judge(self, scope: GuardScope, row: asyncpg.Record) -> str:
        name = row["name"]
        if row["prokind"] == "a":
            return ""  # what it calls is looked at
        if row["language"] in ("c", "internal"):
            fact = extension_fact(name.rpartition(".")[2])
            if row["extension"] in EXTENSIONS and (fact is None or not fact.refused):
                return ""
            return f"function {name} is in language {row['language']}"
        if row["definition"] is None:
            return f"function {name} is in language {row['language']}"
        verdict = self._guard.judge(scope, row["definition"])
        if verdict.action is Action.REJECT:
            return f"function {name} is refused: {verdict.reason}"
        return "" if is_proven(verdict.effects) else f"function {name} is not proven"

    async def _connection(self, cluster: Cluster) -> asyncpg.Connection[asyncpg.Record]:
        connection = self._connections.get(cluster.name)
        if connection is None or connection.is_closed():
            password = cluster.service.password
            connection = self._connections[cluster.name] = await asyncpg.connect(
                host=cluster.host,
                port=cluster.port,
                user=cluster.service.user,
                password=password.reveal() if password is not None else "",
                database=cluster.database,
                ssl=asyncpg_ssl(cluster.tls),
                direct_tls=cluster.tls.negotiation == "direct",
                timeout=QUERY_S,
                statement_cache_size=0,
                server_settings={"search_path": "", "application_name": "tenant_proxy code"},
            )
        return connection
