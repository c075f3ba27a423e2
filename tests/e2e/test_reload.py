"""Reload: a good file is in force at once for what is new; a bad one changes nothing."""

from __future__ import annotations

import signal

import psycopg
import pytest

from tests.fix_proxy import Proxy, merged
from tests.wire_client import LoginFailed, errors, query, sqlstates, wait_until


@pytest.fixture(params=[1, 2], ids=["1-worker", "2-workers"])
def running(request, own_proxy) -> Proxy:
    return own_proxy(workers=request.param)


def test_a_new_tenant_and_login(running):
    running.reload(
        merged(running.config, {})
        | {
            "tenants": [*running.config["tenants"], {"name": "again", "schema": "public"}],
            "users": [
                *running.config["users"],
                {
                    "name": "again_app",
                    "tenant": "again",
                    "password": {"value": "again-secret"},
                    "server_user": "acme_app",
                    "server_password": {"value": "acme-secret"},
                },
            ],
        }
    )
    for _ in range(4):
        with running.wire("again_app", password="again-secret") as c:
            assert c.value("SELECT name FROM countries WHERE code = 'FR'") == "France"


def test_clients_stay_connected(running):
    clients = [running.wire() for _ in range(4)]
    clients[0].query("BEGIN; SELECT 1")
    clients[1].query("SET my.flag = 'kept'")
    running.reload(merged(running.config, {"pool": {"max": 17}}))
    assert clients[0].xact_status == "T"
    clients[0].query("COMMIT")
    assert clients[1].value("SHOW my.flag") == "kept"
    for c in clients:
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        c.terminate()


def test_a_changed_password(running):
    users = [
        u | {"password": {"value": "new"}, "server_password": {"value": "acme-secret"}}
        if u["name"] == "acme_app"
        else u
        for u in running.config["users"]
    ]
    running.reload(merged(running.config, {"users": users}))
    with pytest.raises(LoginFailed):
        running.wire()
    with running.wire(password="new") as c:
        assert c.value("SELECT 1") == "1"


def test_a_policy_is_in_force_for_clients_that_are_there(running, superuser):
    superuser.execute("GRANT USAGE ON SCHEMA beta TO acme_app; GRANT SELECT ON beta.orders TO acme_app")
    try:
        with running.wire() as c:
            assert sqlstates(c.query("SELECT * FROM beta.orders")) == ["42501"]
            running.reload(merged(running.config, {"policy": {"mode": "observe"}}))
            wait_until(
                lambda: not sqlstates(c.query("SELECT * FROM beta.orders")), "the new policy is in force", 5
            )
            running.reload(merged(running.config, {"policy": {"mode": "enforce"}}))
            wait_until(lambda: sqlstates(c.query("SELECT * FROM beta.orders")), "the old policy is back", 5)
    finally:
        superuser.execute("REVOKE ALL ON SCHEMA beta FROM acme_app; REVOKE ALL ON beta.orders FROM acme_app")


def test_a_policy_file_is_read_again(own_proxy, tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("denied_functions: [md5]\n")
    tenants = [{"name": "acme", "policy_file": str(file)}, {"name": "beta"}]
    proxy = own_proxy(tenants=tenants)
    with proxy.wire() as acme, proxy.wire("beta_app") as beta:
        assert sqlstates(acme.query("SELECT md5('x')")) == ["42501"]
        assert beta.value("SELECT length(md5('x'))") == "32"
        file.write_text("denied_functions: [md5, {]\n")
        with pytest.raises(psycopg.Error) as failed:
            proxy.admin("RELOAD")
        assert f"{file}:1:" in str(failed.value.diag.message_detail)
        assert sqlstates(acme.query("SELECT md5('y')")) == ["42501"]
        file.write_text("denied_functions: [lower]\n")
        proxy.admin("RELOAD")
        assert acme.value("SELECT length(md5('x'))") == "32"
        assert sqlstates(acme.query("SELECT lower('X')")) == ["42501"]


def test_a_removed_login_does_not_come_in_again(running):
    running.reload(
        merged(running.config, {"users": [u for u in running.config["users"] if u["name"] != "beta_app"]})
    )
    with pytest.raises(LoginFailed):
        running.wire("beta_app")
    with running.wire() as c:
        assert c.value("SELECT 1") == "1"


@pytest.mark.parametrize(
    "change",
    [
        {"nothing_such": 1},
        {"pool": {"max": "many"}},
        {"pool": {"mode": "statement"}},
        {"tenants": [{"name": "Not A Name"}]},
        {"users": [{"name": "x", "tenant": "nothing_such", "password": {"value": "y"}}]},
        {"users": [{"name": "x", "tenant": "acme", "password": {"file": "/nothing/such"}}]},
        {"clusters": []},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_bad_file_changes_nothing(own_proxy, change):
    proxy = own_proxy()
    good = proxy.config
    with proxy.wire() as before:
        with pytest.raises(psycopg.Error) as raised:
            proxy.reload(merged(good, change))
        assert "tenant_proxy.yaml:" in (raised.value.diag.message_detail or "")
        assert before.value("SELECT 1") == "1"
        with proxy.wire() as after:
            assert after.value("SELECT item FROM orders WHERE id = 1") == "anvil"
    proxy.reload(good)


def test_a_file_that_is_no_yaml(own_proxy):
    proxy = own_proxy()
    text = proxy.config_path.read_text()
    proxy.config_path.write_text(text + "\n  - [broken\n")
    with pytest.raises(psycopg.Error):
        proxy.admin("RELOAD")
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"
    proxy.config_path.write_text(text)


def test_sighup(own_proxy):
    proxy = own_proxy()
    text = proxy.config_path.read_text()
    assert proxy.process is not None
    with proxy.log_contains("reload"):
        proxy.config_path.write_text(
            text.replace("name: beta\n", "name: gamma\n  schema: beta\n").replace(
                "tenant: beta", "tenant: gamma"
            )
        )
        proxy.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: "gamma" in {row["tenant"] for row in proxy.admin("SHOW TENANTS")}, "the new tenant is there"
    )
    with proxy.wire("beta_app") as c:
        assert c.value("SELECT item FROM orders WHERE id = 1") == "bolt"


def test_a_changed_pool_size(running):
    running.reload(
        merged(running.config, {"pool": {"mode": "transaction", "max": 1, "queue_timeout_s": 0.5}})
    )
    with running.wire() as holder, running.wire() as waiter:
        holder.query("BEGIN; SELECT 1")
        waiter.send(b"Q\0\0\0\x0dSELECT 1\0")
        assert sqlstates(waiter.until_end()) == ["57P03"]


def test_many_reloads_under_load(own_proxy):
    proxy = own_proxy(workers=2, pool={"mode": "transaction", "max": 2})
    clients = [proxy.wire() for _ in range(6)]
    for turn in range(8):
        for c in clients:
            c.send(b"Q\0\0\0\x0dSELECT 1\0")
        proxy.reload(merged(proxy.config, {"pool": {"max": 2 + turn % 3}}))
        for c in clients:
            assert sqlstates(c.until_ready()) == []
    for c in clients:
        c.terminate()


def test_a_tenant_that_moves_takes_its_backends_places_along(own_proxy, own_pg):
    """What it had open on the one cluster is that one's to give to others."""
    clusters = [
        {"name": name, "host": own_pg.host, "port": own_pg.port, "database": "app", "max_backends": 2}
        for name in ("main", "other")
    ]
    pool = {"mode": "transaction", "queue_timeout_s": 2}

    def placed(acme: str) -> list[dict[str, str]]:
        return [{"name": "acme", "cluster": acme}, {"name": "beta", "cluster": "main"}]

    proxy = own_proxy(own_pg, clusters=clusters, pool=pool, tenants=placed("main"))
    with proxy.wire() as idle, proxy.wire() as busy:
        busy.query("BEGIN; SELECT 1")
        assert idle.value("SELECT 1") == "1"
        proxy.reload(merged(proxy.config, {"tenants": placed("other")}))
        assert sqlstates(busy.query("COMMIT")) == []
    with proxy.wire("beta_app") as one, proxy.wire("beta_app") as another:
        for client in (one, another):
            assert sqlstates(client.query("BEGIN; SELECT 1")) == []
    with proxy.wire() as one, proxy.wire() as another, proxy.wire() as third:
        for client in (one, another):
            client.query("BEGIN; SELECT 1")
        third.send(query("SELECT 1"))
        assert errors(third.until_end())[-1]["C"] == "57P03"
