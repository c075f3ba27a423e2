"""Settings that the operator locks: tenants share tables under row-level security, each with its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, provide
from tests.pg_server import Server
from tests.wire_client import SYNC, bind, execute, parse, rows, sqlstates

SHOP = """
CREATE ROLE shop_app NOLOGIN;
CREATE ROLE north LOGIN PASSWORD 'north-secret';
CREATE ROLE south LOGIN PASSWORD 'south-secret';
GRANT shop_app TO north, south, tenant_proxy_service;
CREATE SCHEMA shop;
GRANT USAGE, CREATE ON SCHEMA shop TO shop_app;
CREATE TABLE shop.sales (tenant text NOT NULL DEFAULT current_setting('app.tenant_id'), item text);
ALTER TABLE shop.sales ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.sales USING (tenant = current_setting('app.tenant_id'));
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.sales TO shop_app;
INSERT INTO shop.sales VALUES ('n', 'sled'), ('s', 'surfboard');
"""

KINDS: dict[str, dict[str, Any]] = {
    "session": {"pool": {"mode": "session"}},
    "transaction": {"pool": {"mode": "transaction", "max": 1}},
    "shared": {"pool": {"mode": "transaction"}, "isolation": "shared"},
}


@pytest.fixture(scope="module")
def shop(pg: Server) -> Iterator[Server]:
    provide(pg)
    with pg.connect() as conn:
        conn.execute(SHOP)
    yield pg
    with pg.connect() as conn:
        conn.execute("DROP SCHEMA shop CASCADE; DROP OWNED BY shop_app")
        conn.execute("DROP ROLE shop_app; DROP ROLE north; DROP ROLE south")


def config(server: Server, kind: str) -> dict[str, Any]:
    cluster = {"name": "main", "host": server.host, "port": server.port, "database": "app"}
    one = {"schema": "shop", "role": "shop_app"}
    return {
        "clusters": [{**cluster, "service": {**SERVICE, "max_backends": 1}}],
        "tenants": [
            {"name": "north", **one, "locked_settings": {"App.Tenant_ID": "n"}},
            {"name": "south", **one, "locked_settings": {"app.tenant_id": "s"}},
        ],
        "users": [
            {"name": "north", "tenant": "north", "password": {"value": "north-secret"}},
            {
                "name": "south",
                "tenant": "south",
                "password": {"value": "south-secret"},
                "locked_settings": {"app.reader": "yes", "default_transaction_read_only": "on"},
            },
            {"name": "admin", "admin": True, "password": {"value": "admin-secret"}},
        ],
        **KINDS[kind],
    }


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def proxy(proxies: Callable[..., Proxy], shop: Server, kind: str) -> Proxy:
    return proxies(**config(shop, kind))


def north(proxy: Proxy, **options: Any) -> Any:
    return proxy.wire("north", password="north-secret", **options)


def south(proxy: Proxy, **options: Any) -> Any:
    return proxy.wire("south", password="south-secret", **options)


def test_each_sees_its_own_rows(proxy):
    with north(proxy) as n, south(proxy) as s:
        for _ in range(3):
            assert rows(n.query("SELECT item FROM sales")) == [("sled",)]
            assert rows(s.query("SELECT item FROM sales")) == [("surfboard",)]
        n.query("INSERT INTO sales (item) VALUES ('skis')")
        assert n.value("SELECT count(*) FROM sales") == "2"
        assert sqlstates(n.query("INSERT INTO sales VALUES ('s', 'skis')")) == ["42501"]
        n.query("DELETE FROM sales WHERE item = 'skis'")
        assert s.value("SELECT current_setting('app.reader')") == "yes"
        assert n.value("SELECT coalesce(current_setting('app.reader', true), '')") == ""


CHANGES = [
    "SET app.tenant_id = 's'",
    "SET LOCAL app.tenant_id = 's'",
    "SET APP.TENANT_ID = 's'",
    "SET app.tenant_id TO DEFAULT",
    "RESET app.tenant_id",
    "SELECT set_config('app.tenant_id', 's', false)",
    "SELECT set_config('app.tenant_' || 'id', 's', true)",
    "SELECT pg_catalog.set_config('APP.tenant_id', 's', true) FROM sales",
    "CREATE FUNCTION shop.sly() RETURNS int LANGUAGE sql SET app.tenant_id = 's' AS 'SELECT 1'",
    "CREATE FUNCTION shop.sly() RETURNS text LANGUAGE sql AS $$"
    " SELECT set_config('app.tenant_id', 's', true) $$",
    "DO $$ BEGIN SET LOCAL app.tenant_id = 's'; END $$",
    "DO $$ BEGIN PERFORM set_config('app.tenant_id', 's', true); END $$",
    "DO $$ BEGIN EXECUTE 'SET LOCAL app.tenant_id = ''s'''; END $$",
    "DO $$ DECLARE t text := 'SET app.tenant_id = ''s'''; BEGIN EXECUTE t; END $$",
    "ALTER ROLE shop_app SET app.tenant_id = 's'",
    "UPDATE pg_settings SET setting = 's' WHERE name = 'app.tenant_id'",
]


def test_it_can_not_be_changed(proxy):
    with north(proxy) as n:
        for sql in CHANGES:
            assert sqlstates(n.query(sql)) == ["42501"], sql
            assert sqlstates(n.query(f"BEGIN; {sql}")) == ["42501"], sql
            n.query("ROLLBACK")
            assert n.value("SELECT current_setting('app.tenant_id')") == "n"
            assert rows(n.query("SELECT item FROM sales")) == [("sled",)]


def test_it_can_not_be_changed_by_a_parameter(proxy):
    with north(proxy) as n:
        for sql, values in (
            ("SELECT set_config($1, $2, false)", ("App.tenant_id", "s")),
            ("SELECT set_config($1, 's', false)", ("app.tenant_id",)),
        ):
            assert sqlstates(n.ask(parse(sql), bind(*values), execute(), SYNC)) == ["42501"]
        assert n.value("SELECT current_setting('app.tenant_id')") == "n"


@pytest.mark.parametrize("given", [{"options": "-c app.tenant_id=s"}, {"options": "--App.tenant-id=s"}])
def test_it_can_not_be_asked_for_at_the_login(proxy, given):
    with pytest.raises(psycopg.OperationalError, match=r'set parameter "app\.tenant_id"'):
        psycopg.connect(proxy.dsn("north", password="north-secret", **given))


def test_what_resets_all_leads_back_to_it(proxy):
    with north(proxy) as n, south(proxy) as s:
        n.query("RESET ALL")
        assert rows(s.query("SELECT item FROM sales")) == [("surfboard",)]
        assert n.value("SELECT current_setting('app.tenant_id')") == "n"
        assert rows(n.query("SELECT item FROM sales")) == [("sled",)]


def test_what_resets_all_in_one_batch_leads_back_to_it(proxy):
    with north(proxy) as n, south(proxy) as s:
        reset = (parse("RESET ALL"), bind(), execute())
        assert rows(n.ask(*reset, parse("SELECT item FROM sales"), bind(), execute(), SYNC)) == [("sled",)]
        assert n.value("SELECT current_setting('app.tenant_id')") == "n"
        written = s.ask(*reset, parse("INSERT INTO sales (item) VALUES ('x')"), bind(), execute(), SYNC)
        assert sqlstates(written) == ["25006"]


def test_a_login_that_only_reads(proxy):
    with south(proxy) as s:
        assert sqlstates(s.query("INSERT INTO sales (item) VALUES ('x')")) == ["25006"]
        for sql in (
            "BEGIN READ WRITE",
            "START TRANSACTION READ WRITE",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "SET default_transaction_read_only = off",
            "SET transaction_read_only = off",
            "BEGIN; SET TRANSACTION READ WRITE",
            "SELECT set_config('transaction_read_only', 'off', true)",
        ):
            assert sqlstates(s.query(sql)) == ["42501"], sql
            s.query("ROLLBACK")
        assert sqlstates(s.query("BEGIN READ ONLY")) == []
        assert rows(s.query("SELECT item FROM sales")) == [("surfboard",)]
        s.query("COMMIT")


def test_a_change_in_the_configuration_ends_clients(own_proxy, shop, kind):
    proxy = own_proxy(**config(shop, kind))
    with north(proxy) as n, south(proxy) as s:
        assert n.value("SELECT current_setting('app.tenant_id')") == "n"
        assert s.value("SELECT 1") == "1"
        tenants = [dict(one) for one in proxy.config["tenants"]]
        tenants[0]["locked_settings"] = {"app.tenant_id": "nn"}
        proxy.reload({**proxy.config, "tenants": tenants})
        assert sqlstates(n.until_end()) == ["57P01"]
        assert rows(s.query("SELECT item FROM sales")) == [("surfboard",)]
        with north(proxy) as again:
            assert again.value("SELECT current_setting('app.tenant_id')") == "nn"
            assert rows(again.query("SELECT item FROM sales")) == []
