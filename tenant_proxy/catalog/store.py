"""Reads and changes the catalog.  Reading is by `Store`, changing by a `Change`: one transaction, and in it
an audit entry for everything that it changes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from tenant_proxy.catalog import migrate, states
from tenant_proxy.catalog.failures import Failure, not_found
from tenant_proxy.catalog.keeping import Keeping
from tenant_proxy.catalog.records import AuditEntry, Plan, Tenant
from tenant_proxy.catalog.states import State

if TYPE_CHECKING:
    from tenant_proxy.catalog.records import Row

    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_TIMEOUT_S: Final = 10.0

#: constraint -> what its violation means, as `code`, message
_VIOLATIONS: Final = {
    "tenant_name": ("exists", "there is a tenant of this name"),
    "tenant_schema": ("exists", "another tenant lives in this schema"),
    "tenant_schema_check": ("invalid", 'schemas that begin with "pg_" are PostgreSQL\'s own'),
    "tenant_owner": ("exists", "another tenant has this owner role"),
    "tenant_readwrite": ("exists", "another tenant has this readwrite role"),
    "tenant_readonly": ("exists", "another tenant has this readonly role"),
    "tenant_sni_pkey": ("exists", "another tenant has this host name (sni)"),
    "tenant_plan_fkey": ("not_found", "there is no such plan"),
    "plan_pkey": ("exists", "there is a plan of this name"),
    "login_name_key": ("exists", "there is a login of this name"),
    "login_secret_server_user_key": ("exists", "another login has this role on the server"),
    "job_one_a_tenant": ("busy", "another job is at work on this tenant"),
    "custom_role_tenant_name_key": ("exists", "the tenant has a role of this name"),
    "access_tenant_custom_role_fkey": ("conflict", "the role is still granted to logins"),
    "webhook_name_key": ("exists", "there is a webhook of this name"),
    "token_name_key": ("exists", "there is a token of this name"),
}


def failure_of(error: asyncpg.PostgresError) -> Failure | None:
    """What a violated constraint means to people; None for errors that are not about what was asked."""
    known = _VIOLATIONS.get(getattr(error, "constraint_name", None) or "")
    is_check = isinstance(error, asyncpg.CheckViolationError)  # its detail is the whole row
    if known is not None:
        return Failure(known[0], known[1], detail="" if is_check else error.detail or "")
    if is_check:
        return Failure("conflict", str(error).partition("\n")[0])
    return None


async def _prepare(connection: Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads, format="text"
        )


async def left(connection: object) -> None:
    """Nothing is put right on a connection that goes back: none of us sets, listens, or locks past a
    transaction, and one left open the pool has rolled back by now.  It would take as many round trips as
    there are statements.
    """


class Store:
    """The catalog, by a few connections that are opened when they are first needed."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._keeping = Keeping(pool)

    @classmethod
    async def connect(cls, dsn: str, *, connections: int = 4, check: bool = True) -> Self:
        """Failure when it can't be reached, or when its tables are not those of this version."""
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections,
                timeout=CONNECT_TIMEOUT_S,
                init=_prepare,
                reset=left,
                server_settings={
                    "search_path": migrate.SCHEMA,
                    "application_name": "tenant-proxy catalog",
                    "timezone": "UTC",
                },
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise unavailable(error) from None
        store = cls(pool)
        if check:
            try:
                async with store.read() as connection:
                    await migrate.check(connection)
            except BaseException:
                pool.terminate()
                raise
        return store

    async def close(self) -> None:
        await self._keeping.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection whose search_path is the catalog's schema."""
        try:
            connection = await self._keeping.take(CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError) as error:
            raise unavailable(error) from None
        try:
            yield connection  # type: ignore[misc]
        except BaseException as error:
            await self._keeping.pool.release(connection)
            if isinstance(error, asyncpg.PostgresConnectionError | OSError):
                raise unavailable(error) from None
            raise
        await self._keeping.give(connection)

    @asynccontextmanager
    async def rehearsing(self, told: Callable[[str, Sequence[object]], None]) -> AsyncIterator[Store]:
        """A store on one connection, and everything that is changed through it is undone at the end; `told`
        hears of each statement.
        """

        def heard(query: asyncpg.connection.LoggedQuery) -> None:
            told(query.query, query.args or ())

        async with self.read() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                with connection.query_logger(heard):
                    yield _Rehearsed(self._keeping.pool, connection)
            finally:
                await transaction.rollback()

    @asynccontextmanager
    async def change(
        self, actor: str, job: int | None = None, *, alone: bool = False
    ) -> AsyncIterator[Change]:
        """One transaction; what the catalog refuses in it is a Failure.  `alone`: of one statement."""
        async with self.read() as connection:
            try:
                alone = alone and not connection.is_in_transaction()
                async with nullcontext() if alone else connection.transaction():
                    yield Change(connection, actor, job)
            except asyncpg.PostgresError as error:
                failure = failure_of(error)
                if failure is None:
                    raise
                raise failure from None

    # --- tenants and plans

    async def tenant(self, name: str) -> Tenant:
        """The one of this name that is not erased; Failure (not_found)."""
        async with self.read() as connection:
            return await find_tenant(connection, name)

    async def tenant_by_id(self, number: int) -> Tenant:
        async with self.read() as connection:
            row = await connection.fetchrow("SELECT * FROM tenant WHERE id = $1", number)
        return Tenant.of(row) if row is not None else not_found("tenant", number)

    async def tenants(
        self,
        *,
        states: Sequence[State] = (),
        plan: str | None = None,
        cluster: str | None = None,
        labels: Mapping[str, str] | None = None,
        prefix: str = "",
        names: Sequence[str] | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[Tenant]:
        """By name, beginning behind `after`.  Erased ones only if `states` names them."""
        async with self.read() as connection:
            rows = await connection.fetch(
                """SELECT * FROM tenant
                    WHERE CASE WHEN cardinality($1::text[]) = 0 THEN state <> 'erased'
                               ELSE state = ANY ($1) END
                      AND ($2::text IS NULL OR plan = $2) AND ($3::text IS NULL OR cluster = $3)
                      AND labels @> $4 AND starts_with(name, $5) AND name > $6
                      AND ($7::text[] IS NULL OR name = ANY ($7))
                    ORDER BY name, id LIMIT $8""",
                [state.value for state in states],
                plan,
                cluster,
                dict(labels or {}),
                prefix,
                after,
                None if names is None else list(names),
                limit,
            )
        return [Tenant.of(row) for row in rows]

    async def plan(self, name: str) -> Plan:
        async with self.read() as connection:
            return await find_plan(connection, name)

    async def plans(self) -> list[Plan]:
        async with self.read() as connection:
            rows = await connection.fetch("SELECT * FROM plan ORDER BY name")
        return [Plan.of(row) for row in rows]

    async def plan_of(self, tenant: Tenant) -> Plan | None:
        return None if tenant.plan is None else await self.plan(tenant.plan)

    # --- the log

    async def audit(
        self, *, kind: str | None = None, name: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """The newest first, those with a smaller number than `before`."""
        async with self.read() as connection:
            rows = await connection.fetch(
                """SELECT id, at, actor, action, kind, name, before, after, job, encode(hash, 'hex') AS hash
                     FROM audit
                    WHERE ($1::text IS NULL OR kind = $1) AND ($2::text IS NULL OR name = $2)
                      AND ($3::bigint IS NULL OR id < $3)
                    ORDER BY id DESC LIMIT $4""",
                kind,
                name,
                before,
                limit,
            )
        return [AuditEntry.of(row) for row in rows]


class _Rehearsed(Store):
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], connection: Connection) -> None:
        super().__init__(pool)
        self._connection = connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        yield self._connection


async def find_tenant(connection: Connection, name: str) -> Tenant:
    row = await connection.fetchrow("SELECT * FROM tenant WHERE name = $1 AND state <> 'erased'", name)
    return Tenant.of(row) if row is not None else not_found("tenant", name)


async def find_plan(connection: Connection, name: str, *, lock: bool = False) -> Plan:
    row = await connection.fetchrow("SELECT * FROM plan WHERE name = $1" + (" FOR UPDATE" * lock), name)
    hint = "see those there are: tenant-proxy plan list"
    return Plan.of(row) if row is not None else not_found("plan", name, hint=hint)


class Change:
    """What may be changed in one transaction, as somebody, perhaps by a job."""

    #: whether one may look before one changes
    reads = True

    def __init__(self, connection: Connection, actor: str, job: int | None) -> None:
        self.connection = connection
        self.actor = actor
        self.job = job
        #: tenants' rows as they are in this transaction, which has locked them
        self._locked: dict[int, asyncpg.Record] = {}
        self._began: datetime | None = None

    async def now(self) -> datetime:
        """When the transaction began, by the catalog's clock."""
        if self._began is None:
            self._began = await self.connection.fetchval("SELECT now()")
        assert self._began is not None
        return self._began

    async def audit(
        self,
        action: str,
        kind: str,
        name: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """`action` as in tenant.suspend.  The log is locked from here to the end of the transaction."""
        values = self.said(action, kind, name, before, after)
        await self.connection.execute(_AUDIT.format(_places(len(values), 1)), *values)

    def said(
        self,
        action: str,
        kind: str,
        name: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> tuple[Any, ...]:
        """An entry of the log, to be written with what it tells of (`changed`)."""
        return (
            self.actor,
            action,
            kind,
            name,
            None if before is None else dict(before),
            None if after is None else dict(after),
            self.job,
        )

    # --- tenants

    async def tenant(self, name: str, version: int | None = None) -> Tenant:
        """Locked until the end; Failure (stale) if it is not of the version that was read before."""
        row = await self.connection.fetchrow(
            "SELECT *, now() AS began FROM tenant WHERE name = $1 AND state <> 'erased' FOR UPDATE", name
        )
        if row is None:
            not_found("tenant", name)
        given = dict(row)
        self._locked[row["id"]], self._began = row, given.pop("began")
        check_version("tenant", name, row["version"], version)
        return Tenant.of(given)

    def locked(self, number: int) -> Tenant | None:
        """A tenant as this transaction has left it so far, where it has locked it."""
        row = self._locked.get(number)
        if row is None:
            return None
        given = dict(row)
        given.pop("began", None)
        return Tenant.of(given)

    async def insert_tenant(self, action: str = "tenant.create", **columns: Any) -> Tenant:
        said = self.said(action, "tenant", columns["name"], None, plain(columns, columns))
        return Tenant.of(await self.insert("tenant", columns, said=said))

    async def update_tenant(self, tenant: Tenant, action: str, **columns: Any) -> Tenant:
        """Nothing at all happens, and nothing is logged, where nothing would change."""
        state = columns.get("state")
        if state is not None and state != tenant.state:
            states.check(tenant.name, tenant.state, State(state), tenant.failed_from)
        before = self._locked.get(tenant.id)
        row = await self.update("tenant", tenant.id, action, tenant.name, columns, before)
        if row is before:
            return tenant
        self._locked[tenant.id] = row
        return Tenant.of(row)

    # --- plans

    async def put_plan(self, plan: Plan, version: int | None = None) -> Plan:
        """Makes it or sets it; with the version 0 it must not be there yet."""
        columns: dict[str, Any] = {
            "description": plan.description,
            "spec": plan.spec.given(),
            "billing": plan.billing,
        }
        locked = "SELECT * FROM plan WHERE name = $1 FOR UPDATE"
        row = await self.connection.fetchrow(locked, plan.name)
        if row is None:
            if version:
                raise Failure("stale", f'there is no plan "{plan.name}" any more')
            # somebody else may make it now, and is waited for
            made = await self.connection.fetchrow(
                "INSERT INTO plan (name, description, spec, billing) VALUES ($1::text, $2, $3, $4)"
                " ON CONFLICT (name) DO NOTHING RETURNING *",
                plan.name,
                *columns.values(),
            )
            if made is not None:
                await self.audit("plan.create", "plan", plan.name, None, columns)
                return Plan.of(made)
            row = await self.connection.fetchrow(locked, plan.name)
            assert row is not None
        check_version("plan", plan.name, row["version"], version)
        changed = {key: value for key, value in columns.items() if row[key] != value}
        if changed:
            await self.audit("plan.set", "plan", plan.name, plain(row, changed), changed)
            row = await self.connection.fetchrow(
                "UPDATE plan SET description = $2, spec = $3, billing = $4 WHERE name = $1 RETURNING *",
                plan.name,
                *columns.values(),
            )
        assert row is not None
        return Plan.of(row)

    # --- any table with an id

    async def insert(
        self,
        table: str,
        columns: Mapping[str, Any],
        returning: str = "*",
        said: tuple[Any, ...] | None = None,
        also: tuple[str, list[Any]] = ("", []),
    ) -> asyncpg.Record:
        """`table`, the columns' names and what is returned are ours, never somebody's words.  `also`, with an
        entry in the log: what the same statement does with the row, and the values that it takes.
        """
        assert said is not None or not also[0]
        names = ", ".join(columns)
        values = ", ".join(_place(name, number) for number, name in enumerate(columns, start=1))
        change = f"INSERT INTO {table} ({names}) VALUES ({values}) RETURNING {returning}"
        more, given = also
        places = range(len(columns) + 1, len(columns) + len(given) + 1)
        row = await self.changed(change, [*columns.values(), *given], said, more.format(*places))
        assert row is not None
        return row

    async def update(
        self,
        table: str,
        number: int,
        action: str,
        name: str,
        columns: Mapping[str, Any],
        before: asyncpg.Record | None = None,
    ) -> asyncpg.Record:
        """Sets what differs, and logs that.  `before` is the row, where it is locked already."""
        if before is None:
            before = await self.connection.fetchrow(f"SELECT * FROM {table} WHERE id = $1 FOR UPDATE", number)
        assert before is not None
        changed = {key: value for key, value in columns.items() if before[key] != value}
        if not changed:
            return before
        sets = ", ".join(f"{key} = {_place(key, index)}" for index, key in enumerate(changed, start=2))
        said = self.said(action, table, name, plain(before, changed), plain(changed, changed))
        change = f"UPDATE {table} SET {sets} WHERE id = $1 RETURNING *"
        row = await self.changed(change, [number, *changed.values()], said)
        assert row is not None
        return row

    async def changed(
        self, change: str, values: list[Any], said: tuple[Any, ...] | None, also: str = ""
    ) -> asyncpg.Record | None:
        """A statement that returns something, with its entry in the log: as one, and `also` between them."""
        if said is not None:
            entry = _AUDIT.format(_places(len(said), len(values) + 1))
            change = f"WITH changed AS ({change}){also}, said AS ({entry}) SELECT * FROM changed"
        return await self.connection.fetchrow(change, *values, *said or ())


_AUDIT: Final = "INSERT INTO audit (actor, action, kind, name, before, after, job) VALUES ({})"


def _places(count: int, first: int) -> str:
    return ", ".join(f"${number}" for number in range(first, first + count))


#: columns whose types are the catalog's own: given as what they are made of, or asyncpg asks for the types
_DOMAINS: Final = frozenset(
    {"name", "plan", "database", "schema", "owner_role", "readwrite_role", "readonly_role", "server_user"}
    | {"server_role"}
)


def _place(column: str, number: int) -> str:
    return f"${number}::text" if column in _DOMAINS else f"${number}"


def plain(row: Row, keys: Iterable[str]) -> dict[str, Any]:
    """These of its columns, as JSON can hold them."""
    return {key: _plain(row[key]) for key in keys}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict | str | int | float | bool | None):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def check_version(kind: str, name: str, now: int, expected: int | None) -> None:
    if expected == 0:
        raise Failure("stale", f'there is a {kind} "{name}"')
    if expected is not None and expected != now:
        raise Failure(
            "stale",
            f'{kind} "{name}" was changed meanwhile',
            detail=f"it is at version {now}, not {expected}",
        )


def unavailable(error: BaseException) -> Failure:
    """The catalog can't be reached."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error) or "it takes too long"
    return Failure(
        "unavailable", f"the catalog can't be reached: {text}", hint="see catalog.dsn in the configuration"
    )
