"""What was written for schema `public` of a database of its own runs unchanged in a tenant's schema."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import psycopg
import pytest

from tests.fix_proxy import Proxies, Proxy, base_config, merged
from tests.pg_server import Server
from tests.shims.conftest import install_views

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: a database of an application that has one for itself
PLAIN = """
CREATE TYPE public.mood AS ENUM ('good', 'bad');
CREATE TYPE public.pair AS (a int, b public.mood);
CREATE DOMAIN public.word AS text CHECK (VALUE <> '');
CREATE FUNCTION public.double(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * 2';
CREATE TABLE public.customers (
    id serial PRIMARY KEY, name public.word NOT NULL, feels public.mood DEFAULT 'good'
);
CREATE TABLE public.invoices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL REFERENCES public.customers ON DELETE CASCADE,
    amount int CHECK (public.double(amount) > 0)
);
CREATE INDEX invoices_double ON public.invoices (public.double(amount));
CREATE VIEW public.owing AS SELECT c.name, sum(i.amount) AS owed
    FROM public.customers c JOIN public.invoices i ON i.customer = c.id GROUP BY c.name;
CREATE MATERIALIZED VIEW public.totals AS SELECT sum(amount) AS total FROM public.invoices;
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE known public.customers%ROWTYPE;
    BEGIN
        SELECT * INTO known FROM public.customers WHERE id = new.customer;
        IF known.feels = 'bad'::public.mood THEN RAISE EXCEPTION 'not for them'; END IF;
        RETURN new;
    END $$;
CREATE TRIGGER stamped BEFORE INSERT ON public.invoices FOR EACH ROW EXECUTE FUNCTION public.stamp();
CREATE AGGREGATE public.product(int) (SFUNC = int4mul, STYPE = int, INITCOND = 1);
CREATE OPERATOR public.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
CREATE TABLE public.days (at date) PARTITION BY RANGE (at);
CREATE TABLE public.days_2020 PARTITION OF public.days FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
COMMENT ON TABLE public.customers IS 'who buys';
COMMENT ON COLUMN public.invoices.amount IS 'in cents';
COMMENT ON FUNCTION public.double(int) IS 'twice';
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
GRANT SELECT ON public.customers TO PUBLIC;
INSERT INTO public.customers (name) VALUES ('ann'), ('bob');
INSERT INTO public.invoices (customer, amount) VALUES (1, 5), (1, 7), (2, 11);
REFRESH MATERIALIZED VIEW public.totals;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    server.populate()
    install_views(server, "app")
    server.psql("CREATE DATABASE plain")
    server.psql(PLAIN, database="plain")
    yield server
    server.stop("immediate")
    server.close()


@pytest.fixture
def proxy(server: Server, proxy_pool: Proxies) -> Proxy:
    policy = {"catalogs": "hide", "public_is_own": True}
    with server.connect(database="app") as connection:
        connection.execute("DROP SCHEMA acme CASCADE; CREATE SCHEMA acme AUTHORIZATION acme_app")
    return proxy_pool.shared(merged(base_config(server), {"policy": policy}))


@pytest.mark.parametrize("options", [[], ["--inserts", "--rows-per-insert=2"], ["--clean", "--if-exists"]])
def test_a_stock_dump_is_restored_as_it_is(server: Server, proxy: Proxy, options: list[str]):
    done = server.run_tool("pg_dump", ["--no-owner", *options, server.dsn(database="plain")])
    assert done.returncode == 0, done.stderr
    assert "public.customers" in done.stdout
    restored = server.run_tool("psql", ["-X", "-v", "ON_ERROR_STOP=1", proxy.dsn()], stdin=done.stdout)
    assert restored.returncode == 0, restored.stderr
    with proxy.connect() as connection:
        found = connection.execute("SELECT name, owed FROM public.owing ORDER BY name").fetchall()
        assert found == [("ann", 12), ("bob", 11)]
        assert connection.execute("SELECT total FROM totals").fetchone() == (23,)
        connection.execute("INSERT INTO public.invoices (customer, amount) VALUES (1, 1)")
        connection.execute("UPDATE customers SET feels = 'bad' WHERE id = 1")
        with pytest.raises(psycopg.errors.RaiseException):
            connection.execute("INSERT INTO public.invoices (customer, amount) VALUES (1, 1)")
        connection.rollback()
        listed = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        ).fetchall()
        assert listed == [("customers",), ("days",), ("days_2020",), ("invoices",)]
    # nothing of it stands in the real one, and nobody else can look
    assert server.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'acme'", database="app") == "4"
    assert server.psql("SELECT has_schema_privilege('beta_app', 'acme', 'USAGE')", database="app") == "f"
    # and what is dumped through the proxy is what was restored
    again = server.run_tool("pg_dump", ["--no-owner", "--schema=public", proxy.dsn()])
    assert again.returncode == 0, again.stderr
    assert "CREATE TABLE public.customers" in again.stdout


def test_types_of_extensions_are_found(server: Server, proxy: Proxy):
    """They are in the schema that really is public, and drivers ask the catalogs for them."""
    with server.connect(database="app") as connection:
        connection.execute("CREATE DOMAIN public.email AS text; CREATE TABLE public.everyones (email email)")
        connection.commit()
    with proxy.connect() as connection:
        assert connection.execute("SELECT 'a@b'::email").fetchone() == ("a@b",)
        found = psycopg.types.TypeInfo.fetch(connection, "email")
        assert found is not None
        # as drivers declare parameters that they know the type of
        given = connection.pgconn.exec_params(b"SELECT $1", [b"c@d"], [found.oid])
        assert given.get_value(0, 0) == b"c@d"
        # as psycopg2 and asyncpg ask
        assert connection.execute(
            "SELECT t.oid, nspname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace"
            " WHERE typname = 'email'"
        ).fetchone() == (found.oid, "pg_public")
        assert connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_name = 'everyones'"
        ).fetchone() == (0,)


def test_settings_and_literals_that_say_public(proxy: Proxy):
    with proxy.connect(options="-c search_path=public") as connection:
        connection.execute("CREATE TABLE t (id serial PRIMARY KEY)")
        for sql in (
            "SET search_path TO public",
            "SELECT set_config('search_path', 'public', false)",
            "SET SCHEMA 'public'",
        ):
            connection.execute(sql)
            assert connection.execute("SELECT current_schema").fetchone() == ("public",), sql
        connection.execute("SELECT set_config('search_path', %s, false)", ("public",))
        assert connection.execute("SELECT current_schema()").fetchone() == ("public",)
        connection.execute("SELECT nextval('public.t_id_seq'), setval(%s, 7)", ("public.t_id_seq",))
        # as Django and ActiveRecord reset sequences
        assert connection.execute(
            "SELECT setval(pg_get_serial_sequence('public.t', 'id'), 9), nextval('public.t_id_seq')"
        ).fetchone() == (9, 10)
        assert connection.execute(
            "SELECT 'public.t'::regclass = to_regclass(%s), has_table_privilege('public.t', 'select')",
            ("public.t",),
        ).fetchone() == (True, True)
        # as Prisma asks
        assert connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", ("public",)
        ).fetchall() == [("t",)]


DJANGO = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={{"default": {{
        "ENGINE": "django.db.backends.postgresql", "NAME": "app", "USER": "acme_app",
        "PASSWORD": "acme-secret", "HOST": "{host}", "PORT": "{port}",
        "OPTIONS": {{"options": "-c search_path=public"}},
    }}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_KEY="of tests",
)
django.setup()
from django.core.management import call_command
from django.db import connection
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_user("ann")
with connection.cursor() as cursor:
    assert "auth_user" in connection.introspection.table_names(cursor)
    cursor.execute('SELECT username FROM "public"."auth_user"')
    assert cursor.fetchall() == [("ann",)]
    cursor.execute("SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'")
    assert cursor.fetchone()[0] > 30
call_command("inspectdb", "auth_user", stdout=open("/dev/null", "w"))
print("done")
"""


def test_django_in_public(proxy: Proxy):
    program = textwrap.dedent(DJANGO.format(host=proxy.host, port=proxy.port))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr


def test_lock_keys_are_each_tenant_s_own(proxy: Proxy):
    with proxy.connect() as acme, proxy.connect() as again, proxy.connect("beta_app") as beta:
        for call in ("pg_try_advisory_lock(7)", "pg_catalog.pg_try_advisory_lock(1, 2)"):
            assert acme.execute(f"SELECT {call}").fetchone() == (True,)
            assert again.execute(f"SELECT {call}").fetchone() == (False,), call
            assert beta.execute(f"SELECT {call}").fetchone() == (True,), call
