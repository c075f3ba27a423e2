"""The admin console: psql and PgBouncer's tools can talk to it."""

from __future__ import annotations

import psycopg
import pytest

from tests.fix_proxy import PASSWORDS, merged
from tests.wire_client import SYNC, LoginFailed, bind, execute, parse, rows, sqlstates, types

CONNECTION = (
    "type user database state addr port local_addr local_port connect_time request_time wait wait_us"
    " close_needed ptr link remote_pid tls application_name prepared_statements"
)
#: PgBouncer's columns, in its order (docs, usage.md); ours may follow
COLUMNS = {
    "POOLS": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active"
    " sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode",
    "CLIENTS": CONNECTION,
    "SERVERS": CONNECTION,
    "STATS": "database total_server_assignment_count total_xact_count total_query_count total_received"
    " total_sent",
}


@pytest.mark.parametrize("database", ["tenant_proxy", "pgbouncer"])
def test_both_names_of_the_console(proxy, database):
    with proxy.wire("admin", database=database) as c:
        assert types(c.query("SHOW VERSION")).startswith("TD")
        assert types(c.query("show version;")).startswith("TD")


@pytest.mark.parametrize("what", COLUMNS)
def test_pgbouncers_columns_come_first(proxy, what):
    with proxy.wire() as client:
        client.query("SELECT 1")
        with psycopg.connect(proxy.dsn("admin", "pgbouncer"), autocommit=True) as conn:
            cursor = psycopg.ClientCursor(conn)
            cursor.execute(f"SHOW {what}")
            names = [column.name for column in cursor.description or ()]
            wanted = [name for name in COLUMNS[what].split() if name in names]
            assert len(wanted) >= len(COLUMNS[what].split()) - 4, names
            assert [name for name in names if name in wanted] == wanted
            assert cursor.fetchall()


def test_clients_and_servers_show_who_is_there(proxy):
    with proxy.wire(application_name="shown here") as client:
        client.query("SELECT 1")
        (shown,) = [c for c in proxy.admin("SHOW CLIENTS") if c["application_name"] == "shown here"]
        assert (shown["user"], shown["addr"]) == ("acme_app", "127.0.0.1")
        assert int(shown["port"]) == client.sock.getsockname()[1]
        servers = [s for s in proxy.admin("SHOW SERVERS") if str(s["remote_pid"]) == str(client.pid)]
        assert len(servers) == 1
    with proxy.wire(application_name="long " * 1000):
        assert max(len(one["application_name"]) for one in proxy.admin("SHOW CLIENTS")) <= 63


def test_tenants(proxy):
    with proxy.wire() as client:
        client.query("SELECT 1")
        shown = {row["tenant"]: row for row in proxy.admin("SHOW TENANTS")}
        assert set(shown) == {"acme", "beta"}
        assert int(shown["acme"]["clients"]) >= 1


@pytest.mark.parametrize("workers", [1, 2])
def test_counts_are_over_all_workers(own_proxy, workers):
    proxy = own_proxy(workers=workers)
    clients = [proxy.wire() for _ in range(10)]
    for c in clients:
        c.query("SELECT 1")
        c.query("SELECT 2")
    assert len([c for c in proxy.admin("SHOW CLIENTS") if c["user"] == "acme_app"]) == 10
    stats = [row for row in proxy.admin("SHOW STATS") if int(row["total_query_count"]) >= 20]
    assert stats
    for c in clients:
        c.terminate()


def test_config_shows_no_secret(proxy):
    shown = str(proxy.admin("SHOW CONFIG"))
    assert "pool" in shown
    for secret in PASSWORDS.values():
        assert secret not in shown


@pytest.mark.parametrize(
    "what", ["DATABASES", "USERS", "LISTS", "STATE", "HELP", "STATS_TOTALS", "STATS_AVERAGES"]
)
def test_what_monitoring_tools_ask_besides(proxy, what):
    with proxy.wire("viewer", database="pgbouncer") as c:
        replies = c.query(f"SHOW {what}")
        assert types(replies)[-1] == "Z"
        assert sqlstates(replies) in ([], ["42601"], ["0A000"])


def test_a_viewer_may_look_but_not_act(proxy):
    with proxy.wire("viewer", database="tenant_proxy") as c:
        assert rows(c.query("SHOW POOLS")) is not None
        assert sqlstates(c.query("RELOAD")) == ["42501"]
        assert sqlstates(c.query("KILL_CLIENT 1")) == ["42501"]
        assert rows(c.query("SHOW VERSION"))


@pytest.mark.parametrize("database", ["tenant_proxy", "pgbouncer"])
def test_others_may_not_come_in(proxy, database):
    with pytest.raises(LoginFailed) as failed:
        proxy.wire("acme_app", database=database)
    assert failed.value.fields["S"] == "FATAL"
    assert failed.value.fields["C"] in ("42501", "28000")


def test_the_console_needs_a_password(proxy):
    with pytest.raises(LoginFailed) as failed:
        proxy.wire("admin", database="tenant_proxy", password="wrong")
    assert failed.value.fields["C"] == "28P01"


def test_an_admin_has_no_tenant(proxy):
    with pytest.raises(LoginFailed):
        proxy.wire("admin", database="app")


@pytest.mark.parametrize("sql", ["SHOW nothing_such", "DROP TABLE x", "SELECT * FROM x", "RELOAD now", "'"])
def test_unknown_commands(proxy, sql):
    with proxy.wire("admin", database="tenant_proxy") as c:
        replies = c.query(sql)
        assert types(replies) == "EZ"
        assert c.xact_status == "I"
        assert rows(c.query("SHOW VERSION"))


def test_empty_commands(proxy):
    with proxy.wire("admin", database="tenant_proxy") as c:
        assert types(c.query("")) == "IZ"
        assert types(c.query(" ;")) == "IZ"


def test_the_extended_protocol_is_answered_or_refused_clearly(proxy):
    """Drivers that only prepare (asyncpg, psycopg with parameters) must not hang."""
    with proxy.wire("admin", database="tenant_proxy") as c:
        c.send(parse("SHOW VERSION"), bind(), execute(), SYNC)
        replies = c.until("ZE")
        assert types(replies) in ("12DCZ", "E")
        assert sqlstates(replies) in ([], ["0A000"])


def test_psql(pg, proxy):
    done = pg.run_tool(
        "psql", ["-X", "-A", "-c", "SHOW POOLS", "-c", "SHOW VERSION", proxy.dsn("admin", "tenant_proxy")]
    )
    assert done.returncode == 0, done.stderr
    assert "cl_active" in done.stdout


def test_kill_client(proxies):
    proxy = proxies(workers=2)
    with proxy.wire(application_name="victim") as victim, proxy.wire() as other:
        victim.query("SELECT 1")
        (shown,) = [c for c in proxy.admin("SHOW CLIENTS") if c["application_name"] == "victim"]
        proxy.admin(f"KILL_CLIENT {shown['id']}")
        assert sqlstates(victim.until_end()) in (["57P01"], [])
        assert other.value("SELECT 1") == "1"


def test_reload(own_proxy):
    proxy = own_proxy()
    proxy.reload(
        merged(proxy.config, {"tenants": [{"name": "acme"}]})
        | {"users": proxy.config["users"][:1] + proxy.config["users"][2:]}
    )
    assert {row["tenant"] for row in proxy.admin("SHOW TENANTS")} == {"acme"}


def test_the_console_while_the_pool_is_exhausted(proxies):
    """It needs no backend, so it answers when nothing else does."""
    proxy = proxies(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 20})
    with proxy.wire() as holder, proxy.wire() as waiter:
        holder.query("BEGIN; SELECT 1")
        waiter.send(b"Q\0\0\0\x0dSELECT 1\0")
        assert proxy.admin("SHOW POOLS")
        holder.query("COMMIT")
        waiter.until_ready()
