"""A tenant that is shown its own alone, as its application meets it: what is sent changed comes back in its
own terms.  The database has the schemas of `catalog install`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

from tenant_proxy.shims import install
from tests.fix_proxy import Proxy
from tests.fix_shared import BACKEND, is_shared, provide, shared_config
from tests.pg_server import ORDERS, POPULATE_TENANT, Server
from tests.wire_client import (
    SYNC,
    Message,
    bind,
    errors,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    wait_until,
)

DATABASE = "hiding"


async def _install(dsn: str, *, remove: bool = False) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await (install.uninstall if remove else install.install)(connection)
    finally:
        await connection.close()


def make_database(pg: Server, name: str) -> str:
    """A database with the tenants' schemas; its DSN."""
    with pg.connect(database="postgres") as conn:
        conn.execute(f"CREATE DATABASE {name}")
    with pg.connect(database=name) as conn:
        for tenant, orders in ORDERS.items():
            conn.execute(POPULATE_TENANT.format(name=tenant, orders=", ".join(map(str, orders))))
    return pg.dsn(database=name)


def drop_database(pg: Server, name: str) -> None:
    with pg.connect(database="postgres") as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def hiding(pg: Server) -> Iterator[str]:
    dsn = make_database(pg, DATABASE)
    asyncio.run(_install(dsn))
    yield DATABASE
    drop_database(pg, DATABASE)


@pytest.fixture(params=["session", "transaction"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hidden(proxies: Callable[..., Proxy], pg: Server, hiding: str, mode: str) -> Callable[..., Proxy]:
    def make(**policy: Any) -> Proxy:
        return proxies(
            clusters=[{"name": "main", "host": pg.host, "port": pg.port, "database": hiding}],
            pool={"mode": mode},
            policy=policy,
            secret={"value": "a test's"},
        )

    return make


@pytest.mark.parametrize(
    ("made", "dropped", "proven"),
    [
        (
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_notify('orders', NEW.id::text); NOTIFY orders; RETURN NEW; END $$",
            "FUNCTION tell()",
            True,
        ),
        (
            "CREATE FUNCTION count_all() RETURNS bigint LANGUAGE sql AS"
            " $$ SELECT sum(pg_relation_size(oid)) FROM pg_class $$",
            "FUNCTION count_all()",
            True,
        ),
        (
            "CREATE VIEW sizes AS SELECT pg_table_size(oid), obj_description(oid) FROM pg_class",
            "VIEW sizes",
            True,
        ),
        (
            "CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$",
            "FUNCTION run(text)",
            False,
        ),
        ("CREATE VIEW locks AS SELECT pg_try_advisory_lock(1)", "VIEW locks", False),
        (
            "CREATE FUNCTION hold() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(1) $$",
            "FUNCTION hold()",
            False,
        ),
    ],
    ids=["notify", "catalogs", "a view", "dynamic SQL", "a view that locks", "locks"],
)
def test_code_that_was_turned_is_read_as_it_was_written(proxies, pg, hiding, made, dropped, proven):
    """A tenant whose code names catalogs or channels may share backends, read anew as well."""
    provide(pg)
    cluster = {**shared_config(pg)["clusters"][0], "database": hiding}
    proxy = proxies(**shared_config(pg, clusters=[cluster], secret={"value": "a test's"}))

    def lines() -> int:
        return proxy.log().count("code of a tenant was read")

    def shares() -> bool:
        return is_shared(pg, acme.value(BACKEND))

    def shares_again() -> None:
        wait_until(shares, "the tenant shares backends", 20)

    with proxy.wire() as acme:
        shares_again()
        try:
            # something that is not proven, so that it shows when all has been read without it
            acme.query(
                "CREATE FUNCTION doubtful() RETURNS void LANGUAGE plpgsql"
                " AS $$ BEGIN EXECUTE current_setting('app.x'); END $$"
            )
            wait_until(lambda: not shares(), "the tenant is not proven", 20)
            assert sqlstates(acme.query(made)) == []
            acme.query("DROP FUNCTION doubtful()")
            before = lines()
            proxy.admin("RELOAD")
            if proven:
                shares_again()
            else:
                wait_until(lambda: not shares() and lines() > before, "it is read", 20)
        finally:
            acme.query("DROP FUNCTION IF EXISTS doubtful()")
            acme.query(f"DROP {dropped}")
            proxy.admin("RELOAD")
            shares_again()


def test_other_tenants_are_not_in_the_catalogs(hidden):
    with hidden().connect() as conn:
        schemas = {name for (name,) in conn.execute("SELECT nspname FROM pg_namespace")}
        assert "acme" in schemas
        assert not schemas & {"beta", "tp_catalog", "tp_information_schema"}
        found = conn.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'orders'")
        assert found.fetchall() == [("acme",)]


def test_the_error_points_into_the_client_s_own_text(hidden):
    sql = "SELECT 'é', relname, nothing FROM pg_class"
    proxy = hidden()
    with proxy.wire() as client:
        for messages in (
            client.ask(query(sql)),
            client.ask(parse(sql) + SYNC),
        ):
            (error,) = errors(messages)
            assert error["M"] == 'column "nothing" does not exist'
            assert int(error["P"]) == sql.index("nothing") + 1


def test_a_plan_that_fails_at_bind_points_into_the_client_s_own_text(hidden):
    sql = "SELECT relname, gone.id FROM pg_class, gone WHERE relname = $1"
    with hidden().wire() as client:
        client.query("CREATE TABLE gone (id int)")
        assert not errors(client.ask(parse(sql, "s") + bind(b"x", name="s") + execute() + SYNC))
        client.query("DROP TABLE gone")
        (error,) = errors(client.ask(bind(b"x", name="s") + execute() + SYNC))
        assert error["M"] == 'relation "gone" does not exist'
        assert int(error["P"]) == sql.index("gone WHERE") + 1


def test_errors_do_not_name_what_the_proxy_put_there(hidden):
    with hidden().connect() as conn, pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT pg_catalog.pg_class.nothing FROM pg_class")
    shown = str(caught.value)
    assert "tp_" not in shown


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_channels_are_the_tenant_s_own(hidden):
    proxy = hidden()
    with proxy.connect() as acme, proxy.connect("beta_app") as beta, proxy.connect() as other:
        acme.execute('LISTEN "Jobs"')
        beta.execute('LISTEN "Jobs"')
        beta.execute("NOTIFY \"Jobs\", 'from beta'")
        other.execute("NOTIFY \"Jobs\", 'from acme'")
        other.execute("SELECT pg_notify('Jobs', 'by function')")
        heard = [(n.channel, n.payload) for n in acme.notifies(timeout=2, stop_after=2)]
        assert heard == [("Jobs", "from acme"), ("Jobs", "by function")]
        assert [(n.channel, n.payload) for n in beta.notifies(timeout=2, stop_after=1)] == [
            ("Jobs", "from beta")
        ]
        assert acme.execute("SELECT pg_listening_channels()").fetchall() == [("Jobs",)]


def test_public_is_the_tenant_s_own_schema(hidden):
    with hidden(public_is_own=True).connect() as conn:
        assert conn.execute("SELECT item FROM public.orders ORDER BY id").fetchone() == ("anvil",)
        assert conn.execute("SELECT 'public.orders'::regclass::oid > 0").fetchone() == (True,)
        with pytest.raises(psycopg.errors.UndefinedTable) as caught:
            conn.execute("SELECT 1 FROM public.nowhere")
        assert 'relation "public.nowhere" does not exist' in str(caught.value)
        with pytest.raises(psycopg.errors.UniqueViolation) as violated:
            conn.execute("INSERT INTO public.orders VALUES (1, 'again')")
        assert violated.value.diag.schema_name == "public"


def test_statements_in_another_encoding_are_changed_in_the_right_places(hidden):
    proxy = hidden(public_is_own=True)
    with proxy.connect(client_encoding="latin1") as conn:
        conn.execute('CREATE TABLE IF NOT EXISTS public."é" ("ü" text)')
        conn.execute("INSERT INTO public.\"é\" VALUES ('ß')")
        assert conn.execute('SELECT \'äöü\', x."ü" FROM public."é" x').fetchone() == ("äöü", "ß")
        with pytest.raises(psycopg.Error) as caught:
            conn.execute('SELECT \'äöü\', public."é".nothing FROM public."é"')
        assert caught.value.diag.statement_position == "15"
        conn.execute('DROP TABLE public."é"')


def test_values_that_name_objects_are_judged_when_they_are_bound(hidden):
    with hidden(public_is_own=True).wire() as client:
        sql = "SELECT $1::text::regclass::text"
        client.ask(parse(sql, "s") + SYNC)
        assert rows_of(client.ask(bind("public.orders", name="s") + execute() + SYNC)) == ["orders"]
        for formats in ((), (1,)):
            (error,) = errors(client.ask(bind("beta.orders", name="s", formats=formats) + execute() + SYNC))
            assert (error["C"], error["M"]) == ("42501", "permission denied for schema beta")
        assert rows_of(client.ask(bind("orders", name="s") + execute() + SYNC)) == ["orders"]


def test_settings_of_the_proxy_are_not_the_client_s(hidden):
    with hidden().connect() as conn:
        for sql in (
            "SET tenant_proxy.schema = 'beta'",
            "SET LOCAL tenant_proxy.space TO 'x'",
            "RESET tenant_proxy.public",
            "SELECT set_config('tenant_proxy.schema', 'beta', false)",
            "ALTER ROLE acme_app SET tenant_proxy.schema = 'beta'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET tenant_proxy.schema = 'beta' AS 'SELECT 1'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(sql)
        conn.execute("RESET ALL")
        assert conn.execute("SHOW tenant_proxy.schema").fetchone() == ("acme",)


def test_what_is_installed_later_is_found_by_a_reload(own_proxy, pg):
    """And a statement that was prepared before is judged by what holds then."""
    dsn = make_database(pg, "later")
    try:
        proxy = own_proxy(
            clusters=[{"name": "main", "host": pg.host, "port": pg.port, "database": "later"}],
            pool={"mode": "transaction", "server_lifetime_s": 3600},
        )
        sql = "SELECT count(*) FROM pg_namespace WHERE nspname = 'beta'"
        with proxy.wire() as client:
            assert client.value(sql) == "1"
            client.ask(parse(sql, "s") + SYNC)
            asyncio.run(_install(dsn))
            proxy.reload({**proxy.config, "policy": {"catalogs": "hide"}})
            assert client.value(sql) == "0"
            assert rows_of(client.ask(bind(name="s") + execute() + SYNC)) == ["0"]
    finally:
        drop_database(pg, "later")


def rows_of(messages: list[Message]) -> list[str | None]:
    return [row[0] for row in rows(messages)]
