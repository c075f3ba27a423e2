"""Fixtures: catalogs, each a database of its own on the shared server, copied from one that was migrated."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tenant_proxy.catalog import migrate
from tenant_proxy.catalog.store import Store
from tests.pg_server import Server

_TEMPLATE = "catalog_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def catalog_template(pg: Server) -> str:
    """A database with a migrated catalog and nobody in it."""
    import asyncio

    async def make() -> None:
        connection = await asyncpg.connect(pg.dsn(database=_TEMPLATE))
        await migrate.migrate(connection)
        await connection.close()

    with pg.connect(database="postgres") as conn:
        conn.execute(f"CREATE DATABASE {_TEMPLATE}")
    asyncio.run(make())
    return _TEMPLATE


@pytest.fixture
def catalog_dsn(pg: Server, catalog_template: str) -> Iterator[str]:
    """URL of a fresh catalog, as a superuser."""
    name = f"catalog_{next(_numbers)}"
    with pg.connect(database="postgres") as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {catalog_template} STRATEGY file_copy")
        yield pg.dsn(database=name)
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def store(catalog_dsn: str) -> AsyncIterator[Store]:
    async with await Store.connect(catalog_dsn) as store:
        yield store
