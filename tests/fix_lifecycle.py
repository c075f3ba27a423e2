"""Fixtures: the tenants' life on a cluster: a catalog, and a database for its tenants."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_pg import SharedServers
from tests.pg_server import Server, majors

_numbers = itertools.count(1)

#: the clusters' admin need not be a superuser
ADMIN = "town_admin"
ADMIN_PASSWORD = "town-secret"


@dataclass
class Town:
    """A cluster's database with a catalog beside it."""

    pg: Server
    database: str
    catalog_dsn: str
    #: roles of the cluster that were there before
    strangers: frozenset[str] = frozenset()

    def config(self, **changes: Any) -> dict[str, Any]:
        """For `Config`, or as a file."""
        cluster = {
            "name": "main",
            "host": self.pg.host,
            "port": self.pg.port,
            "database": self.database,
            "admin": {"user": ADMIN, "password": {"value": ADMIN_PASSWORD}},
        }
        return {"clusters": [cluster], "catalog": {"dsn": {"value": self.catalog_dsn}}, **changes}

    def connect(self, user: str | None = None, password: str | None = None, database: str | None = None):
        """Past the proxy; as the superuser by default."""
        return self.pg.connect(user, password, database or self.database)

    def roles(self) -> set[str]:
        """Those that came after the town."""
        with self.connect() as conn:
            return _roles(conn) - self.strangers

    def schemas(self) -> set[str]:
        query = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$|^public$'"
        with self.connect() as conn:
            return {name for (name,) in conn.execute(query)}

    def clear(self) -> None:
        """Every role that was made for a tenant or a login, and the databases."""
        with self.pg.connect(database="postgres") as conn:
            own = [
                name
                for (name,) in conn.execute(
                    "SELECT datname FROM pg_database WHERE datname ~ '^town' AND datname <> %s",
                    (self.catalog_dsn.rsplit("/", 1)[1],),
                )
            ]
            for name in own:
                conn.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            for name in self.roles_everywhere(conn):
                conn.execute(SQL("DROP OWNED BY {} CASCADE").format(Identifier(name)))
                conn.execute(SQL("DROP ROLE {}").format(Identifier(name)))

    @staticmethod
    def roles_everywhere(conn: psycopg.Connection) -> list[str]:
        query = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') ~ '^tenant_proxy:'"
        return [name for (name,) in conn.execute(query)]


def _roles(conn: psycopg.Connection) -> set[str]:
    return {name for (name,) in conn.execute("SELECT rolname FROM pg_roles")}


def make_town(pg: Server, catalog_dsn: str) -> Town:
    town = Town(pg, f"town_{next(_numbers)}", catalog_dsn)
    with pg.connect(database="postgres") as conn:
        conn.execute(
            f"""DO $$ BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ADMIN}') THEN
                    CREATE ROLE {ADMIN} LOGIN CREATEROLE CREATEDB PASSWORD '{ADMIN_PASSWORD}';
                END IF;
            END $$"""
        )
        conn.execute(f"CREATE DATABASE {town.database} OWNER {ADMIN}")
        town.strangers = frozenset(_roles(conn))
    return town


#: for tests that go the main path: each version that there is has to take it; the catalog stays where it is
each_major = pytest.mark.parametrize("town", majors(), indirect=True, ids=lambda major: f"pg{major}")


@pytest.fixture
def town(
    request: pytest.FixtureRequest, pg_servers: SharedServers, pg: Server, catalog_dsn: str
) -> Iterator[Town]:
    """On the default server, or with `each_major` on each."""
    town = make_town(pg_servers.get(request.param) if hasattr(request, "param") else pg, catalog_dsn)
    yield town
    town.clear()


@pytest.fixture
async def new_context(town: Town) -> AsyncIterator[Callable[..., Any]]:
    """Call with changes of the configuration for a context."""
    opened: list[Context] = []

    async def make(**changes: Any) -> Context:
        context = await Context.open(Config.model_validate(town.config(**changes)), "anna")
        opened.append(context)
        return context

    yield make
    for context in opened:
        await context.close()


@pytest.fixture
async def verbs(new_context: Callable[..., Any]) -> Verbs:
    return Verbs(await new_context())
