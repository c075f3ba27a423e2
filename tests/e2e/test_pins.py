"""Clients that keep a backend between transactions: seen, counted and limited."""

from __future__ import annotations

from tests.wire_client import SYNC, bind, execute, parse, rows, sqlstates

PINNING = {
    "temp_table": "CREATE TEMP TABLE mine (a int)",
    "advisory_lock": "SELECT pg_advisory_lock(4711)",
    "prepare": "PREPARE mine AS SELECT 1",
    "hold_cursor": "BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1; COMMIT",
}


def test_they_are_shown(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 10})
    clients = {reason: proxy.wire(application_name=reason) for reason in PINNING}
    try:
        for reason, sql in PINNING.items():
            assert sqlstates(clients[reason].query(sql)) == []
        pins = {row["application_name"]: row for row in proxy.admin("SHOW PINS")}
        assert {name: row["reason"] for name, row in pins.items()} == {name: name for name in PINNING}
        for name, row in pins.items():
            assert row["tenant"] == "acme"
            assert str(row["remote_pid"]) == clients[name].value("SELECT pg_backend_pid()")
            assert row["age_s"] >= 0
        (acme,) = [row for row in proxy.admin("SHOW TENANTS") if row["tenant"] == "acme"]
        assert acme["pins"] == len(PINNING)
        assert proxy.metric("tenant_proxy_pins", tenant="acme", reason="prepare") == 1
        assert proxy.metric("tenant_proxy_pins_total", tenant="acme", reason="temp_table") >= 1
        assert proxy.metric("tenant_proxy_oldest_pin_seconds", tenant="acme", reason="prepare") >= 0
        clients["prepare"].query("DISCARD ALL")
        assert "prepare" not in {row["reason"] for row in proxy.admin("SHOW PINS")}
    finally:
        for client in clients.values():
            client.close()


def test_there_is_a_limit(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 10, "max_pins": 2}, workers=2)
    with proxy.wire() as first, proxy.wire() as second, proxy.wire() as third, proxy.wire("beta_app") as beta:
        first.query(PINNING["temp_table"])
        second.query(PINNING["prepare"])
        said = third.query(PINNING["prepare"])
        assert sqlstates(said) == ["53300"]
        said = third.ask(parse(PINNING["prepare"]), bind(), execute(), SYNC)
        assert sqlstates(said) == ["53300"]
        third.query("BEGIN")
        third.query("SELECT 1")
        assert sqlstates(third.query(PINNING["temp_table"])) == ["53300"]
        assert sqlstates(third.query("SELECT 1")) == ["25P02"]
        third.query("ROLLBACK")
        # who has a pin may have more of what pins
        assert sqlstates(first.query(PINNING["prepare"])) == []
        assert sqlstates(beta.query(PINNING["prepare"])) == []
        second.query("DISCARD ALL")
        assert sqlstates(third.query(PINNING["prepare"])) == []
        assert rows(third.query("SELECT 1")) == [("1",)]
        first.close()
        assert sqlstates(second.query(PINNING["temp_table"])) == []
