"""What the servers of a cluster are asked once for all tenants, by whoever's server is opened first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.e2e.test_hidden import _install, drop_database, make_database
from tests.pg_server import Server

#: each question waits for a snapshot, for which a transaction has to end
WAITING = (
    "-c default_transaction_isolation=serializable -c default_transaction_read_only=on"
    " -c default_transaction_deferrable=on"
)


@pytest.fixture
def database(pg: Server) -> Iterator[str]:
    asyncio.run(_install(make_database(pg, "facts")))
    yield "facts"
    drop_database(pg, "facts")


def test_a_tenant_s_own_settings_do_not_decide_what_others_see(own_proxy, pg, database):
    proxy = own_proxy(
        clusters=[{"name": "main", "host": pg.host, "port": pg.port, "database": database}],
        pool={"mode": "transaction"},
    )
    sql = "SELECT count(*) FROM pg_namespace WHERE nspname = 'acme'"
    with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
        assert beta.value(sql) == "0"
        acme.query("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO orders VALUES (100, 'x')")
        proxy.admin("RELOAD")
        with proxy.wire("acme_app", options=f"{WAITING} -c statement_timeout=50") as attacker:
            attacker.query("SELECT 1")
            time.sleep(0.2)
            assert beta.value(sql) == "0"
        acme.query("ROLLBACK")
