"""SQL made at run time in PL/pgSQL, where other tenants are hidden."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.fix_proxy import PASSWORDS, Proxy
from tests.guard.corpus_files import HIDING, Database

#: as somebody writes them who has never heard of the proxy
HONEST = [
    """CREATE FUNCTION partitions(years int) RETURNS int LANGUAGE plpgsql AS $f$
       BEGIN
         EXECUTE 'CREATE TABLE IF NOT EXISTS measured (at date, n int) PARTITION BY RANGE (at)';
         FOR i IN 1..years LOOP
           EXECUTE format('CREATE TABLE %I PARTITION OF measured FOR VALUES FROM (%L) TO (%L)',
                          'measured_' || i, make_date(2020 + i, 1, 1), make_date(2021 + i, 1, 1));
         END LOOP;
         EXECUTE/* here */'INSERT INTO measured SELECT make_date(2020 + g, 2, 2), g FROM generate_series(1, '
           || years || ') g'; -- all
         RETURN years;
       END $f$""",
    "SELECT partitions(3)",
    """CREATE FUNCTION rows_of(which text) RETURNS bigint LANGUAGE plpgsql AS '
       DECLARE n bigint; t regclass := which;
       BEGIN
         EXECUTE(''SELECT count(*) FROM '' || t)INTO n;
         RETURN n;
       END'""",
    "SELECT rows_of('measured'), rows_of('measured_2')",
    """CREATE FUNCTION pivot() RETURNS SETOF json LANGUAGE plpgsql AS $$
       DECLARE wanted text;
       BEGIN
         SELECT string_agg(format('sum(n) FILTER (WHERE extract(year FROM at) = %s) AS %I', y, 'y' || y), ', '
                           ORDER BY y) INTO wanted
           FROM (SELECT DISTINCT extract(year FROM at)::int AS y FROM measured) x;
         RETURN QUERY EXECUTE format('SELECT row_to_json(x) FROM (SELECT %s FROM measured) x', wanted);
       END $$""",
    "SELECT pivot()::text",
    """CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         EXECUTE format('UPDATE %I.measured_2 SET n = $1.n + $2', TG_TABLE_SCHEMA) USING NEW, 10;
         RETURN NULL;
       END $$""",
    """DO $$
       DECLARE t text; c refcursor; n int;
       BEGIN
         FOREACH t IN ARRAY ARRAY['measured_1'] LOOP
           EXECUTE format('CREATE TRIGGER g AFTER INSERT ON %I FOR EACH ROW EXECUTE FUNCTION touched()', t);
         END LOOP;
         EXECUTE 'INSERT INTO ' || t || ' VALUES ($1, $2)' USING date '2021-03-03', 5;
         OPEN c FOR EXECUTE 'SELECT n FROM ' || quote_ident('measured_2');
         FETCH c INTO n;
         IF n <> 15 THEN RAISE 'n is %', n; END IF;
       END $$""",
    """CREATE FUNCTION dropped(pattern text) RETURNS SETOF text LANGUAGE plpgsql AS $$
       DECLARE r record;
       BEGIN
         FOR r IN EXECUTE 'SELECT relname FROM pg_class WHERE relname ~ $1 ORDER BY ' || 1 USING pattern
         LOOP
           EXECUTE format('DROP TABLE %I CASCADE', r.relname);
           RETURN NEXT r.relname;
         END LOOP;
       END $$""",
    "SELECT dropped('^measured_[23]$')",
    "DO $$ BEGIN EXECUTE 'TRUNCATE ' || 'measured' || ' RESTART IDENTITY'; END $$",
    "SELECT prosrc FROM pg_proc WHERE pronamespace = 'acme'::regnamespace ORDER BY 1",
    "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE pronamespace = 'acme'::regnamespace "
    "AND prokind = 'f' ORDER BY 1",
    "DO $$ BEGIN EXECUTE NULL::text; END $$",
    "DO $$ DECLARE t regclass := 'orders'; q json := '1'; BEGIN EXECUTE t; EXECUTE q; END $$",
    "DO $$ DECLARE q text := 'SELECT nothing'; BEGIN EXECUTE q; END $$",
]

READ = """CREATE FUNCTION read(q text) RETURNS SETOF text LANGUAGE plpgsql
AS $$ BEGIN RETURN QUERY EXECUTE q; END $$"""
RUN = "CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$"


def answer(connection: psycopg.Connection, sql: str) -> object:
    try:
        with connection.transaction():
            cursor = connection.execute(sql.encode(), prepare=False)
            return cursor.fetchall() if cursor.description else cursor.statusmessage
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary


def directly(database: Database) -> psycopg.Connection:
    server = database.server
    connection = server.connect("acme_app", PASSWORDS["acme_app"], database.name)
    connection.execute("SET search_path = acme")
    connection.autocommit = False
    return connection


@pytest.fixture
def acme(hiding_database: Database, hiding_proxy: Proxy) -> Iterator[psycopg.Connection]:
    with psycopg.connect(hiding_proxy.dsn("acme_app", HIDING)) as connection:
        yield connection
        connection.rollback()


def test_honest_code_does_what_it_does_without_the_proxy(hiding_database: Database, acme):
    with directly(hiding_database) as direct:
        direct.execute("SELECT 1")  # what follows is undone
        wanted = [answer(direct, sql) for sql in HONEST]
        direct.rollback()
    acme.execute("SELECT 1")
    for sql, expected in zip(HONEST, wanted, strict=True):
        assert answer(acme, sql) == expected, sql


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nspname::text FROM pg_namespace",
        'SELECT relname::text FROM pg_catalog."pg_class" c JOIN pg_namespace n ON n.oid = c.relnamespace '
        "WHERE nspname = 'beta'",
        "SELECT table_schema::text FROM information_schema.tables",
        "SELECT rolname::text FROM pg_roles",
        "SELECT usename::text FROM pg_stat_activity",
    ],
)
def test_the_catalogs_show_ones_own(hiding_proxy: Proxy, acme, query: str):
    acme.execute(READ)
    with psycopg.connect(hiding_proxy.dsn("beta_app", HIDING)) as beta:
        beta.execute("SELECT 1")
        names = {row[0] for row in acme.execute("SELECT read(%s)", (query,))}
    assert not [name for name in names if name and "beta" in name]


@pytest.mark.parametrize(
    "query",
    [
        "SET search_path = beta",
        "SET ROLE beta_app",
        "RESET ROLE",
        "SELECT set_config('search_path', 'beta', false)",
    ],
)
def test_the_session_stays_as_it_is(acme, query: str):
    acme.execute(RUN)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), acme.transaction():
        acme.execute("SELECT run(%s)", (query,))
    (path,) = acme.execute("SHOW search_path").fetchone()
    assert "beta" not in path


def test_channels_and_keys_are_ones_own(hiding_proxy: Proxy):
    dsns = [hiding_proxy.dsn(login, HIDING) for login in ("acme_app", "acme_app", "beta_app")]
    with (
        psycopg.connect(dsns[0], autocommit=True) as acme,
        psycopg.connect(dsns[1], autocommit=True) as other,
        psycopg.connect(dsns[2], autocommit=True) as beta,
    ):
        for connection in (other, beta):
            connection.execute("LISTEN jobs")
        acme.execute(
            "DO $$ DECLARE c text := 'jobs'; BEGIN EXECUTE format('NOTIFY %I, %L', c, 'x'); "
            "EXECUTE 'SELECT pg_advisory_lock(' || 77 || ')'; END $$"
        )
        assert [(n.channel, n.payload) for n in other.notifies(timeout=5, stop_after=1)] == [("jobs", "x")]
        assert not list(beta.notifies(timeout=0.05))
        assert other.execute("SELECT pg_try_advisory_lock(77)").fetchone() == (False,)
        assert beta.execute("SELECT pg_try_advisory_lock(77)").fetchone() == (True,)
        acme.execute("SELECT pg_advisory_unlock_all()")


def test_errors_show_the_code_as_it_was_written(acme):
    with pytest.raises(psycopg.Error) as raised, acme.transaction():
        acme.execute("DO $x$ DECLARE n text := md5('x'); BEGIN EXECUTE 'SET ROLE ' || n; END $x$")
    assert raised.value.diag.context == "PL/pgSQL function inline_code_block line 1 at EXECUTE"
    with pytest.raises(psycopg.Error) as raised, acme.transaction():
        acme.execute("DO $x$ DECLARE q text[]; BEGIN EXECUTE q[nope]; END $x$")
    assert raised.value.diag.internal_query == "q[nope]"
    assert raised.value.diag.internal_position == "3"


def test_what_is_shown_can_be_made_again(acme):
    """A dump taken through the proxy is restored through it."""
    acme.execute(RUN)
    show = "SELECT pg_get_functiondef('run'::regproc), prosrc FROM pg_proc WHERE oid = 'run'::regproc"
    shown = acme.execute(show).fetchone()
    assert "tp_catalog" not in shown[0]
    assert shown[1] == " BEGIN EXECUTE q; END "
    acme.execute("DROP FUNCTION run")
    acme.execute(shown[0])
    assert acme.execute(show).fetchone() == shown
    acme.execute("SELECT run('SELECT 1')")
