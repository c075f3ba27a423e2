"""Fixtures: the corpus's database on each major, and a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fix_proxy import Proxies, Proxy, base_config
from tests.guard.corpus_files import DATABASE, Database
from tests.pg_server import Server


@pytest.fixture(scope="module")
def database(any_pg: Server) -> Iterator[Database]:
    database = Database(any_pg)
    yield database
    database.close()


@pytest.fixture(scope="module")
def corpus_proxy(database: Database, proxy_pool: Proxies) -> Iterator[Proxy]:
    config = base_config(database.server)
    config["clusters"][0]["database"] = DATABASE
    proxy = proxy_pool.new(config)
    yield proxy
    proxy.stop()
