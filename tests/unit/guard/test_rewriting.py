"""What names are turned to: the text as it goes to the server."""

from __future__ import annotations

import pytest

from tenant_proxy.model import Action, Verdict
from tests.unit.guard.scope import ACME, GUARD, HIDING, PUBLIC, SPACE, judge, refusal, rewritten, scope

MISSING = scope(hide_missing=True)

# --- catalogs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "turned"),
    [
        ("SELECT relname FROM pg_proc", "SELECT relname FROM tp_catalog.pg_proc"),
        (
            "SELECT pg_proc.relname FROM pg_catalog.pg_proc",
            "SELECT pg_proc.relname FROM tp_catalog.pg_proc",
        ),
        (
            "SELECT pg_catalog.pg_proc.relname, pg_catalog.pg_proc.* FROM pg_proc",
            "SELECT tp_catalog.pg_proc.relname, tp_catalog.pg_proc.* FROM tp_catalog.pg_proc",
        ),
        (
            "SELECT 'é', c.* FROM ONLY pg_catalog /* . */ . \"pg_proc\" AS c",
            "SELECT 'é', c.* FROM ONLY tp_catalog /* . */ . \"pg_proc\" AS c",
        ),
        (
            "SELECT 1 FROM PG_PROC, Pg_Catalog.Pg_Type",
            "SELECT 1 FROM tp_catalog.PG_PROC, tp_catalog.Pg_Type",
        ),
        (
            "SELECT 1 FROM U&\"pg!005fproc\" UESCAPE '!'",
            "SELECT 1 FROM tp_catalog.U&\"pg!005fproc\" UESCAPE '!'",
        ),
        (
            "SELECT 1 FROM db.pg_catalog.pg_proc",
            "SELECT 1 FROM db.tp_catalog.pg_proc",
        ),
        ("SELECT tableoid, oid FROM pg_proc", "SELECT tableoid, oid FROM tp_catalog_sys.pg_proc"),
        (
            "SELECT c.xmin, r.* FROM pg_catalog.pg_proc c, pg_roles r",
            "SELECT c.xmin, r.* FROM tp_catalog_sys.pg_proc c, tp_catalog.pg_roles r",
        ),
        (
            "SELECT oid FROM pg_proc; SELECT tableoid FROM pg_proc",
            "SELECT oid FROM tp_catalog.pg_proc; SELECT tableoid FROM tp_catalog_sys.pg_proc",
        ),
        (
            "SELECT * FROM information_schema.tables WHERE information_schema.tables.table_schema = 'acme'",
            "SELECT * FROM tp_information_schema.tables "
            "WHERE tp_information_schema.tables.table_schema = 'acme'",
        ),
        ("TABLE pg_proc", "TABLE tp_catalog.pg_proc"),
        ("CREATE TABLE t AS SELECT * FROM pg_proc", "CREATE TABLE t AS SELECT * FROM tp_catalog.pg_proc"),
        ("SELECT * INTO t FROM pg_proc", "SELECT * INTO t FROM tp_catalog.pg_proc"),
        ("CREATE TABLE t (LIKE pg_proc)", "CREATE TABLE t (LIKE tp_catalog.pg_proc)"),
        ("CREATE VIEW v AS TABLE pg_proc", "CREATE VIEW v AS TABLE tp_catalog.pg_proc"),
        ("PREPARE p AS TABLE pg_proc", "PREPARE p AS TABLE tp_catalog.pg_proc"),
        ("EXPLAIN ANALYZE TABLE pg_proc", "EXPLAIN ANALYZE TABLE tp_catalog.pg_proc"),
        ("DECLARE c CURSOR FOR TABLE pg_proc", "DECLARE c CURSOR FOR TABLE tp_catalog.pg_proc"),
        ("COPY (TABLE pg_proc) TO STDOUT", "COPY (TABLE tp_catalog.pg_proc) TO STDOUT"),
        ("COPY pg_proc TO STDOUT", "COPY (SELECT * FROM tp_catalog.pg_proc) TO STDOUT"),
        (
            'COPY pg_catalog.pg_proc (oid, "relname") TO STDOUT (FORMAT csv)',
            'COPY (SELECT oid, "relname" FROM tp_catalog.pg_proc) TO STDOUT (FORMAT csv)',
        ),
        (
            "INSERT INTO t SELECT oid FROM pg_proc RETURNING (SELECT 1 FROM pg_type)",
            "INSERT INTO t SELECT oid FROM tp_catalog.pg_proc RETURNING (SELECT 1 FROM tp_catalog.pg_type)",
        ),
        ("UPDATE t SET a = 1 FROM pg_proc c", "UPDATE t SET a = 1 FROM tp_catalog.pg_proc c"),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 FROM pg_proc; END",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 FROM tp_catalog.pg_proc; END",
        ),
    ],
)
def test_catalogs_are_read_through_views(sql, turned):
    assert rewritten(sql) == turned


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'pg_proc'::regclass, 'pg_catalog.pg_proc'::regtype, to_regclass('pg_proc')",
        "SELECT NULL::pg_proc",
        "SELECT * FROM acme.pg_proc",
        "SELECT * FROM pg_am, pg_catalog.pg_timezone_names, information_schema.sql_features",
        "SELECT pg_proc FROM orders pg_proc",
        "SELECT * FROM orders pg_proc FOR UPDATE OF pg_proc",
        "WITH RECURSIVE pg_proc AS (SELECT 1 UNION ALL SELECT 2 FROM pg_proc) SELECT * FROM pg_proc",
        "WITH pg_proc AS (SELECT 1), x AS (TABLE pg_proc) SELECT * FROM x, (SELECT * FROM pg_proc) y",
        "WITH pg_proc AS (SELECT 1) INSERT INTO t SELECT * FROM pg_proc",
        "SELECT lower('A'), current_schema, current_schema(), format_type(1, 2), version()",
        "SELECT acme.pg_notify('a', 'b')",
    ],
)
def test_what_stays(sql):
    assert rewritten(sql) == sql


def test_a_common_table_hides_the_catalog_only_where_it_is_seen():
    assert rewritten(
        "WITH pg_proc AS (SELECT * FROM pg_proc) "
        "SELECT * FROM pg_proc, pg_catalog.pg_proc, (WITH pg_type AS (TABLE pg_proc) TABLE pg_type) x, "
        "pg_type"
    ) == (
        "WITH pg_proc AS (SELECT * FROM tp_catalog.pg_proc) "
        "SELECT * FROM pg_proc, tp_catalog.pg_proc, (WITH pg_type AS (TABLE pg_proc) TABLE pg_type) x, "
        "tp_catalog.pg_type"
    )
    sql = "SELECT (WITH pg_proc AS (SELECT 1) SELECT 1 FROM pg_proc), * FROM pg_proc"
    assert rewritten(sql) == sql[: -len("pg_proc")] + "tp_catalog.pg_proc"


def test_statements_that_list_relations_read_another_view():
    """Only `shims.LISTED_RELATIONS` have one; to choose wrongly costs time."""
    for sql in (
        "SELECT * FROM pg_class WHERE relkind = 'r'",
        "SELECT * FROM pg_class WHERE relname !~ '^pg_' AND oid > '5'",
        "SELECT * FROM pg_class c JOIN y ON c.oid = y.oid WHERE relname LIKE a",
    ):
        assert "tp_catalog_list.pg_class" in rewritten(sql), sql
    for where in (
        "oid = '123'",
        "c.oid = $1",
        "c.relname OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default",
        "relname IN ('a', 'b')",
        "relname = ANY ($1)",
        "relname = ANY (ARRAY['a'])",
        "relname LIKE 'a%'",
    ):
        assert "tp_catalog.pg_class" in rewritten(f"SELECT * FROM pg_class c WHERE {where}"), where
    assert "tp_catalog_sys.pg_class" in rewritten("SELECT tableoid FROM pg_class")


def test_the_views_stay_open_to_pg_dump():
    """Since August 2024 it closes views to itself, so that none runs code of their owners."""
    assert rewritten(
        "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings "
        "WHERE name = 'restrict_nonsystem_relation_kind'"
    ) == (
        "SELECT set_config(name, 'foreign-table', false) FROM tp_catalog.pg_settings "
        "WHERE name = 'restrict_nonsystem_relation_kind'"
    )
    assert rewritten("SET restrict_nonsystem_relation_kind TO 'view'") == (
        "SET restrict_nonsystem_relation_kind TO ''"
    )
    sql = "SET restrict_nonsystem_relation_kind TO 'foreign-table'"
    assert rewritten(sql) == sql
    assert judge("SET restrict_nonsystem_relation_kind TO 'view'").edits == ()


def test_unknown_relations_of_the_system_are_refused():
    assert refusal("SELECT * FROM pg_catalog.pg_shmem_allocations", HIDING).reason == "catalog"
    assert refusal("SELECT * FROM information_schema._pg_foreign_servers", HIDING).reason == "catalog"
    assert refusal("SELECT * FROM information_schema.of_a_later_version", HIDING).reason == "catalog"


def test_the_proxy_s_schemas_are_nobody_s_to_name():
    for name in ("tp_catalog.pg_proc", "tp_catalog_sys.pg_proc", "tp_information_schema.tables"):
        assert refusal(f"SELECT * FROM {name}", HIDING).reason == "cross_schema"
        assert refusal(f"SELECT '{name}'::regclass", HIDING).reason == "cross_schema"


def test_rows_of_catalogs_are_not_read_by_name():
    for sql in (
        "SELECT table_to_xml('pg_proc', true, true, '')",
        "SELECT table_to_xml('information_schema.tables'::regclass, true, true, '')",
        "SELECT schema_to_xml('pg_catalog', true, true, '')",
    ):
        assert refusal(sql, HIDING).reason == "catalog", sql
        assert judge(sql).action is Action.ALLOW, sql
    for in_scope in (HIDING, ACME):
        assert refusal("SELECT table_to_xml('1259', true, true, '')", in_scope).reason == "function"
    rewritten("SELECT table_to_xml('orders', true, true, ''), schema_to_xml('acme', true, true, '')")


def test_information_schema_is_not_searched():
    for sql in (
        "SET search_path TO acme, information_schema",
        "SELECT set_config('search_path', 'information_schema', false)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path TO information_schema AS 'SELECT 1'",
    ):
        assert refusal(sql, HIDING).reason == "search_path", sql
        assert judge(sql).action is Action.ALLOW, sql


def test_nothing_changes_where_the_catalogs_are_shown():
    for sql in ("SELECT * FROM pg_proc", "LISTEN a", "SELECT pg_advisory_lock(1)"):
        verdict = judge(sql, ACME)
        assert (verdict.action, verdict.edits) == (Action.ALLOW, ()), sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM pg_proc",
        "SELECT * FROM information_schema.tables",
        "LISTEN a",
        "NOTIFY a",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_get_viewdef(1)",
        "COPY pg_proc TO STDOUT",
    ],
)
def test_what_can_not_be_hidden_is_refused_where_it_must(sql):
    verdict = refusal(sql, MISSING)
    assert (verdict.sqlstate, verdict.reason) == ("42501", "catalogs_missing")
    assert "tenant-proxy catalog install" in verdict.hint


# --- functions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "turned"),
    [
        (
            "SELECT pg_get_viewdef(oid), pg_catalog . pg_get_viewdef(oid, true) FROM t",
            "SELECT tp_catalog.pg_get_viewdef(oid), tp_catalog . pg_get_viewdef(oid, true) FROM t",
        ),
        (
            "SELECT pg_advisory_lock(1), pg_try_advisory_xact_lock(1, 2), pg_notify($1, 'x')",
            "SELECT tp_catalog.pg_advisory_lock(1), tp_catalog.pg_try_advisory_xact_lock(1, 2), "
            "tp_catalog.pg_notify($1, 'x')",
        ),
        ("SELECT * FROM pg_listening_channels() c", "SELECT * FROM tp_catalog.pg_listening_channels() c"),
        (
            "CREATE TABLE t (a text DEFAULT obj_description(1, 'pg_proc'))",
            "CREATE TABLE t (a text DEFAULT tp_catalog.obj_description(1, 'pg_proc'))",
        ),
    ],
)
def test_functions_are_the_proxy_s_own(sql, turned):
    assert rewritten(sql) == turned


def test_an_attribute_that_may_be_a_call_is_refused():
    for sql in (
        "SELECT (1::oid).pg_get_viewdef",
        "SELECT x.pg_advisory_lock FROM generate_series(1, 2) x",
        "SELECT $1.pg_advisory_lock",
        "CREATE FUNCTION f(a oid) RETURNS text LANGUAGE sql AS 'SELECT a.pg_get_viewdef'",
    ):
        verdict = refusal(sql, HIDING)
        assert verdict.reason == "function", sql
        assert "(…)" in verdict.hint
        assert judge(sql).action is Action.ALLOW
    sql = "SELECT x.pg_get_viewdef, x.obj_description FROM a_view x"
    assert rewritten(sql) == sql


def test_definitions_that_would_call_them_unseen_are_refused():
    for sql in (
        "CREATE OPERATOR @@@ (FUNCTION = pg_get_viewdef, RIGHTARG = oid)",
        "CREATE AGGREGATE a (int8) (SFUNC = pg_advisory_xact_lock, STYPE = int8)",
        "CREATE CAST (oid AS mood) WITH FUNCTION pg_get_viewdef(oid)",
    ):
        assert refusal(sql, HIDING).reason == "function", sql


# --- channels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "turned"),
    [
        ("LISTEN Jobs", f'LISTEN "{SPACE}.jobs"'),
        ('UNLISTEN "a ""b"', f'UNLISTEN "{SPACE}.a ""b"'),
        ("UNLISTEN *", "UNLISTEN *"),
        ("/* listen x */ NOTIFY é, 'x'", f"/* listen x */ NOTIFY \"{SPACE}.é\", 'x'"),
        ("LISTEN a; LISTEN b; NOTIFY a", f'LISTEN "{SPACE}.a"; LISTEN "{SPACE}.b"; NOTIFY "{SPACE}.a"'),
        ("LISTEN listen", f'LISTEN "{SPACE}.listen"'),
        (
            "CREATE RULE r AS ON INSERT TO t DO ALSO (NOTIFY a; NOTIFY a; NOTIFY b)",
            f'CREATE RULE r AS ON INSERT TO t DO ALSO (NOTIFY "{SPACE}.a"; NOTIFY "{SPACE}.a"; '
            f'NOTIFY "{SPACE}.b")',
        ),
    ],
)
def test_channels_are_the_tenant_s_own(sql, turned):
    assert rewritten(sql) == turned


def test_channel_names_leave_room_for_the_space():
    rewritten(f"LISTEN {'a' * 49}")
    verdict = refusal(f"LISTEN {'a' * 50}", HIDING)
    assert (verdict.sqlstate, verdict.message) == ("22023", "channel name too long")
    assert "49 bytes" in verdict.detail


# --- text inside text --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "turned"),
    [
        (
            "DO $$ BEGIN PERFORM 'é' FROM pg_proc; NOTIFY a; END $$",
            f"DO $$ BEGIN PERFORM 'é' FROM tp_catalog.pg_proc; NOTIFY \"{SPACE}.a\"; END $$",
        ),
        (
            "DO 'DECLARE n name; BEGIN SELECT relname INTO n FROM pg_proc WHERE relname <> ''x''; END'",
            "DO 'DECLARE n name; BEGIN SELECT relname INTO n FROM tp_catalog.pg_proc "
            "WHERE relname <> ''x''; END'",
        ),
        (
            r"DO E'BEGIN\n EXECUTE ''LISTEN a''; END'",
            f"DO 'BEGIN\n EXECUTE ''LISTEN \"{SPACE}.a\"''; END'",
        ),
        (
            "DO $a$ BEGIN EXECUTE $b$ SELECT * FROM pg_proc $b$ INTO x; END $a$",
            "DO $a$ BEGIN EXECUTE $b$ SELECT * FROM tp_catalog.pg_proc $b$ INTO x; END $a$",
        ),
        (
            "CREATE FUNCTION f() RETURNS SETOF name LANGUAGE sql AS $$TABLE pg_proc$$",
            "CREATE FUNCTION f() RETURNS SETOF name LANGUAGE sql AS $$TABLE tp_catalog.pg_proc$$",
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN FOR r IN TABLE pg_proc LOOP "
            "v := (SELECT 1 FROM pg_type); END LOOP; IF pg_try_advisory_lock(1) THEN RETURN NEW; END IF; "
            "END $$ LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN FOR r IN TABLE tp_catalog.pg_proc LOOP "
            "v := (SELECT 1 FROM tp_catalog.pg_type); END LOOP; IF tp_catalog.pg_try_advisory_lock(1) THEN "
            "RETURN NEW; END IF; END $$ LANGUAGE plpgsql",
        ),
        (
            "SELECT query_to_xml('TABLE pg_proc', true, false, '')",
            "SELECT query_to_xml('TABLE tp_catalog.pg_proc', true, false, '')",
        ),
        (
            "SELECT 1; DO $$BEGIN NULL; END$$; SELECT 1 FROM pg_proc",
            "SELECT 1; DO $$BEGIN NULL; END$$; SELECT 1 FROM tp_catalog.pg_proc",
        ),
    ],
)
def test_names_in_code_are_turned_as_well(sql, turned):
    assert rewritten(sql) == turned


# --- dynamic SQL -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "turned"),
    [
        ("EXECUTE q", "EXECUTE tp_catalog.dynamic( q/*tp_catalog*/)"),
        ("execute(q)", "execute tp_catalog.dynamic((q)/*tp_catalog*/)"),
        (
            "EXECUTE/**/'TABLE ' || quote_ident(q) /* ; */ INTO STRICT r, s USING q, 1",
            "EXECUTE tp_catalog.dynamic(/**/'TABLE ' || quote_ident(q) /* ; */ "
            "/*tp_catalog*/)INTO STRICT r, s USING q, 1",
        ),
        (
            "EXECUTE format('x %s', q) -- )\nUSING 1 INTO r",
            "EXECUTE tp_catalog.dynamic( format('x %s', q) -- )\n/*tp_catalog*/)USING 1 INTO r",
        ),
        (
            "EXECUTE pg_get_viewdef(q) || 'é' || (SELECT proname FROM pg_proc)",
            "EXECUTE tp_catalog.dynamic( tp_catalog.pg_get_viewdef(q) || 'é' || "
            "(SELECT proname FROM tp_catalog.pg_proc)/*tp_catalog*/)",
        ),
        (
            "FOR r IN EXECUTE q USING 1 LOOP EXECUTE r.q; END LOOP",
            "FOR r IN EXECUTE tp_catalog.dynamic( q /*tp_catalog*/)USING 1 LOOP "
            "EXECUTE tp_catalog.dynamic( r.q/*tp_catalog*/); END LOOP",
        ),
        (
            "RETURN QUERY EXECUTE q USING 1",
            "RETURN QUERY EXECUTE tp_catalog.dynamic( q /*tp_catalog*/)USING 1",
        ),
        ("OPEN c FOR EXECUTE q", "OPEN c FOR EXECUTE tp_catalog.dynamic( q/*tp_catalog*/)"),
        (
            "OPEN c SCROLL FOR EXECUTE q || r USING 1",
            "OPEN c SCROLL FOR EXECUTE tp_catalog.dynamic( q || r /*tp_catalog*/)USING 1",
        ),
        # in pieces: what operators make of it nobody knows
        (
            "EXECUTE 'SELECT * ' || 'FROM pg_proc'",
            "EXECUTE tp_catalog.dynamic( 'SELECT * ' || 'FROM pg_proc'/*tp_catalog*/)",
        ),
        # a type may cut it, or be one of the tenant's own
        (
            "EXECUTE 'SELECT 1'::varchar(7)",
            "EXECUTE tp_catalog.dynamic( 'SELECT 1'::varchar(7)/*tp_catalog*/)",
        ),
        ("EXECUTE text 'SELECT 1'", "EXECUTE tp_catalog.dynamic( text 'SELECT 1'/*tp_catalog*/)"),
        ("EXECUTE 'SELECT 1'", "EXECUTE 'SELECT 1'"),
        ("EXECUTE $$TABLE pg_proc$$ INTO r", "EXECUTE $$TABLE tp_catalog.pg_proc$$ INTO r"),
    ],
)
@pytest.mark.parametrize(
    "sql",
    [
        "DO $x$BEGIN {}; END$x$",
        "CREATE FUNCTION f() RETURNS SETOF text LANGUAGE plpgsql AS $x$ BEGIN {}; END $x$",
        "CREATE PROCEDURE f() LANGUAGE plpgsql AS $x$ DECLARE q text; BEGIN BEGIN {}; END; END $x$",
    ],
)
def test_dynamic_sql_is_read_when_it_runs(sql: str, body: str, turned: str):
    assert rewritten(sql.format(body)) == sql.format(turned)


def test_dynamic_sql_in_a_plain_literal():
    assert rewritten("DO 'BEGIN EXECUTE ''a'' || x; END'") == (
        "DO 'BEGIN EXECUTE tp_catalog.dynamic( ''a'' || x/*tp_catalog*/); END'"
    )


@pytest.mark.parametrize("expression", ["q FROM t", "q AS r", "q r", "q WHERE true", "q LIMIT 1"])
def test_of_dynamic_sql_more_than_an_expression_is_refused(expression: str):
    verdict = refusal(f"DO $$ BEGIN EXECUTE {expression}; END $$", HIDING)
    assert verdict.sqlstate == "0A000"
    assert judge(f"DO $$ BEGIN EXECUTE {expression}; END $$").action is Action.ALLOW


@pytest.mark.parametrize("pieces", ["'TABLE ' || 'beta.t'", "'SET ROLE ' || 'beta'"])
def test_a_constant_in_pieces_is_refused_before_it_runs(pieces: str):
    assert refusal(f"DO $$ BEGIN EXECUTE {pieces}; END $$", HIDING).sqlstate == "42501"


def test_what_is_put_in_does_not_join_what_stands_before():
    assert rewritten("SELECT u&public.t.a FROM public.t", PUBLIC) == 'SELECT u& "acme".t.a FROM "acme".t'
    assert rewritten("SELECT u&$$public.t$$::regclass", PUBLIC) == 'SELECT u&$$"acme".t$$::regclass'
    assert rewritten("SELECT u&$$public.t$$::regclass", scope(schema="a$b", public_is_own=True)) == (
        "SELECT u& '\"a$b\".t'::regclass"
    )


def test_a_dollar_quote_is_not_ended_by_a_name():
    dollars = scope(schema="a$$b", public_is_own=True)
    assert rewritten("DO $$ BEGIN PERFORM 1 FROM public.t; END $$", dollars) == (
        "DO ' BEGIN PERFORM 1 FROM \"a$$b\".t; END '"
    )


# --- public ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "turned"),
    [
        ("SELECT public.t.a, t.* FROM public.t", 'SELECT "acme".t.a, t.* FROM "acme".t'),
        ('INSERT INTO "public".t (public) VALUES (1)', 'INSERT INTO "acme".t (public) VALUES (1)'),
        ("SELECT public.f(1), 1::public.mood", 'SELECT "acme".f(1), 1::"acme".mood'),
        (
            "SELECT a OPERATOR(public.+) b COLLATE public.x FROM t ORDER BY a USING OPERATOR(public.<)",
            'SELECT a OPERATOR("acme".+) b COLLATE "acme".x FROM t ORDER BY a USING OPERATOR("acme".<)',
        ),
        ("DROP TABLE public.a, b, public.a", 'DROP TABLE "acme".a, b, "acme".a'),
        ("ALTER TABLE public.public SET SCHEMA public", 'ALTER TABLE "acme".public SET SCHEMA "acme"'),
        (
            "ALTER FUNCTION public.f(public.t) SET SCHEMA public",
            'ALTER FUNCTION "acme".f("acme".t) SET SCHEMA "acme"',
        ),
        ("COMMENT ON SCHEMA public IS 'public'", "COMMENT ON SCHEMA \"acme\" IS 'public'"),
        ("COMMENT ON COLUMN public.t.a IS 'x'", "COMMENT ON COLUMN \"acme\".t.a IS 'x'"),
        ("COMMENT ON TRIGGER g ON public.t IS 'x'", "COMMENT ON TRIGGER g ON \"acme\".t IS 'x'"),
        ("GRANT USAGE ON SCHEMA public TO acme_app", 'GRANT USAGE ON SCHEMA "acme" TO acme_app'),
        ("GRANT SELECT ON public.t TO PUBLIC", 'GRANT SELECT ON "acme".t TO PUBLIC'),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO public",
            'ALTER DEFAULT PRIVILEGES IN SCHEMA "acme" GRANT SELECT ON TABLES TO public',
        ),
        (
            "CREATE TRIGGER g BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f()",
            'CREATE TRIGGER g BEFORE INSERT ON "acme".t FOR EACH ROW EXECUTE FUNCTION "acme".f()',
        ),
        ("ALTER SEQUENCE public.s OWNED BY public.t.id", 'ALTER SEQUENCE "acme".s OWNED BY "acme".t.id'),
        (
            "CREATE INDEX ON public.t USING gin (a public.ops, b COLLATE public.c)",
            'CREATE INDEX ON "acme".t USING gin (a "acme".ops, b COLLATE "acme".c)',
        ),
        (
            "CREATE AGGREGATE public.g(public.d) (SFUNC = public.f, STYPE = public.d)",
            'CREATE AGGREGATE "acme".g("acme".d) (SFUNC = "acme".f, STYPE = "acme".d)',
        ),
        (
            "CREATE DOMAIN public.d AS text DEFAULT nextval('public.s'::regclass)",
            'CREATE DOMAIN "acme".d AS text DEFAULT nextval(\'"acme".s\'::pg_catalog.regclass)',
        ),
        (
            "ALTER TABLE ONLY public.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES public.u(id)",
            'ALTER TABLE ONLY "acme".t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES "acme".u(id)',
        ),
        ("REINDEX SCHEMA public", 'REINDEX SCHEMA "acme"'),
        (
            "CREATE FUNCTION public.f(public.t) RETURNS SETOF public.t LANGUAGE plpgsql "
            "SET search_path TO public AS $$ DECLARE r public.t%ROWTYPE; a public.t.a%TYPE; m public.mood; "
            "BEGIN PERFORM public.g(); END $$",
            'CREATE FUNCTION "acme".f("acme".t) RETURNS SETOF "acme".t LANGUAGE plpgsql '
            'SET search_path TO "acme" AS $$ DECLARE r "acme".t%ROWTYPE; a "acme".t.a%TYPE; m "acme".mood; '
            'BEGIN PERFORM "acme".g(); END $$',
        ),
        # literals
        (
            "SELECT 'public.t'::regclass, to_regclass($$public.\"T\"$$), 'public'::regnamespace",
            'SELECT \'"acme".t\'::regclass, to_regclass($$"acme"."T"$$), \'"acme"\'::regnamespace',
        ),
        (
            "SELECT has_schema_privilege('public', 'usage'), has_table_privilege('public.t', 'select')",
            "SELECT has_schema_privilege('acme', 'usage'), has_table_privilege('\"acme\".t', 'select')",
        ),
        (
            "SELECT 'public.f(public.t, int)'::regprocedure, 'public.mood'::regtype, setval('public.s', 1)",
            'SELECT \'"acme".f("acme".t, int)\'::regprocedure, \'"acme".mood\'::regtype, '
            "setval('\"acme\".s', 1)",
        ),
        # settings
        ("SET search_path = public, pg_catalog", 'SET search_path = "acme", pg_catalog'),
        ("SET search_path TO 'public'", "SET search_path TO 'acme'"),
        ("SET SCHEMA 'public'", "SET SCHEMA 'acme'"),
        (
            "SELECT set_config('search_path', 'public, pg_catalog', false)",
            "SELECT set_config('search_path', 'acme, pg_catalog', false)",
        ),
        # what a catalog shows as public is compared with public
        (
            "SELECT 1 FROM pg_namespace WHERE nspname = 'public'",
            "SELECT 1 FROM tp_catalog.pg_namespace WHERE nspname = 'public'",
        ),
        (
            "SELECT current_schema, current_schema(), pg_get_serial_sequence('public.t', 'id')",
            "SELECT tp_catalog.current_schema(), tp_catalog.current_schema(), "
            "pg_get_serial_sequence('\"acme\".t', 'id')",
        ),
    ],
)
def test_public_is_the_tenant_s_schema(sql, turned):
    assert rewritten(sql, PUBLIC) == turned


def test_statements_about_schema_public_do_nothing():
    assert rewritten("CREATE SCHEMA IF NOT EXISTS public", PUBLIC).startswith("DO ")
    assert rewritten("REVOKE ALL ON SCHEMA public FROM PUBLIC;", PUBLIC).startswith("DO ")
    turned = rewritten("SELECT 1; GRANT ALL ON SCHEMA public TO PUBLIC; SELECT public.f()", PUBLIC)
    assert turned.startswith("SELECT 1; DO ")
    assert turned.endswith('; SELECT "acme".f()')
    assert refusal("CREATE SCHEMA public", PUBLIC).sqlstate == "42P06"
    for sql in ("CREATE SCHEMA public AUTHORIZATION beta_app", "CREATE SCHEMA other", "DROP SCHEMA public"):
        assert refusal(sql, PUBLIC).sqlstate == "42501", sql
    assert refusal("GRANT USAGE ON SCHEMA public TO beta_app", PUBLIC).reason == "role"


def test_what_the_platform_makes_is_there_or_it_is_said_when_it_runs():
    turned = rewritten('SELECT 1; CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public')
    assert turned.startswith("SELECT 1; DO 'BEGIN\nIF EXISTS (SELECT FROM pg_catalog.pg_extension")
    assert 'extension "uuid-ossp" already exists, skipping' in turned
    # the name ends neither its own literal nor the code
    assert "(pg_catalog.=) ''a''''b'') THEN" in rewritten('CREATE EXTENSION IF NOT EXISTS "a\'b"')
    assert rewritten("CREATE SCHEMA IF NOT EXISTS acme").startswith("DO ")
    for sql in (
        "CREATE EXTENSION hstore",
        "CREATE SCHEMA acme",
        "CREATE SCHEMA IF NOT EXISTS beta",
        "CREATE SCHEMA IF NOT EXISTS acme AUTHORIZATION acme_app",
    ):
        assert refusal(sql).sqlstate == "42501", sql


def test_public_is_its_own_where_the_tenant_s_schema_is_called_so():
    sql = "SELECT * FROM public.t"
    assert rewritten(sql, scope(schema="public", public_is_own=True)) == sql


def test_names_of_public_in_pieces_are_refused():
    for sql in (
        "SELECT ('public.' || 't')::regclass",
        "SELECT '{public.t}'::regclass[]",
    ):
        assert refusal(sql, PUBLIC).reason == "rewriting", sql


def test_without_the_option_public_is_another_schema():
    assert refusal("SELECT * FROM public.t", scope(allowed_schemas=[])).reason == "cross_schema"
    assert judge("SELECT * FROM public.t").edits == ()


# --- parameters -------------------------------------------------------------------------------


def test_parameters_that_name_objects_are_told():
    verdict = judge(
        "SELECT $1::regclass, to_regclass($2::text), nextval($3), has_schema_privilege($4, 'usage')"
    )
    assert sorted(verdict.bound) == [(1, "relation"), (2, "relation"), (3, "relation"), (4, "schema_name")]
    assert not verdict.exact
    for sql in (
        "PREPARE p AS SELECT $1::regclass",
        "CREATE FUNCTION f(text) RETURNS regclass LANGUAGE sql AS 'SELECT $1::regclass'",
        "SELECT $1",
    ):
        assert judge(sql).bound == (), sql


def bind(sql, *values, in_scope=ACME):
    """What is sent of the values, or the refusal."""
    verdict = judge(sql, in_scope)
    assert verdict.action is Action.ALLOW, verdict
    numbered = dict(enumerate(values, 1))
    judged, replaced = GUARD.judge_values(in_scope, verdict.bound, numbered)
    return judged if judged.action is Action.REJECT else [replaced.get(n, numbered[n]) for n in numbered]


@pytest.mark.parametrize(
    ("sql", "values", "reason"),
    [
        ("SELECT $1::regclass", ["beta.t"], "cross_schema"),
        ("SELECT nextval($1)", ["beta.s"], "cross_schema"),
        ("SELECT to_regtype($1)", ["beta.mood"], "cross_schema"),
        ("SELECT to_regprocedure($1)", ["f(beta.mood)"], "cross_schema"),
        ("SELECT $1::regclass", ["a.b.c.d"], "syntax"),
        ("SELECT set_config('search_path', $1, false)", ["beta"], "search_path"),
        ("SELECT set_config('search_path', $1::text, true)", ["acme, beta"], "search_path"),
        ("SELECT set_config('client_encoding', $1, false)", ["sjis"], "setting_refused"),
        ("SELECT set_config($1, $2, false)", ["search_path", "beta"], "search_path"),
        ("SELECT set_config($2, $1, false)", ["beta", "SEARCH_PATH"], "search_path"),
        ("SELECT set_config($1, $2, false)", ["role", "beta_app"], "setting_refused"),
        ("SELECT set_config($1, $2, false)", ["session_authorization", "postgres"], "setting_refused"),
        ("SELECT set_config($1, 'beta', false)", ["search_path"], "setting_dynamic"),
        ("SELECT set_config($1, a, false) FROM t", ["search_path"], "setting_dynamic"),
        ("SELECT set_config($1, a, false) FROM t", ["role"], "setting_refused"),
        (
            "SELECT set_config($1, $2, false), set_config($3, $2, false)",
            ["a.b", "beta", "search_path"],
            "search_path",
        ),
        ("SELECT query_to_xml($1, true, true, '')", ["SELECT * FROM beta.t"], "cross_schema"),
        ("SELECT query_to_xml($1, true, true, '')", ["SELECT set_config('a.b', '', false)"], "dynamic_query"),
        ("SELECT query_to_xml($1, true, true, '')", ["SELECT $1::regclass"], "dynamic_query"),
    ],
)
def test_values_that_reach_outside_are_refused_at_bind(sql, values, reason):
    verdict = bind(sql, *values)
    assert isinstance(verdict, Verdict), verdict
    assert verdict.reason == reason


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT $1::regclass, to_regclass($2)", ["acme.t", None]),
        ("SELECT $1::regclass", ["1234"]),
        ("SELECT set_config('search_path', $1, false)", ["acme, pg_catalog"]),
        ("SELECT set_config('search_path', $1, false)", [None]),
        ("SELECT set_config($1, $2, false)", ["search_path", "acme"]),
        ("SELECT set_config($1, $2, false)", ["statement_timeout", "5s"]),
        ("SELECT set_config($1, $2, false)", [None, "x"]),
        ("SELECT set_config($1, 'x', $2)", ["application_name", "on"]),
        ("SELECT query_to_xml($1, true, true, '')", ["SELECT * FROM orders"]),
    ],
)
def test_values_that_stay_inside_are_let_through(sql, values):
    assert bind(sql, *values) == values


def test_values_are_rewritten_as_literals_are():
    sql = "SELECT $1::regclass, has_schema_privilege($2, 'usage'), set_config('search_path', $3, false)"
    assert bind(sql, "public.t", "public", "public, pg_catalog", in_scope=PUBLIC) == [
        '"acme".t',
        "acme",
        "acme, pg_catalog",
    ]
    assert bind("SELECT set_config($1, $2, true)", "search_path", "public", in_scope=PUBLIC) == [
        "search_path",
        "acme",
    ]
    assert bind("SELECT query_to_xml($1, true, true, '')", "TABLE pg_proc", in_scope=HIDING) == [
        "TABLE tp_catalog.pg_proc"
    ]


def test_settings_whose_names_are_bound_are_settings():
    assert judge("SELECT set_config($1, $2, false)").settings == ("*",)
    assert judge("SELECT set_config($1, $2, true)").settings == ()
    assert judge("SELECT set_config('search_path', $1, false)").settings == ("search_path",)
    for sql in (
        "PREPARE p AS SELECT set_config($1, $2, false)",
        "CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS $$SELECT set_config($1, '', false)$$",
        "CREATE FUNCTION f(text) RETURNS text RETURN set_config($1, '', false)",
        "SELECT set_config(lower($1), 'a', false)",
    ):
        assert refusal(sql).reason == "setting_dynamic", sql


def test_values_of_parameters_are_judged_as_literals_are():
    refused, _ = GUARD.judge_values(ACME, [(1, "relation")], {1: "beta.t"})
    assert (refused.action, refused.reason) == (Action.REJECT, "cross_schema")
    assert GUARD.judge_values(ACME, [(1, "relation?")], {1: "beta.t, x"})[0].action is Action.ALLOW
    allowed, replaced = GUARD.judge_values(PUBLIC, [(1, "relation"), (2, "type")], {1: "public.t", 2: None})
    assert (allowed.action, replaced) == (Action.ALLOW, {1: '"acme".t'})
