"""A change of the catalog as one statement, which is a transaction by itself.

    change = Together("anna", tenant, job=7)
    await kind.end(run, change)                    # as a `Change` is told
    rows = await change.make(connection, ["tenant_now"])

It reads nothing: the tenant is the one that was read before, and is compared.  Nothing happens, and
`NotTogether` is raised, where it is another meanwhile, and where what is asked for takes a look first; then
it is done by a `Change`.  The log of changes is locked for one statement rather than until a transaction's
last one has come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy.catalog import states
from tenant_proxy.catalog.records import Tenant
from tenant_proxy.catalog.states import State
from tenant_proxy.catalog.store import Change, failure_of, plain

if TYPE_CHECKING:
    from tenant_proxy.catalog.store import Connection

#: stands for the time at which the transaction begins, which only the server knows
BEGAN: Final = datetime(1, 1, 1, tzinfo=UTC)

#: columns of a tenant that are the same here and there, or times
_COLUMNS: Final = frozenset({"state", "failed_from", "reason", "provisioned_at", "activated_at"})
_PLACE: Final = re.compile(r"\$(\d+)")


class NotTogether(Exception):
    """It takes more than a statement."""


class Together(Change):
    reads = False

    def __init__(self, actor: str, tenant: Tenant, job: int | None = None) -> None:
        """`tenant`: as it was read.  Without a job there is to be an item `begun`, which is it."""
        super().__init__(None, actor, job)  # type: ignore[arg-type]
        self._tenant = tenant
        self._is_updated = False
        self._items: list[str] = []
        self._values: list[Any] = []
        self._entries: list[str] = []
        #: items that must have a row
        self._must: list[str] = []
        #: the item that is a row which was inserted, the tenant apart
        self.made: str | None = None

    @property
    def connection(self) -> Connection:
        raise NotTogether

    @connection.setter
    def connection(self, value: object) -> None:
        pass

    async def now(self) -> datetime:
        return BEGAN

    @property
    def tenant_now(self) -> list[str]:
        """The item that is the tenant then, where it changes."""
        return ["tenant_now"] if self._is_updated else []

    # --- what is told

    async def tenant(self, name: str, version: int | None = None) -> Tenant:
        if name != self._tenant.name or version not in (None, self._tenant.version) or self._is_updated:
            raise NotTogether
        return self._tenant

    async def update_tenant(self, tenant: Tenant, action: str, **columns: Any) -> Tenant:
        if tenant is not self._tenant or self._is_updated or not columns.keys() <= _COLUMNS:
            raise NotTogether
        changed = {key: value for key, value in columns.items() if getattr(tenant, key) != value}
        if not changed:
            return tenant
        if "state" in changed:
            states.check(tenant.name, tenant.state, State(changed["state"]), tenant.failed_from)
        self._is_updated = True
        values: list[Any] = [tenant.id, tenant.version]
        sets = []
        for key, value in changed.items():
            if value is not BEGAN:
                values.append(value)
            sets.append(f"{key} = {'now()' if value is BEGAN else f'${len(values)}'}")
        self.item(
            "tenant_now",
            f"UPDATE tenant SET {', '.join(sets)} WHERE id = $1 AND version = $2 RETURNING *",
            values,
        )
        before = {key: getattr(tenant, key) for key in changed}
        self._say(self.said(action, "tenant", tenant.name, plain(before, before), changed))
        return tenant

    async def audit(
        self,
        action: str,
        kind: str,
        name: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        self._say(self.said(action, kind, name, before, after))

    async def changed(
        self, change: str, values: list[Any], said: tuple[Any, ...] | None, also: str = ""
    ) -> asyncpg.Record | None:
        """What it gives can't be read."""
        self._put(f"changed_{len(self._items)}", change, values, also)
        if said is not None:
            self._say(said)
        return _NOTHING  # type: ignore[return-value]

    async def insert(self, table: str, columns: Mapping[str, Any], *rest: Any, **more: Any) -> asyncpg.Record:
        self.made = f"changed_{len(self._items)}"
        return await super().insert(table, columns, *rest, **more)

    def item(self, name: str, query: str, values: Sequence[Any]) -> None:
        """One that must have a row, which `make` may give."""
        self._must.append(name)
        self._put(name, query, values)

    def _put(self, name: str, query: str, values: Sequence[Any], also: str = "") -> None:
        first = len(self._values)
        self._values += values
        text = f"{name} AS ({query})" + re.sub(r"\bchanged\b", name, also)
        self._items.append(_PLACE.sub(lambda found: f"${int(found[1]) + first}", text))

    def _say(self, said: tuple[Any, ...]) -> None:
        *words, before, after, job = said
        times = [key for key, value in (after or {}).items() if value is BEGAN]
        given = after and {key: value for key, value in after.items() if value is not BEGAN}
        first = len(self._values)
        self._values += [*words, before, given]
        places = [f"${first + number}::text" for number in range(1, len(words) + 1)]
        places += [f"${first + len(words) + 1}::jsonb", f"${first + len(words) + 2}::jsonb"]
        places[-1] += "".join(f" || jsonb_build_object('{key}', now())" for key in times)
        self._entries.append(
            f"({', '.join(places)}, {'(SELECT id FROM begun)' if job is None else int(job)})"
        )

    # --- made

    async def make(self, connection: Connection, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of these items, each of which begins with a column `id`."""
        if not self._is_updated:
            held = "SELECT FROM tenant WHERE id = $1 AND version = $2 AND state <> 'erased' FOR UPDATE"
            self.item("held", held, [self._tenant.id, self._tenant.version])
        items = list(self._items)
        if self._entries:
            columns = "actor, action, kind, name, before, after, job"
            items.append(f"said AS (INSERT INTO audit ({columns}) VALUES {', '.join(self._entries)})")
        # it divides by zero, which undoes all of it, where one has no row
        counts = " * ".join(f"(SELECT count(*) FROM {name})" for name in self._must)
        joined = "".join(f" LEFT JOIN {name} ON true" for name in wanted)
        rows = ", ".join(f"{name}.*" for name in wanted)
        statement = f"WITH {', '.join(items)} SELECT 1 / ({counts}), {rows} FROM (SELECT) AS one{joined}"
        try:
            row = await connection.fetchrow(statement, *self._values)
        except asyncpg.DivisionByZeroError:
            raise NotTogether from None
        except asyncpg.PostgresError as error:
            if failure_of(error) is None:
                raise
            raise NotTogether from None  # a `Change` tells of it
        assert row is not None
        found: list[dict[str, Any]] = []
        for key, value in list(zip(row.keys(), row.values(), strict=True))[1:]:
            if key == "id":
                found.append({})
            found[-1][key] = value
        return dict(zip(wanted, found, strict=True))


_NOTHING: Final[Mapping[str, Any]] = {}
