"""Before a tenant's code is read, open transactions that may be changing it are waited for, and no others."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from tests.fix_proxy import PASSWORDS, Proxy
from tests.fix_shared import provide, shared_config
from tests.pg_server import Server
from tests.wire_client import wait_until


def code_of(proxy: Proxy) -> str:
    return next(one["code"] for one in proxy.admin("SHOW LANES") if one["user"] == "acme_app")


def test_whom_the_reading_of_code_waits_for(own_pg: Server, own_proxy: Callable[..., Proxy]):
    provide(own_pg)
    with own_pg.connect() as conn:
        conn.execute(
            "CREATE ROLE acme_reader LOGIN PASSWORD 'reader-secret';"
            "GRANT USAGE ON SCHEMA acme TO acme_reader;"
            "GRANT SELECT ON ALL TABLES IN SCHEMA acme TO acme_reader"
        )
        conn.execute("CREATE DATABASE other")
    users = {"acme_app": PASSWORDS["acme_app"], "acme_reader": "reader-secret"}
    config = shared_config(own_pg)
    config["users"] = [
        {"name": name, "tenant": "acme", "password": {"value": password}} for name, password in users.items()
    ] + [{"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}}]

    def begun(user: str, database: str = "app") -> psycopg.Connection:
        conn = psycopg.connect(own_pg.dsn(user=user, password=users[user], database=database))
        conn.execute("SELECT 1")
        return conn

    # one may only read, the other is somewhere else
    with begun("acme_reader"), begun("acme_app", "other"):
        proxy = own_proxy(own_pg, **config)
        with proxy.wire("acme_app") as acme:
            acme.query("SELECT 1")
            wait_until(lambda: code_of(proxy) == "proven", "the code is proven", 20)
            with begun("acme_app") as writer:
                proxy.admin("RELOAD")
                waits = f"waits for a transaction of acme_app (process {writer.info.backend_pid})"
                wait_until(lambda: code_of(proxy) == waits, "it says so", 20)
            wait_until(lambda: code_of(proxy) == "proven", "the code is proven again", 20)
            acme.query("SELECT 1")
