"""Proxies that follow a catalog: changes reach them at once, and nothing is lost when it is away."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tenant_proxy.auth.scram import build_verifier, parse_verifier
from tests.fix_proxy import Proxy
from tests.pg_server import Server
from tests.wire_client import wait_until

OwnProxy = Callable[..., Proxy]

#: "visible within a second", with room for a busy machine
SOON_S = 5.0


class Town:
    """Tenants and logins in a catalog, and their schemas and roles on the server."""

    def __init__(self, pg: Server, dsn: str, prefix: str) -> None:
        self.pg, self.dsn, self.prefix = pg, dsn, prefix
        self.catalog = psycopg.connect(dsn, autocommit=True)
        self.catalog.execute("SET search_path = tenant_proxy")
        self.server = pg.connect()
        self.made: list[str] = []

    def close(self) -> None:
        self.catalog.close()
        for name in self.made:
            self.server.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
        roles = self.server.execute(
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [self.prefix]
        )
        for (role,) in roles.fetchall():
            self.server.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
        self.server.close()

    def add(self, name: str, *, password: str = "secret", spec: dict[str, Any] | None = None) -> str:
        """An active tenant with a login of its name, and what it needs on the server; returns the name."""
        name = f"{self.prefix}{name}"
        verifier = str(build_verifier(password))
        self.server.execute(f'CREATE ROLE "{name}_owner"')
        self.server.execute(f'CREATE SCHEMA "{name}" AUTHORIZATION "{name}_owner"')
        self.server.execute(f'CREATE ROLE "{name}" LOGIN PASSWORD \'{verifier}\' IN ROLE "{name}_owner"')
        self.made.append(name)
        with self.catalog.transaction():
            self.catalog.execute(
                "INSERT INTO tenant (name, cluster, schema, spec, owner_role, readwrite_role, readonly_role)"
                " VALUES (%s, 'main', %s, %s, %s, %s, %s)",
                [name, name, json.dumps(spec or {}), f"{name}_owner", f"{name}_rw", f"{name}_ro"],
            )
            for state in ("provisioning", "ready", "active"):
                self.state(name, state)
            self.catalog.execute("INSERT INTO login (name) VALUES (%s)", [name])
            self.secret(name, 0, verifier, name)
            self.catalog.execute(
                "INSERT INTO access (login, tenant, level)"
                " SELECT l.id, t.id, 'owner' FROM login l, tenant t WHERE l.name = %s AND t.name = l.name",
                [name],
            )
        return name

    def state(self, name: str, state: str, reason: str = "") -> None:
        self.catalog.execute(
            "UPDATE tenant SET state = %s, reason = %s, provisioned_at = coalesce(provisioned_at, now()),"
            " suspended_at = now() WHERE name = %s",
            [state, reason, name],
        )

    def secret(self, login: str, slot: int, verifier: str, server_user: str) -> None:
        self.catalog.execute(
            "UPDATE login_secret SET retires_at = now() + '1 hour' WHERE login = (SELECT id FROM login"
            " WHERE name = %s)",
            [login],
        )
        self.catalog.execute(
            "INSERT INTO login_secret (login, slot, verifier, server_user)"
            " SELECT id, %s, %s, %s FROM login WHERE name = %s",
            [slot, verifier, server_user, login],
        )


@pytest.fixture
def town(pg: Server, catalog_dsn: str, request: pytest.FixtureRequest) -> Iterator[Town]:
    town = Town(pg, catalog_dsn, f"t{abs(hash(request.node.name)) % 100000}_")
    yield town
    town.close()


def catalog(dsn: str, **more: Any) -> dict[str, Any]:
    return {"catalog": {"dsn": {"value": dsn}, **more}}


def connects(proxy: Proxy, user: str, password: str = "secret") -> bool:
    try:
        proxy.connect(user, password=password).close()
    except psycopg.OperationalError:
        return False
    return True


def reason(proxy: Proxy, user: str, password: str = "secret") -> str:
    with pytest.raises(psycopg.OperationalError) as error:
        proxy.connect(user, password=password).close()
    return str(error.value)


def soon(fact: Callable[[], Any], what: str) -> None:
    wait_until(fact, what, SOON_S)


def served(proxy: Proxy, name: str) -> None:
    soon(lambda: connects(proxy, name), f"{name} is served")


def refused(proxy: Proxy, name: str) -> None:
    soon(lambda: not connects(proxy, name), f"{name} is not served")


def test_two_proxies_follow_one_catalog(own_proxy: OwnProxy, town: Town):
    first = town.add("one")
    proxies = [
        own_proxy(workers=2, pool={"mode": "transaction"}, **catalog(town.dsn, proxy=name)) for name in "ab"
    ]
    # readyz has said that the catalog was read
    for proxy in proxies:
        with proxy.connect(first, password="secret") as conn:
            assert conn.execute("SELECT current_schema(), current_user").fetchone() == (
                first,
                f"{first}_owner",
            )
        with proxy.connect() as conn:
            assert conn.execute("SELECT current_schema()").fetchone() == ("acme",)
    second = town.add("two")
    for proxy in proxies:
        served(proxy, second)
    kept = [proxy.connect(second, password="secret") for proxy in proxies]
    others = [proxy.connect(first, password="secret") for proxy in proxies]
    pids = [conn.execute("SELECT pg_backend_pid()").fetchone() for conn in others]
    town.catalog.execute("UPDATE tenant SET spec = %s WHERE name = %s", [json.dumps({"grace_s": 0}), second])
    town.state(second, "suspended", "unpaid")
    for proxy, conn in zip(proxies, kept, strict=True):
        refused(proxy, second)
        assert "unpaid" in reason(proxy, second)
        with pytest.raises(psycopg.OperationalError, match="suspended"):
            conn.execute("SELECT 1")
    town.state(second, "active")
    for proxy in proxies:
        served(proxy, second)
    town.catalog.execute("DELETE FROM login WHERE name = %s", [second])
    for proxy in proxies:
        refused(proxy, second)
        assert "password authentication failed" in reason(proxy, second)
    # nobody else has noticed anything
    assert [conn.execute("SELECT pg_backend_pid()").fetchone() for conn in others] == pids
    for conn in kept + others:
        conn.close()
    (shown,) = proxies[0].admin("SHOW CATALOG")
    assert {key: str(shown[key]) for key in ("state", "tenants", "logins")} == {
        "state": "followed",
        "tenants": "2",
        "logins": "1",
    }
    assert proxies[0].metric("tenant_proxy_catalog_connected") == 1
    assert proxies[0].metric("tenant_proxy_catalog_tenants") == 2


def test_a_change_is_seen_within_a_second(own_proxy: OwnProxy, town: Town):
    proxy = own_proxy(**catalog(town.dsn))
    name = town.add("quick")
    soon(lambda: connects(proxy, name), "it is served")
    lags = []
    for limit in range(2, 12):
        began = time.monotonic()
        spec = json.dumps({"settings": {"statement_timeout": f"{limit}min"}})
        town.catalog.execute("UPDATE tenant SET spec = %s WHERE name = %s", [spec, name])
        while True:
            with proxy.connect(name, password="secret") as conn:
                if conn.execute("SHOW statement_timeout").fetchone() == (f"{limit}min",):
                    break
        lags.append(time.monotonic() - began)
    assert sorted(lags)[5] < 1, lags


def test_what_is_known_is_served_while_the_catalog_is_away(own_proxy: OwnProxy, town: Town, pg: Server):
    name = town.add("away")
    proxy = own_proxy(workers=2, metrics={"enabled": True}, **catalog(town.dsn))
    database = psycopg.conninfo.conninfo_to_dict(town.dsn)["dbname"]
    with pg.connect(database="postgres") as conn:
        conn.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            " AND application_name LIKE 'tenant_proxy%%'",
            [database],
        )
        soon(lambda: proxy.admin("SHOW CATALOG")[0]["state"] == "away", "it is away")
        assert connects(proxy, name)
        # workers and the control process that start meanwhile know it too
        proxy.expects_dead_workers = True
        for pid in proxy.process_tree()[1:]:
            os.kill(pid, signal.SIGKILL)
        soon(lambda: len(proxy.worker_pids()) == 2 and connects(proxy, name), "restarted workers serve it")
        soon(lambda: proxy.get("/readyz")[0] == 200, "it is ready, as it serves all that it did")
        # what is done meanwhile is read when it is back, though nobody is told of it
        town.state(name, "suspended", "unpaid")
        conn.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    wait_until(lambda: not connects(proxy, name), "what was missed is known", 15)
    assert "unpaid" in reason(proxy, name)


def test_a_start_without_the_catalog_serves_the_file(own_proxy: OwnProxy, town: Town, pg: Server):
    name = town.add("late")
    proxy = own_proxy(metrics={"enabled": True})
    url = town.dsn
    elsewhere = url.replace(f":{pg.port}/", f":{proxy.metrics_port}/")
    assert elsewhere != url
    proxy.reload(proxy.config | catalog(elsewhere))
    assert connects(proxy, "acme_app", "acme-secret")
    soon(lambda: proxy.get("/readyz")[0] == 503, "it is not ready")
    assert "the catalog has not been read yet" in proxy.get("/readyz")[1]
    assert not connects(proxy, name)
    proxy.reload(proxy.config | catalog(url))
    soon(lambda: connects(proxy, name), "the catalog is read")
    soon(lambda: proxy.get("/readyz")[0] == 200, "it is ready")
    # without metrics too
    proxy.reload(proxy.config | {"metrics": {"enabled": False}})
    other = town.add("other")
    soon(lambda: connects(proxy, other), "it follows without metrics")


def test_a_catalog_of_another_version_is_followed_and_told_of(own_proxy: OwnProxy, town: Town):
    """After an upgrade, until somebody has run `db migrate`."""
    name = town.add("old")
    town.catalog.execute("DELETE FROM migration WHERE version = (SELECT max(version) FROM migration)")
    proxy = own_proxy(**catalog(town.dsn))
    assert connects(proxy, name)
    (shown,) = proxy.admin("SHOW CATALOG")
    assert (shown["state"], shown["unusable"]) == ("followed", "version")
    assert "tenant-proxy db migrate" in shown["problem"]
    assert "the catalog is of another version" in proxy.log()


def test_a_database_without_a_catalog_is_said_to_have_none(own_proxy: OwnProxy, pg: Server):
    proxy = own_proxy(metrics={"enabled": True})
    proxy.reload(proxy.config | catalog(pg.dsn(database="postgres")))
    mend = "there is no catalog in this database; make it: tenant-proxy db init"

    def said() -> str | None:
        try:
            return str(proxy.admin("SHOW CATALOG")[0]["problem"])
        except psycopg.OperationalError:  # its control process is being started
            return None

    soon(lambda: said() == mend, "it is said what is missing")
    assert connects(proxy, "acme_app", "acme-secret")


def test_the_file_wins_over_the_catalog(own_proxy: OwnProxy, town: Town):
    name = town.add("clash")
    town.catalog.execute("UPDATE login SET name = 'beta_app' WHERE name = %s", [name])
    other = town.add("stray")
    town.catalog.execute("UPDATE tenant SET cluster = 'elsewhere' WHERE name = %s", [other])
    mine = [{"name": "acme"}, {"name": "beta"}, {"name": "mine", "schema": name}]
    proxy = own_proxy(tenants=mine, **catalog(town.dsn))
    assert connects(proxy, "beta_app", "beta-secret")
    shown = {row["unusable"]: row["problem"] for row in proxy.admin("SHOW CATALOG")}
    assert shown == {
        f"tenant {name}": 'its schema is that of tenant "mine"',
        f"tenant {other}": 'this proxy has no cluster "elsewhere"',
        "login beta_app": "the file has one of this name",
    }
    assert "the file has one of this name" in proxy.log()
    # a reload without it, and the catalog's is served
    proxy.reload(
        proxy.config
        | {"tenants": mine[:2], "users": [*proxy.config["users"][:1], *proxy.config["users"][2:]]}
    )
    soon(lambda: connects(proxy, "beta_app"), "the catalog's login is served")
    assert not connects(proxy, "beta_app", "beta-secret")


def test_a_password_is_rotated_with_overlap(own_proxy: OwnProxy, town: Town):
    name = town.add("turn", password="old")
    proxy = own_proxy(pool={"mode": "transaction"}, **catalog(town.dsn))
    assert connects(proxy, name, "old")
    stored = town.catalog.execute("SELECT verifier FROM login_secret").fetchone()
    assert stored is not None
    old = parse_verifier(stored[0])
    new = str(build_verifier("new", salt=old.salt, iterations=old.iterations))
    town.server.execute(f'CREATE ROLE "{name}_1" LOGIN PASSWORD \'{new}\' IN ROLE "{name}_owner"')
    town.secret(name, 1, new, f"{name}_1")
    soon(lambda: connects(proxy, name, "new"), "the new password is taken")
    for _ in range(2):
        assert connects(proxy, name, "old")
        assert connects(proxy, name, "new")
    town.catalog.execute("DELETE FROM login_secret WHERE slot = 0")
    soon(lambda: not connects(proxy, name, "old"), "the old password is no more")
    assert connects(proxy, name, "new")
