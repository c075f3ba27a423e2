"""Proxies whose backends are shared by tenants, and what tests ask of such backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fix_proxy import Proxy
from tests.pg_server import Server
from tests.wire_client import wait_until

SERVICE = {"user": "tenant_proxy_service", "password": {"value": "service-secret"}}


def provide(server: Server) -> None:
    """The service login, a member of both tenants' roles."""
    with server.connect() as conn:
        if conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [SERVICE["user"]]).fetchone():
            return
        conn.execute("CREATE ROLE tenant_proxy_service LOGIN NOINHERIT PASSWORD 'service-secret'")
        conn.execute("GRANT acme_app, beta_app TO tenant_proxy_service")


def shared_config(server: Server, backends: int = 1, **changes: Any) -> dict[str, Any]:
    cluster = {
        "name": "main",
        "host": server.host,
        "port": server.port,
        "database": "app",
        "service": {**SERVICE, "max_backends": backends},
    }
    return {"clusters": [cluster], "isolation": "shared", "pool": {"mode": "transaction"}, **changes}


@pytest.fixture
def shared(proxies: Callable[..., Proxy], pg: Server) -> Callable[..., Proxy]:
    """Call with the number of shared backends: a proxy that has read the tenants' code, and found it safe."""
    provide(pg)

    def proxy_of(backends: int = 1, **changes: Any) -> Proxy:
        proxy = proxies(**shared_config(pg, backends, **changes))
        for user in ("acme_app", "beta_app"):
            with proxy.wire(user) as client:
                shares_again(pg, client)
        return proxy

    return proxy_of


def either_isolation(isolation: str, proxies: Callable[..., Proxy], pg: Server, backends: int) -> Proxy:
    """Transaction mode with so many backends, dedicated or shared."""
    if isolation == "dedicated":
        return proxies(pool={"mode": "transaction", "max": backends})
    provide(pg)
    proxy = proxies(**shared_config(pg, backends))
    with proxy.wire() as client:
        shares_again(pg, client)
    return proxy


@pytest.fixture
def fresh(own_proxy: Callable[..., Proxy], pg: Server) -> Proxy:
    """A proxy that has seen no transaction that shared backends can't run."""
    provide(pg)
    proxy = own_proxy(**shared_config(pg, 2))
    with proxy.wire("acme_app") as client:
        shares_again(pg, client)
    return proxy


#: a backend's process id where pg_backend_pid() alone is the session's (decision 18)
BACKEND = "SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()"


def backend_of(client) -> str | None:
    return client.value("SELECT pg_backend_pid()")


def shares_again(server: Server, client) -> None:
    """The tenant's code is read again, and proven."""
    wait_until(lambda: is_shared(server, backend_of(client)), "the tenant shares backends", 20)


def is_shared(server: Server, pid: str | None) -> bool:
    """Whether a backend is one that tenants share."""
    with server.connect() as conn:
        found = conn.execute("SELECT usename FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    assert found is not None
    return found[0] == SERVICE["user"]
