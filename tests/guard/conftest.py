"""Fixtures: the corpus's database on each major, and a proxy before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tenant_proxy.shims import install
from tests.fix_proxy import Proxies, Proxy, base_config
from tests.guard.corpus_files import HIDING, Database
from tests.pg_server import Server


@pytest.fixture(scope="module")
def database(any_pg: Server) -> Iterator[Database]:
    database = Database(any_pg)
    yield database
    database.close()


@pytest.fixture(scope="module")
def corpus_proxy(database: Database, proxy_pool: Proxies) -> Iterator[Proxy]:
    yield from started(database, proxy_pool)


@pytest.fixture(scope="module")
def hiding_database(any_pg: Server) -> Iterator[Database]:
    database = Database(any_pg, HIDING)
    asyncio.run(_install(any_pg.dsn(database=HIDING)))
    yield database
    database.close()


@pytest.fixture(scope="module")
def hiding_proxy(hiding_database: Database, proxy_pool: Proxies) -> Iterator[Proxy]:
    yield from started(hiding_database, proxy_pool, secret={"value": "the corpus's"})


def started(database: Database, proxy_pool: Proxies, **changes: object) -> Iterator[Proxy]:
    config = {**base_config(database.server), **changes}
    config["clusters"][0]["database"] = database.name
    proxy = proxy_pool.new(config)
    yield proxy
    proxy.stop()


async def _install(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await install.install(connection)
    finally:
        await connection.close()
