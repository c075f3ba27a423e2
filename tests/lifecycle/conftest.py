"""Fixtures: a database on a server of each major, and in it a tenant who has every kind of object."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tenant_proxy.lifecycle import ledger, templates
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.tools import Database
from tests.fix_pg import SharedServers
from tests.pg_server import Server, majors

EVERY_KIND = (Path(__file__).parent / "every_kind.sql").read_text()

SHARED = """
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
CREATE SCHEMA shared;
GRANT USAGE ON SCHEMA shared TO PUBLIC;
CREATE FUNCTION shared.int_backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT
    RETURN btint4cmp($2, $1);
"""

ROLES = """
CREATE ROLE {owner} NOLOGIN;
CREATE ROLE {rw} NOLOGIN;
CREATE ROLE {ro} NOLOGIN;
CREATE ROLE {login} LOGIN IN ROLE {rw};
ALTER ROLE {login} SET statement_timeout = '5s';
ALTER ROLE {login} IN DATABASE {database} SET search_path = {schema};
COMMENT ON ROLE {owner} IS 'owner of {schema}';
CREATE SCHEMA {schema} AUTHORIZATION {owner};
GRANT USAGE ON SCHEMA {schema} TO {rw}, {ro};
COMMENT ON SCHEMA {schema} IS 'all of {schema}';
GRANT USAGE ON FOREIGN SERVER nowhere TO {owner};
"""

_count = itertools.count()


class Place:
    """A database of a server, for tenants to be in."""

    def __init__(self, server: Server, database: str) -> None:
        self.server = server
        self.database = database
        self.major = server.major
        self.estates: list[Estate] = []

    @property
    def dsn(self) -> str:
        return self.server.dsn(database=self.database)

    def sql(self, text: str) -> str:
        return self.server.psql(text, database=self.database)

    async def connect(self, user: str | None = None, password: str | None = None) -> asyncpg.Connection:
        """As the superuser by default."""
        dsn = self.server.dsn(user=user or self.server.superuser, password=password, database=self.database)
        return await asyncpg.connect(dsn, statement_cache_size=0)

    def database_of(self) -> Database:
        return Database(
            self.server.host, self.server.port, self.database, self.server.superuser, self.server.password
        )

    def names(self, schema: str) -> dict[str, str]:
        return {
            "schema": schema,
            "owner": f"{schema}_owner",
            "rw": f"{schema}_readwrite",
            "ro": f"{schema}_readonly",
            "login": f"{schema}_app",
            "database": self.database,
        }

    def estate(self, schema: str) -> Estate:
        names = self.names(schema)
        return Estate(schema, names["owner"], (names["rw"], names["ro"], names["login"]))

    def with_everything(self, schema: str | None = None) -> Estate:
        schema = schema or f"all_{next(_count)}"
        names = self.names(schema)
        self.sql(ROLES.format(**names))
        self.sql(fill(EVERY_KIND, names))
        return self.known(schema)

    def with_roles(self, schema: str) -> Estate:
        self.sql(ROLES.format(**self.names(schema)))
        return self.known(schema)

    def known(self, schema: str) -> Estate:
        estate = self.estate(schema)
        self.estates.append(estate)
        return estate

    def clear(self) -> None:
        """Takes all tenants away whose test did not."""
        for estate in self.estates:
            self.sql(
                f'DROP SCHEMA IF EXISTS "{estate.schema}" CASCADE;'
                + "".join(
                    f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
                    f' THEN DROP OWNED BY "{role}"; DROP ROLE "{role}"; END IF; END $$;'
                    for role in estate.all_roles()
                )
            )
        self.sql(f"DROP SCHEMA IF EXISTS {ledger.SCHEMA} CASCADE")
        self.estates.clear()
        templates._seen.clear()


def fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@pytest.fixture(scope="session")
def places(pg: Server, pg_servers: SharedServers) -> Callable[..., Place]:
    made: dict[int, Place] = {}

    def place(major: int | None = None) -> Place:
        server = pg if major is None else pg_servers.get(major)
        if server.major not in made:
            server.psql("CREATE DATABASE lives")
            made[server.major] = Place(server, "lives")
            made[server.major].sql(SHARED)
        return made[server.major]

    return place


@pytest.fixture
def place(places) -> Iterator[Place]:
    """On the default server."""
    found = places()
    yield found
    found.clear()


@pytest.fixture(params=majors(), ids=lambda major: f"pg{major}")
def any_place(places, request: pytest.FixtureRequest) -> Iterator[Place]:
    found = places(request.param)
    yield found
    found.clear()


@pytest.fixture
async def conn(place: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await place.connect()
    yield connection
    await connection.close()
