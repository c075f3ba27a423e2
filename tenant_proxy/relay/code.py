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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.config.schema import Cluster, Isolation
from tenant_proxy.guard.functions import FUNCTIONS, OIDS, SESSION_STATE, extension_fact
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.guard.sharing import is_proven
from tenant_proxy.model import Action, Effect, Verdict
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.obs.log import get_logger
from tenant_proxy.pool.budget import CODE_COUNTERS
from tenant_proxy.relay.code_catalogs import (
    FIRST_USER_OID,
    MAX_CODE_BYTES,
    SESSION_USER,
    SETTINGS,
    SYSTEM_SCHEMAS,
    Catalogs,
    Connection,
    Open,
    open_transactions,
    read_catalogs,
)
from tenant_proxy.settings_policy import check_setting
from tenant_proxy.shims.names import CATALOG, INFORMATION, LISTING, SYSTEM
from tenant_proxy.tenancy.registry import TenantInfo

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("code")

#: a step of the reading: to connect, to see what is open, to read
STEP_S: Final = 10.0
#: while code is read, the engine, however busy, comes back to this loop so often: else each of some twenty
#: answers waits for it, which on a loaded machine adds up to a step's time
HURRY_S: Final = 0.05
#: tenants whose code is read at once, at most
AT_ONCE: Final = 128
#: functions are judged for so long before others are served
AT_A_TIME_S: Final = 0.001
#: pause before code that is not proven is read again; doubles up to the longest
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
#: a statement that may change code waits this long for what runs on shared backends
QUIET_S: Final = 10.0
QUIET_POLL_S: Final = 0.02

#: transactions that were open before it is read are waited for
OLD_S: Final = 1.0
OLD_POLL_S: Final = 0.02
#: until what a reload has read again begins: where there are many tenants it takes the processors for seconds
AFTER_RELOAD_S: Final = 0.5

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
    and (fact.refused or fact.sets or fact.queries or fact.effects & (Effect.PINS | Effect.ESCALATES))
)

#: what CREATE TYPE … AS RANGE makes functions of
_OF_RANGES: Final = frozenset(
    {
        "range_constructor2",
        "range_constructor3",
        "multirange_constructor0",
        "multirange_constructor1",
        "multirange_constructor2",
    }
)


@dataclass(slots=True)
class Knowledge:
    """What is known of one tenant's code."""

    #: why it is not proven; "" if it is
    doubt: str = "not read yet"
    #: the shared counter's sum when it was read
    mark: int = 0
    read: bool = False
    #: what of the configuration it was read by
    basis: object = None
    #: role -> settings of its logins
    defaults: dict[str, dict[str, str]] = field(default_factory=dict)
    #: it is to be read, or is being read
    queued: bool = False
    again_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    #: what is done when it has been read
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class _Visit:
    """One tenant whose code is to be read."""

    tenant: TenantInfo
    known: Knowledge
    #: the shared counter's sum before anything was looked at
    mark: int
    #: its logins on the server, and those by which its code is changed: also of others in its schema
    logins: frozenset[str]
    writers: frozenset[str]
    #: roles that shared backends take for it
    roles: frozenset[str]
    #: when it is given up that `old` ends
    until: float
    #: transactions that were open then and still are, which may have changed code unseen
    old: set[Open] | None = None
    #: the scope that its functions are judged in, and those that take longer than the loop may be held up
    scope: GuardScope | None = None
    hard: list[asyncpg.Record] = field(default_factory=list)

    def is_quiet(self, transactions: Mapping[str, set[Open]]) -> bool:
        """Whether what was open at the first look has ended; what began later and changes code is counted."""
        now = {
            one
            for schema in self.schemas
            for one in transactions.get(schema, ())
            if one.login in self.writers
        }
        self.old = now if self.old is None else self.old & now
        return not self.old

    @property
    def basis(self) -> object:
        """What of the configuration it is read by."""
        return self.tenant, self.logins, self.roles

    @property
    def schemas(self) -> list[str]:
        return [self.tenant.schema, *self.tenant.policy.allowed_schemas]


class Code:
    """The code of a worker's tenants with shared backends."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._guard = Guard()
        self._known: dict[str, Knowledge] = {}
        #: by the clusters' names, with what they were opened by
        self._connections: dict[str, tuple[Cluster, Connection]] = {}
        #: cluster -> tenants that are to be read, and who reads them
        self._queues: dict[str, list[TenantInfo]] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        #: who have judge processes read what takes long
        self._apart: set[asyncio.Task[None]] = set()
        #: while there are some: what has the engine come back to this loop
        self._hurrying: asyncio.TimerHandle | None = None
        #: how many are read at once
        self._at_once = AT_ONCE
        #: client -> since when it waits to change code
        self._changing: dict[int, float] = {}

    def of(self, tenant: str) -> Knowledge:
        known = self._known.get(tenant)
        if known is None:
            known = self._known[tenant] = Knowledge()
        return known

    def doubt(self, tenants: Iterable[str]) -> None:
        """What is known of these tenants is read again."""
        doubted = {name: known for name in tenants if (known := self._known.get(name)) is not None}
        for known in doubted.values():
            known.again_at = 0.0
            known.read = False
        self._tell(doubted)

    def reload(self) -> None:
        """All is read again.  What was read by the same configuration holds until then, so that a reload is
        noticed by nobody; somebody may have changed code past the proxy, and says so by it."""
        tenants = self._worker.state.registry.tenants
        visits = self._visits([tenants[name] for name in self._known if name in tenants])
        same = {one.tenant.name: one for one in visits if one.known.read and one.basis == one.known.basis}
        self.doubt([name for name in self._known if name not in same])
        # logins that come with a new configuration, and the other workers, which are given it next, go first
        if same:
            asyncio.get_running_loop().call_later(AFTER_RELOAD_S, self._read_again, list(same))

    def _read_again(self, names: list[str]) -> None:
        tenants = self._worker.state.registry.tenants
        for name in names:
            tenant, known = tenants.get(name), self._known.get(name)
            if tenant is not None and known is not None and tenant.isolation is Isolation.SHARED:
                self._begin(tenant, known)

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
            if (stale or known.doubt) and not known.queued and now >= known.again_at:
                self._begin(tenant, known)
        for client, since in list(self._changing.items()):
            if now - since > 2 * QUIET_S:
                del self._changing[client]

    def _begin(self, tenant: TenantInfo, known: Knowledge) -> None:
        if known.queued:
            return
        known.queued = True
        cluster = tenant.cluster
        self._queues.setdefault(cluster.name, []).append(tenant)
        if cluster.name not in self._readers:
            self._readers[cluster.name] = asyncio.get_running_loop().create_task(self._read(cluster))
            if self._hurrying is None:
                self._hurry()

    def _hurry(self) -> None:
        self._hurrying = None
        if self._readers:
            self._worker.engine.poke()
            self._hurrying = asyncio.get_running_loop().call_later(HURRY_S, self._hurry)

    async def _read(self, cluster: Cluster) -> None:
        """Reads what is queued for a cluster; who comes meanwhile is read together next."""
        queue = self._queues[cluster.name]
        visits: list[_Visit] = []
        try:
            while queue or visits:
                visits += self._visits(queue)
                queue.clear()
                # behind a reload, who logs in does not wait for all that are read again
                visits.sort(key=lambda one: not one.known.waiting)
                before = len(visits)
                visits = await self._look(cluster, visits)
                if len(visits) == before:
                    await asyncio.sleep(OLD_POLL_S)
        finally:
            del self._readers[cluster.name]
            for visit in visits:
                visit.known.queued = False

    def _visits(self, tenants: list[TenantInfo]) -> list[_Visit]:
        budget = self._worker.budget
        users: dict[str, set[str]] = defaultdict(set)
        roles: dict[str, set[str]] = defaultdict(set)
        for pool in self._worker.pools:
            users[pool.tenant.name].add(pool.server_user)
            roles[pool.tenant.name].add(pool.tenant.role or pool.server_user)
        registry = self._worker.state.registry
        found = []
        for tenant in tenants:
            logins = registry.logins_of(tenant.name)
            found.append(
                _Visit(
                    tenant=tenant,
                    known=self.of(tenant.name),
                    mark=budget.used(f"{CODE}:{tenant.code}"),
                    logins=registry.roles_of(tenant) | users[tenant.name],
                    writers=frozenset[str]().union(
                        *(registry.roles_of(one) | users[one.name] for one in registry.neighbours(tenant))
                    ),
                    roles=frozenset(roles[tenant.name])
                    | {
                        login.roles.get(tenant.name) or tenant.role or user
                        for login in logins
                        for user in login.server_users
                    },
                    until=time.monotonic() + OLD_S,
                )
            )
        return found

    async def _look(self, cluster: Cluster, visits: list[_Visit]) -> list[_Visit]:
        """Reads the code of those that are quiet; returns those that are to be looked at again."""
        budget = self._worker.budget
        doubts = {one.tenant.name: "changing" for one in visits if budget.used(f"{CODING}:{one.tenant.code}")}
        asked = [one for one in visits if one.tenant.name not in doubts]
        batch = asked
        found: Catalogs | None = None
        try:
            async with asyncio.timeout(STEP_S) as limit:
                if asked:
                    connection = await self._connection(cluster)
                    _go_on(limit)
                    logins = {login for one in asked for login in one.writers}
                    schemas = {schema for one in asked for schema in one.schemas}
                    transactions = await open_transactions(connection, logins, schemas)
                    _go_on(limit)
                    batch = [one for one in asked if one.is_quiet(transactions)][: self._at_once]
                if batch:
                    found = await read_catalogs(
                        connection,
                        {schema for one in batch for schema in one.schemas},
                        {role for one in batch for role in one.roles},
                    )
            self._at_once = min(AT_ONCE, 2 * self._at_once)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            self._disconnect(cluster.name)
            if isinstance(error, TimeoutError) and len(batch) > 1:
                # one of them may take so long
                self._at_once = max(1, len(batch) // 8)
            else:
                why = f"could not be read: {str(error) or type(error).__name__}"
                doubts |= {one.tenant.name: why for one in batch}
        if found is not None:
            for one in batch:
                doubt = await self._doubt_of(one, found)
                if one.hard and not doubt:
                    task = asyncio.get_running_loop().create_task(self._judge_apart(one))
                    self._apart.add(task)
                    task.add_done_callback(self._apart.discard)
                else:
                    doubts[one.tenant.name] = doubt
        now = time.monotonic()
        for one in asked:
            if one.old and now > one.until:
                oldest = min(one.old)
                doubts.setdefault(
                    one.tenant.name, f"waits for a transaction of {oldest.login} (process {oldest.pid})"
                )
        self._done([one for one in visits if one.tenant.name in doubts], doubts)
        return [one for one in visits if one.tenant.name not in doubts and not one.hard]

    async def _judge_apart(self, visit: _Visit) -> None:
        """Goes on with what `_doubt_of` has left."""
        assert visit.scope is not None
        judges = self._worker.judging.judges
        doubt = ""
        try:
            for row in visit.hard:
                scope = scope_for(row, visit.scope)
                doubt = verdict_doubt(row, await judges.verdict(scope, row["definition"].encode()))
                if doubt:
                    break
            self._done([visit], {visit.tenant.name: doubt})
        finally:
            visit.known.queued = False

    def _done(self, visits: list[_Visit], doubts: Mapping[str, str]) -> None:
        registry = self._worker.state.registry
        told: dict[str, Knowledge] = {}
        for visit in visits:
            tenant, known, doubt = visit.tenant, visit.known, doubts[visit.tenant.name]
            changed = visit.mark != self._worker.budget.used(f"{CODE}:{tenant.code}")
            if changed or registry.tenant_as(tenant.name, tenant.role) != tenant:
                doubt = "changed while it was read"
            if doubt != known.doubt:
                log.info("code of a tenant was read", tenant=tenant.name, doubt=doubt or None)
            known.doubt, known.mark, known.read, known.queued = doubt, visit.mark, True, False
            known.basis = visit.basis
            known.pause_s = min(LONGEST_PAUSE_S, 2 * known.pause_s) if doubt else FIRST_PAUSE_S
            known.again_at = time.monotonic() + known.pause_s
            told[tenant.name] = known
        self._tell(told)
        for known in told.values():
            waiting, known.waiting = known.waiting, []
            for work in waiting:
                work()
        self._worker.engine.poke()

    def _tell(self, tenants: Mapping[str, Knowledge]) -> None:
        for record in self._worker.pools:
            if record.shared and record.tenant.name in tenants:
                self.tell(record.id, tenants[record.tenant.name])

    def tell(self, pool: int, known: Knowledge) -> None:
        """What the engine is to think of a pool's tenant: 0 not proven, 1 proven, 2 not read yet."""
        self._worker.engine.pool_proven(pool, int(not known.doubt) if known.read else 2, known.mark)

    # --- reading ------------------------------------------------------------------------

    async def _doubt_of(self, visit: _Visit, found: Catalogs) -> str:
        """What is not proven of a tenant's code, "" if all is but what is in `visit.hard` then.

        Judging takes its time, and others are served meanwhile.
        """
        await asyncio.sleep(0)
        began = time.monotonic()
        if found.unfit:
            return f"the service login is {found.unfit}"
        defaults = {role: defaults_of(visit.tenant, found.defaults.get(role, {})) for role in visit.roles}
        if visit.known.basis is not None and defaults != visit.known.defaults:
            self._worker.forget_switches()
        visit.known.defaults = defaults
        scope = visit.scope = scope_of(visit.tenant, visit.logins)
        own: set[int] = set()
        called: set[int] = set()
        keeping: dict[int, str] = {}
        for schema in (*visit.schemas, *SYSTEM_SCHEMAS):
            called |= found.called.get(schema, set())
            for row in found.functions.get(schema, ()):
                own.add(row["oid"])
                if row["name"].rpartition(".")[2] in SESSION_STATE:
                    keeping[row["oid"]] = row["name"]
                doubt = known_doubt(row)
                if doubt is None:
                    verdict = self._guard.judge_at_once(scope_for(row, scope), row["definition"])
                    doubt = verdict_doubt(row, verdict) if verdict is not None else ""
                    if verdict is None:
                        visit.hard.append(row)
                if doubt:
                    return doubt
                if time.monotonic() - began > AT_A_TIME_S:
                    await asyncio.sleep(0)
                    began = time.monotonic()
        if SESSION_USER in called:
            return "an expression names session_user"
        if SETTINGS in called:
            return "a view or rule leads to an UPDATE of pg_settings"
        risky = called & RISKY_OIDS
        if risky:
            return f"an expression calls {OIDS[min(risky)][0]}"
        if called & keeping.keys():
            return f"an expression calls {keeping[min(called & keeping.keys())]}"
        strange = {oid for oid in called if oid >= FIRST_USER_OID} - own
        if strange:
            return f"an expression calls function {min(strange)} of another schema"
        return ""

    async def _connection(self, cluster: Cluster) -> Connection:
        opened = self._connections.get(cluster.name)
        if opened is not None and opened[0] == cluster and not opened[1].is_closed():
            return opened[1]
        self._disconnect(cluster.name)
        password = cluster.service.password
        connection: Connection = await asyncpg.connect(
            host=cluster.host,
            port=cluster.port,
            user=cluster.service.user,
            password=password.reveal() if password is not None else "",
            database=cluster.database,
            ssl=asyncpg_ssl(cluster.tls),
            direct_tls=cluster.tls.negotiation == "direct",
            timeout=STEP_S,
            statement_cache_size=0,
            server_settings={"search_path": "", "application_name": "tenant_proxy code"},
        )
        self._connections[cluster.name] = cluster, connection
        return connection

    def _disconnect(self, cluster: str) -> None:
        opened = self._connections.pop(cluster, None)
        if opened is not None:
            opened[1].terminate()


def _go_on(limit: asyncio.Timeout) -> None:
    """The next step has as much time again."""
    limit.reschedule(asyncio.get_running_loop().time() + STEP_S)


def defaults_of(tenant: TenantInfo, settings: Mapping[str, str]) -> dict[str, str]:
    """What ALTER ROLE … SET has given a role, without what no client may set.

    A role may do that to itself, by SQL that nobody reads.  That harms but a login of its own, where here
    the service would set them, which may become anybody.
    """
    return {
        name: value
        for name, value in settings.items()
        if not check_setting(
            name, value, schema=tenant.schema, allowed_schemas=tenant.policy.allowed_schemas, denied=()
        )
    }


def scope_of(tenant: TenantInfo, logins: Iterable[str]) -> GuardScope:
    """As the tenant's, but functions of the schemas that it may read are judged too."""
    scope = GuardScope.build(
        id=0,
        tenant=tenant.name,
        schema=tenant.schema,
        policy=tenant.policy,
        role=tenant.role,
        roles=sorted(logins),
    )
    # and what the proxy has turned names to
    readable = scope.readable | {CATALOG, INFORMATION, LISTING, SYSTEM}
    return dataclasses.replace(scope, writable=readable, readable=readable)


def scope_for(row: asyncpg.Record, scope: GuardScope) -> GuardScope:
    """A function of an operator or cast that all find has its own schema in its definition."""
    if row["space"] in scope.writable:
        return scope
    spaces = scope.writable | {row["space"]}
    return dataclasses.replace(scope, writable=spaces, readable=spaces)


def function_doubt(guard: Guard, scope: GuardScope, row: asyncpg.Record) -> str:
    """What is not proven of a function (a row of `read_functions`), "" if all is."""
    doubt = known_doubt(row)
    if doubt is None:
        doubt = verdict_doubt(row, guard.judge(scope_for(row, scope), row["definition"]))
    return doubt


def known_doubt(row: asyncpg.Record) -> str | None:
    """The same without judging it; None if it has to be judged."""
    name = row["name"]
    if row["prokind"] == "a":
        return ""  # what it calls is looked at
    if row["language"] == "internal" and row["source"] in _OF_RANGES:
        return ""
    if row["language"] in ("c", "internal"):
        fact = extension_fact(name.rpartition(".")[2])
        if row["extension"] in EXTENSIONS and (fact is None or not fact.refused):
            return ""
        return f"function {name} is in language {row['language']}"
    if row["definition"] is not None:
        return None
    if row["is_much"]:
        return f"there is more than {MAX_CODE_BYTES // 1024**2} MiB of code in a schema"
    return f"function {name} is in language {row['language']}"


def verdict_doubt(row: asyncpg.Record, verdict: Verdict) -> str:
    if verdict.action is Action.REJECT:
        return f"function {row['name']} is refused: {verdict.reason}"
    return "" if is_proven(verdict.effects) else f"function {row['name']} is not proven"
