"""A database in which two tenants have one of everything, and the views are installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tenant_proxy.devel import postgres
from tenant_proxy.shims import install as shims
from tests.pg_server import Server

HERE = Path(__file__).parent

OWN, OTHER = "zqacme", "zqbeta"
SPACES = {OWN: "abcdefghijklm", OTHER: "nopqrstuvwxyz"}


@dataclass(frozen=True)
class Tenants:
    server: Server
    database: str

    def superuser(self) -> psycopg.Connection:
        return self.server.connect(database=self.database)

    def tenant(
        self, name: str = OWN, *, public: bool = False, readable: str = "{public}"
    ) -> psycopg.Connection:
        """As the proxy opens it."""
        connection = self.server.connect(f"{name}_app", "secret", self.database)
        for setting, value in {
            "tenant_proxy.schema": name,
            "tenant_proxy.space": SPACES[name],
            "tenant_proxy.public": "on" if public else "off",
            "tenant_proxy.readable": readable,
            "search_path": name,
        }.items():
            connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
        return connection


async def install(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await shims.install(connection)
    finally:
        await connection.close()


def install_views(server: postgres.Server, database: str) -> None:
    asyncio.run(install(server.dsn(database=database)))


@pytest.fixture(scope="session")
def tenants(any_pg: Server) -> Iterator[Tenants]:
    database = "catalogs"
    any_pg.psql(f"CREATE DATABASE {database}")
    install_views(any_pg, database)
    any_pg.psql(
        "CREATE TABLE public.shared (code text); INSERT INTO public.shared VALUES ('x');", database=database
    )
    any_pg.psql("GRANT SELECT ON public.shared TO PUBLIC", database=database)
    for name in (OWN, OTHER):
        script = (HERE / "setup.sql").read_text().format(mark=name, shared="shared", database=database)
        any_pg.psql(script, database=database)
    yield Tenants(any_pg, database)
    _clean(any_pg, database)


def _clean(server: Server, database: str) -> None:
    """What is the cluster's is taken away: the server is other tests' as well."""
    for name in (OWN, OTHER):
        server.psql(
            f"ROLLBACK PREPARED '{name} prepared'; ALTER SUBSCRIPTION {name}_subscription DISABLE;"
            f" DROP SUBSCRIPTION {name}_subscription;",
            database=database,
        )
    server.psql(f"DROP DATABASE {database} WITH (FORCE)")
    for name in (OWN, OTHER):
        server.psql(f"SELECT pg_replication_origin_drop('{name}_origin')")
        server.psql(f"REVOKE SET ON PARAMETER log_duration FROM {name}_app; DROP DATABASE {name}_db;")
        server.psql(f"DROP TABLESPACE {name}_space")
        server.psql(f"DROP ROLE {name}_app, {name}_group")
