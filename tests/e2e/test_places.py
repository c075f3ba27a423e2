"""Tenants that come often have a shared backend each: nothing is switched while there are enough."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fix_proxy import PASSWORDS, Proxy
from tests.fix_shared import provide, shared_config
from tests.pg_server import Server
from tests.wire_client import wait_until

TENANTS = [f"placed{number}" for number in range(8)]


@pytest.fixture
def placed(own_proxy, pg: Server) -> Iterator[Proxy]:
    provide(pg)
    with pg.connect() as conn:
        for name in TENANTS:
            conn.execute(f"CREATE ROLE {name} LOGIN")
            conn.execute(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
            conn.execute(f"GRANT {name} TO tenant_proxy_service")
    config = shared_config(pg, len(TENANTS))
    config["tenants"] = [{"name": name} for name in TENANTS]
    config["users"] = [
        {"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}},
        *({"name": name, "tenant": name, "password": {"value": "placed"}} for name in TENANTS),
    ]
    try:
        yield own_proxy(pg, **config)
    finally:
        with pg.connect() as conn:
            for name in TENANTS:
                conn.execute(f"DROP SCHEMA {name} CASCADE")
                conn.execute(f"DROP ROLE {name}")


def switches(proxy: Proxy) -> int:
    return sum(int(one["switches"]) for one in proxy.admin("SHOW LANES"))


def test_each_settles_on_a_backend_of_its_own(placed):
    """Though one after the other they could all have the same."""
    clients = {name: placed.wire(name, password="placed") for name in TENANTS}
    seen = [-1]

    def is_settled() -> bool:
        for _ in range(20):
            for name, client in clients.items():
                assert client.value("SELECT current_user") == name
        seen.append(switches(placed))
        return seen[-1] == seen[-2]

    try:
        wait_until(is_settled, "each has a place", 20)
    finally:
        for client in clients.values():
            client.close()
