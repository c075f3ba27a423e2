"""What DO blocks and functions leave in their session, in transaction mode: it stays with their client."""

from __future__ import annotations

import pytest

from tests.fix_proxy import Proxy
from tests.wire_client import SYNC, bind, execute, parse, rows, sqlstates


@pytest.fixture
def proxy(proxies) -> Proxy:
    return proxies(pool={"mode": "transaction", "max": 1})


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("SET TimeZone = 'Asia/Tokyo'", "TimeZone", "Asia/Tokyo"),
        ("PERFORM set_config('client_encoding', 'LATIN1', false)", "client_encoding", "LATIN1"),
        ("SET statement_timeout = '7s'", "statement_timeout", "7s"),
        ("SET default_transaction_read_only = on", "default_transaction_read_only", "on"),
        ("SET my.flag = 'mine'", "my.flag", "mine"),
        ("EXECUTE 'SET work_mem = ''7MB'''", "work_mem", "7MB"),
        ("EXECUTE format('SET %I = %L', 'work_mem', (SELECT '8MB'))", "work_mem", "8MB"),
    ],
)
def test_settings(proxy: Proxy, code: str, name: str, value: str):
    ask = f"SELECT current_setting('{name}', true)"
    with proxy.wire() as one, proxy.wire() as other:
        before = other.value(ask) or None
        assert not sqlstates(one.query(f"DO $$BEGIN {code}; END$$"))
        assert (one.value(ask), other.value(ask) or None) == (value, before)
        with proxy.wire() as later:
            assert (later.value(ask) or None) == before
            assert later.value("SHOW client_encoding") == later.parameters["client_encoding"]
        assert one.value(ask) == value


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("CREATE TEMP TABLE mine (a int)", "SELECT 1 FROM pg_temp.mine"),
        ("PREPARE mine AS SELECT 1", "EXECUTE mine"),
        (
            "PERFORM pg_advisory_lock(7)",
            "SELECT 1 / count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        ),
    ],
)
def test_what_would_pin(proxies, code: str, ask: str):
    proxy = proxies(pool={"mode": "transaction", "max": 2})
    with proxy.wire() as one, proxy.wire() as other:
        assert not sqlstates(one.query(f"DO $$BEGIN {code}; END$$"))
        assert not sqlstates(one.query(ask))
        assert sqlstates(other.query(ask))
        assert [(pin["user"], pin["reason"]) for pin in proxy.admin("SHOW PINS")] == [("acme_app", "code")]


def test_statements_that_are_deallocated(proxy: Proxy):
    with proxy.wire() as one:
        with proxy.wire() as other:
            assert not sqlstates(one.ask(parse("SELECT 42", "s"), SYNC))
            assert not sqlstates(other.query("DO $$BEGIN DEALLOCATE ALL; END$$"))
            other.terminate()
        assert rows(one.ask(bind(name="s"), execute(), SYNC)) == [("42",)]


def test_what_a_function_sets_and_the_server_reports(proxy: Proxy):
    make = """CREATE OR REPLACE FUNCTION sets() RETURNS int LANGUAGE plpgsql AS
        $$BEGIN SET TimeZone = 'Asia/Tokyo'; SET work_mem = '7MB'; RETURN 1; END$$"""
    with proxy.wire() as one, proxy.wire() as other:
        assert not sqlstates(one.query(make))
        try:
            assert one.value("SELECT sets()") == "1"
            assert [other.value(f"SHOW {name}") for name in ("TimeZone", "work_mem")] == ["UTC", "4MB"]
            assert [one.value(f"SHOW {name}") for name in ("TimeZone", "work_mem")] == ["Asia/Tokyo", "7MB"]
        finally:
            one.query("DROP FUNCTION sets()")
