"""What a verdict says: the error's fields, effects, and what a tenant's policy changes."""

from __future__ import annotations

import pytest

from tenant_proxy import errors
from tenant_proxy.config.schema import Policy
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.model import Action, Effect
from tests.unit.guard.scope import ACME, GUARD, effects, judge, refusal, scope

# --- the error -----------------------------------------------------------------


def test_a_neighbour_s_table_is_named_with_its_place():
    verdict = refusal("SELECT *\nFROM beta.orders")
    assert verdict.sqlstate == "42501"
    assert verdict.message == "permission denied for schema beta"
    assert verdict.detail == 'This connection belongs to tenant "acme".'
    assert "allowed_schemas" in verdict.hint
    assert verdict.position == 15
    assert verdict.object_name == "beta.orders"
    assert verdict.reason == "cross_schema"
    error = errors.statement_refused(
        verdict.sqlstate, verdict.message, detail=verdict.detail, hint=verdict.hint, position=verdict.position
    )
    assert b"P15\0" in error.to_message()


@pytest.mark.parametrize(
    ("sql", "at"),
    [
        ("SELECT * FROM beta.t", "beta"),
        ("SELECT 'é', * FROM beta.t", "beta"),
        ("SELECT '😀', 'beta.s'::regclass", "'beta"),
        ("SELECT 1, nextval('beta.s')", "'beta"),
        ("SELECT 1; SELECT * FROM beta.t", "beta"),
        ("SELECT a, pg_read_file('x')", "pg_read_file"),
        ("SELECT 1 OPERATOR(beta.+) 2", "OPERATOR"),
        ("SELECT a::beta.mood", "beta"),
        ("CREATE TABLE x (a int, b beta.mood)", "beta"),
        ("DO $$ BEGIN\n  PERFORM 1 FROM beta.t; END $$", "$$"),
        ("CREATE FUNCTION é() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM beta.t'", "'SELECT"),
        ("SELECT query_to_xml('SELECT * FROM beta.t', true, true, '')", "'SELECT"),
        ("SET search_path TO acme, beta", "acme"),
        ("SELECT FROM FROM", "FROM"),
        ("SELECT 'é' é é", "é"),
    ],
)
def test_positions_are_in_characters_from_one(sql, at):
    position = refusal(sql).position
    assert sql[position - 1 :].startswith(at), sql[position - 1 :]


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("EXECUTE tp_17", "26000"),
        ("EXPLAIN EXECUTE tp_17", "26000"),
        ("CREATE TEMP TABLE t AS EXECUTE tp_17(1)", "26000"),
        ("DEALLOCATE tp_17", "26000"),
        ("DEALLOCATE PREPARE TP_17", "26000"),
        ("PREPARE tp_17 AS SELECT 1", "42939"),
        # their numbers are hexadecimal
        ("EXECUTE tp_1f", "26000"),
        ("DEALLOCATE tp_a", "26000"),
        ("PREPARE tp_cafe AS SELECT 1", "42939"),
    ],
)
def test_statements_that_a_server_keeps_for_other_clients_can_t_be_named(sql, sqlstate):
    assert refusal(sql).sqlstate == sqlstate


def test_names_like_the_pools_statements_are_free():
    for name in ("tp_", "tp_1g", '"TP_1"', "stmt_tp_1"):
        assert judge(f"DEALLOCATE {name}").action is Action.ALLOW


def test_syntax_errors_are_worded_as_postgresql_does():
    verdict = refusal("SELECT 1 FROM FROM t")
    assert (verdict.sqlstate, verdict.message, verdict.position) == (
        "42601",
        'syntax error at or near "FROM"',
        15,
    )
    # no server takes that
    assert verdict.detail == ""
    verdict = refusal("SELECT (1")
    assert (verdict.message, verdict.position) == ("syntax error at end of input", 10)
    assert refusal("SELECT 'a").message == 'unterminated quoted string at or near "\'a"'


def test_errors_inside_bodies_say_where():
    assert refusal("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELEC'").detail == (
        "This is in the body of a function."
    )
    assert "PL/pgSQL" in refusal("DO 'BEGIN x'").detail


def test_no_secret_of_the_statement_is_in_a_refusal():
    for sql in (
        "SELECT 'hunter2', * FROM beta.t",
        "ALTER ROLE acme_app PASSWORD 'hunter2'",
        "SELECT set_config('role', 'hunter2', false)",
        "COPY t FROM PROGRAM 'hunter2'",
        "CREATE SUBSCRIPTION s CONNECTION 'password=hunter2' PUBLICATION p",
    ):
        verdict = refusal(sql)
        assert "hunter2" not in f"{verdict.message} {verdict.detail} {verdict.hint} {verdict.object_name}"


# --- what a policy changes -----------------------------------------------------


def test_allowed_schemas_open_others_for_reading_only():
    shared = scope(allowed_schemas=["beta"])
    for sql in ("SELECT * FROM beta.t", "SELECT beta.f(1)", "SELECT 'beta.t'::regclass"):
        assert judge(sql, shared).action is Action.ALLOW, sql
    assert judge("SET search_path TO acme, beta", shared).action is Action.ALLOW
    assert refusal("INSERT INTO beta.t VALUES (1)", shared).reason == "read_only_schema"
    assert refusal("CREATE TABLE beta.t (a int)", shared).reason == "read_only_schema"
    assert refusal("SELECT * FROM public.t", shared).reason == "cross_schema"


def test_allowed_functions_open_what_the_list_refuses():
    trusted = scope(allowed_functions=["pg_cancel_backend", "public.dblink", "pg_catalog.pg_reload_conf"])
    assert judge("SELECT pg_cancel_backend(1)", trusted).effects & Effect.OPAQUE
    assert judge("SELECT pg_catalog.pg_cancel_backend(1)", trusted).action is Action.ALLOW
    assert judge("SELECT public.dblink('x', 'y')", trusted).action is Action.ALLOW
    assert judge("SELECT pg_catalog.pg_reload_conf()", trusted).action is Action.ALLOW
    assert judge("SELECT pg_reload_conf()", trusted).action is Action.ALLOW
    refusal("SELECT dblink('x', 'y')", trusted)
    refusal("SELECT pg_terminate_backend(1)", trusted)


def test_denied_functions_close_what_the_list_lets_through():
    strict = scope(denied_functions=["pg_catalog.pg_sleep", "acme.slow", "lower"])
    # x.f calls f(x), and a name without its schema may be any schema's
    for call in (
        *("pg_sleep(1)", "pg_catalog.pg_sleep(1)", "acme.slow()", "slow()", "lower('A')"),
        *("('A'::text).lower", "('A'::text).slow", "t.slow FROM t", "t.lower FROM unnest(ARRAY['A']) t"),
    ):
        sql = f"SELECT {call}"
        assert refusal(sql, strict).reason == "function", sql
    assert judge("SELECT t.lower FROM t", strict).action is Action.ALLOW
    assert judge("SELECT upper('A')", strict).action is Action.ALLOW


def test_denied_settings():
    strict = scope(denied_settings=["work_mem", "app.*"])
    assert refusal("SET work_mem = '1GB'", strict).reason == "setting_refused"
    assert refusal("SELECT set_config('work_mem', $1, true)", strict).reason == "setting_refused"
    assert refusal("SET app.tenant = 'x'", strict).reason == "setting_refused"
    assert judge("SET statement_timeout = 1", strict).action is Action.ALLOW


def test_roles_of_the_tenant_can_be_named():
    known = scope(login="acme_login", role="acme_owner", roles=("acme_ro",))
    assert known.role == "acme_owner"
    for name in ("acme_login", "acme_owner", "acme_ro", "CURRENT_USER", "SESSION_USER", "PUBLIC"):
        assert judge(f"GRANT SELECT ON t TO {name}", known).action is Action.ALLOW, name
    assert refusal("GRANT SELECT ON t TO beta_ro", known).reason == "role"
    assert judge("SET ROLE acme_owner", known).action is Action.ALLOW
    # the login may have more rights than the role that the tenant's statements run as
    assert refusal("SET ROLE acme_login", known).reason == "setting_refused"


def test_a_scope_whose_login_is_not_known_names_no_role():
    unknown = GuardScope.build(id=1, tenant="acme", schema="acme", policy=Policy())
    assert refusal("ALTER TABLE t OWNER TO acme_app", unknown).reason == "role"
    assert refusal("SET ROLE acme_app", unknown).reason == "setting_refused"
    assert refusal("SET ROLE ''", unknown).action is Action.REJECT
    assert judge("ALTER TABLE t OWNER TO CURRENT_USER", unknown).action is Action.ALLOW


def test_a_schema_with_an_odd_name():
    odd = scope(schema='Acme "1"')
    assert judge('SELECT * FROM "Acme ""1""".t', odd).action is Action.ALLOW
    assert judge('SELECT \'"Acme ""1""".t\'::regclass', odd).action is Action.ALLOW
    refusal("SELECT * FROM acme.t", odd)


def test_a_schema_name_as_long_as_names_can_be():
    long = scope(schema="é" * 31)
    assert judge(f"SELECT * FROM {'é' * 31}.t", long).action is Action.ALLOW
    # the server cuts longer ones at 63 bytes, between characters
    assert judge(f"SELECT * FROM {'é' * 40}.t", long).action is Action.ALLOW
    assert judge(f"SELECT '{'é' * 40}.t'::regclass", long).action is Action.ALLOW
    refusal(f"SELECT * FROM {'é' * 30}.t", long)


# --- encodings -----------------------------------------------------------------


def test_bytes_are_read_in_the_scope_s_encoding():
    cyrillic = scope(schema="й", client_encoding="WIN1251")
    assert judge("SELECT * FROM й.t".encode("cp1251"), cyrillic).action is Action.ALLOW
    # the same byte is another letter in Latin-1: who read it so would see another schema
    accented = scope(schema="é", client_encoding="WIN1251")
    assert refusal("SELECT * FROM й.t".encode("cp1251"), accented).reason == "cross_schema"


def test_bytes_that_are_no_text():
    assert refusal(b"SELECT '\xff'").sqlstate == "22021"
    assert refusal("SELECT '\ud800'").sqlstate == "22021"
    assert refusal("SELECT 1\0; DROP TABLE t").sqlstate == "22021"


@pytest.mark.parametrize("name", ["SJIS", "BIG5", "GBK", "GB18030", "UHC", "JOHAB", "nonsense"])
def test_encodings_in_which_a_quote_may_hide_have_no_scope(name):
    with pytest.raises(ValueError):
        scope(client_encoding=name)


# --- effects -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", Effect.READS),
        ("INSERT INTO t DEFAULT VALUES", Effect.WRITES),
        ("INSERT INTO t SELECT 1", Effect.READS | Effect.WRITES),
        ("WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x", Effect.READS | Effect.WRITES),
        ("SELECT * FROM t FOR SHARE", Effect.READS | Effect.WRITES),
        ("SELECT nextval('s')", Effect.READS | Effect.WRITES),
        ("SELECT 1 INTO x", Effect.READS | Effect.WRITES | Effect.DDL),
        ("COPY t TO STDOUT", Effect.READS),
        ("COPY t FROM STDIN", Effect.WRITES | Effect.COPIES),
        ("COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT", Effect.READS | Effect.WRITES),
        ("EXPLAIN DELETE FROM t", Effect.READS),
        ("EXPLAIN ANALYZE DELETE FROM t", Effect.READS | Effect.WRITES),
        ("EXPLAIN (ANALYZE off) DELETE FROM t", Effect.READS),
        ("EXPLAIN (ANALYZE false) DELETE FROM t", Effect.READS),
        ("EXPLAIN (ANALYZE 0) DELETE FROM t", Effect.READS),
        ("EXPLAIN (ANALYZE 'on') DELETE FROM t", Effect.READS | Effect.WRITES),
        ("EXPLAIN (ANALYZE) SELECT set_config('a.b', 'c', false)", Effect.READS | Effect.SETTINGS),
        ("EXPLAIN SELECT set_config('a.b', 'c', false)", Effect.READS),
        ("PREPARE p AS DELETE FROM t", Effect.PINS),
        ("CREATE VIEW v AS SELECT nextval('s')", Effect.WRITES | Effect.DDL),
        ("SET LOCAL x.y = 'z'", Effect(0)),
        ("", Effect(0)),
        ("SELECT 1; SELECT 2", Effect.READS | Effect.MULTI),
        ("BEGIN; SET work_mem = 5", Effect.XACT_CONTROL | Effect.SETTINGS | Effect.MULTI),
        ("COMMIT", Effect.XACT_CONTROL | Effect.COMMITS),
        ("ABORT WORK", Effect.XACT_CONTROL | Effect.ROLLS_BACK),
        ("COMMIT AND CHAIN", Effect.XACT_CONTROL),
        ("ROLLBACK TO a", Effect.XACT_CONTROL),
        ("COMMIT; BEGIN", Effect.XACT_CONTROL | Effect.MULTI),
        ("DISCARD ALL", Effect.DISCARDS_ALL | Effect.DEALLOCATES | Effect.SETTINGS),
    ],
)
def test_effects(sql, expected):
    assert effects(sql) & ~(Effect.ESCALATES | Effect.GROWS) == expected


@pytest.mark.parametrize(
    ("sql", "keeps"),
    [
        ("SELECT random(), clock_timestamp(), now(), pg_backend_pid()", False),
        ("SHOW work_mem", False),
        ("SELECT pg_advisory_xact_lock(1)", True),
        ("SELECT set_config('work_mem', '7MB', true)", True),
        ("SELECT set_config($1, $2, true)", True),
        ("SELECT currval('s')", True),
        ("DECLARE c CURSOR FOR SELECT 1", True),
        ("FETCH c", True),
        ("EXPLAIN ANALYZE SELECT pg_try_advisory_xact_lock(1)", True),
        ("SET LOCAL app.x = '1'; SELECT 1", True),
        ("SELECT 1; SET TRANSACTION READ ONLY", True),
        ("SET CONSTRAINTS ALL IMMEDIATE; SELECT 1", True),
        ("SELECT 1; SELECT 2", False),
    ],
)
def test_what_a_transaction_keeps(sql, keeps):
    assert bool(effects(sql) & Effect.KEEPS) is keeps
    # what has other effects does not move anyway
    assert not effects(sql) & (Effect.WRITES | Effect.SETTINGS)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT 1",
        "UPDATE t SET a = 1",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
        "WITH new AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM new",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "COPY t FROM STDIN",
        "COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT",
        "SELECT 1 AS a INTO x",
        "CREATE TABLE x (a int)",
        "CREATE TABLE x AS SELECT 1 AS a",
        "CREATE MATERIALIZED VIEW x AS SELECT 1 AS a",
        "REFRESH MATERIALIZED VIEW x",
        "CREATE INDEX ON t (a)",
        "CREATE VIEW x AS SELECT 1 AS a",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SEQUENCE s",
        "CREATE TYPE x AS ENUM ('a')",
        "SELECT 1; INSERT INTO t VALUES (1)",
    ],
)
def test_what_grows(sql):
    assert effects(sql) & Effect.GROWS


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t FOR UPDATE",
        "DELETE FROM t",
        "WITH old AS (DELETE FROM t RETURNING a) SELECT a FROM old",
        "TRUNCATE t",
        "DROP TABLE t",
        "ALTER TABLE t DROP COLUMN a",
        "VACUUM FULL t",
        "REINDEX TABLE t",
        "COPY t TO STDOUT",
        "CREATE TEMP TABLE x AS SELECT 1 AS a",
        "SELECT 1 AS a INTO TEMP x",
        "BEGIN",
        "SET work_mem = '8MB'",
    ],
)
def test_what_does_not_grow(sql):
    assert not effects(sql) & Effect.GROWS


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM orders FOR UPDATE",
        "WITH a AS (DELETE FROM t RETURNING x) INSERT INTO u SELECT * FROM a",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; SAVEPOINT a; ROLLBACK TO a; COMMIT",
        "SET work_mem = '5MB'; SET LOCAL TimeZone = 'UTC'; SHOW work_mem",
        "SELECT set_config('app.x', 'y', true), current_user",
        "DECLARE c CURSOR FOR SELECT 1; FETCH c; CLOSE c",
        "COPY orders FROM STDIN",
        "NOTIFY news; TRUNCATE orders; LOCK orders",
        "EXPLAIN SELECT own_function(1)",
    ],
)
def test_what_runs_on_backends_that_tenants_share(sql):
    assert not effects(sql) & (Effect.ESCALATES | Effect.UNPROVEN | Effect.PINS | Effect.DDL)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (id int)",
        "SELECT * INTO copy FROM orders",
        "CREATE TEMP TABLE t (id int)",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CALL p()",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "RESET work_mem",
        "SET work_mem TO DEFAULT",
        "RESET ROLE",
        "SHOW session_authorization",
        "DISCARD PLANS",
        "VACUUM orders",
        "SELECT session_user",
        "INSERT INTO t VALUES (1, session_user)",
        'SELECT "session_user"()',
        'SELECT pg_catalog."session_user"()',
        "SELECT system_user",
        "SELECT set_config('role', NULL, true)",
        "SELECT pg_catalog.set_config('session_authorization', NULL::text, false)",
        "SELECT set_config('work_mem', NULL, false)",
        "SELECT set_config('role', 'acme_app', true)",
        "EXPLAIN ANALYZE EXECUTE p",
        "SET idle_session_timeout = 1",
        "SELECT set_config('idle_session_timeout', '1', false)",
    ],
)
def test_what_needs_a_backend_of_the_tenants_own(sql):
    assert effects(sql) & (Effect.ESCALATES | Effect.PINS | Effect.DDL)
    assert not effects(sql) & Effect.UNPROVEN


FUNCTION = "CREATE FUNCTION f(a text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE t text; BEGIN {} END $$"


@pytest.mark.parametrize(
    "body",
    [
        "RETURN a;",
        "SELECT upper(a) INTO t; RETURN t;",
        "EXECUTE 'SELECT 1';",
        "INSERT INTO orders VALUES (1, a); RETURN nextval('numbers');",
        "PERFORM set_config('app.x', a, true); SET LOCAL work_mem = '4MB';",
    ],
)
def test_code_that_is_proven(body):
    assert not effects(FUNCTION.format(body)) & Effect.UNPROVEN
    assert not effects(f"DO $$ DECLARE t text; a text; BEGIN {body} END $$".replace("RETURN", "PERFORM")) & (
        Effect.UNPROVEN
    )


@pytest.mark.parametrize(
    "body",
    [
        "EXECUTE a;",
        "EXECUTE 'SELECT ' || a;",
        "EXECUTE 'SELECT 1' || '';",
        "EXECUTE format('SELECT %L', a) INTO t;",
        "FOR t IN EXECUTE a LOOP END LOOP;",
        "RETURN QUERY EXECUTE a;",
        "SET work_mem = '4MB';",
        "RESET ALL;",
        "PERFORM set_config('app.x', a, false);",
        "CREATE TEMP TABLE x (y int);",
        "CREATE TABLE x (y int);",
        "PERFORM pg_advisory_lock(1);",
        "RETURN session_user;",
        'RETURN "session_user"();',
        "RETURN set_config('role', NULL, true);",
        "BEGIN IF a = '' THEN EXECUTE a; END IF; END;",
    ],
)
def test_code_that_is_not_proven(body):
    assert effects(FUNCTION.format(body)) & Effect.UNPROVEN
    if "RETURN QUERY" not in body:
        block = f"DO $$ DECLARE t text; a text; BEGIN {body} END $$".replace("RETURN", "PERFORM")
        assert effects(block) & Effect.UNPROVEN


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW v AS SELECT set_config('app.x', 'y', false)",
        "CREATE VIEW v AS SELECT session_user",
        "CREATE VIEW v AS SELECT system_user",
        "CREATE VIEW v AS SELECT set_config('role', NULL, true)",
        "CREATE TABLE t (who text DEFAULT session_user)",
        "CREATE TABLE t (x bool DEFAULT pg_try_advisory_lock(1))",
        "CREATE FUNCTION f() RETURNS text BEGIN ATOMIC SELECT session_user; END",
        # what it is shows only when the definition is read again
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql SET search_path FROM CURRENT RETURN 'x'",
        "ALTER FUNCTION f() SET search_path FROM CURRENT",
    ],
)
def test_stored_expressions_that_are_not_proven(sql):
    assert effects(sql) & Effect.UNPROVEN


def test_settings_are_named():
    assert judge("SET TimeZone = 'UTC'; RESET Work_Mem").settings == ("timezone", "work_mem")
    assert judge("SELECT set_config('App.User', 'x', false)").settings == ("app.user",)
    assert judge("RESET ALL").settings == ("*",)
    assert judge("SET NAMES 'utf8'").settings == ("client_encoding",)
    characteristics = judge("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    assert characteristics.settings == ("default_transaction_read_only",)
    assert judge("SET LOCAL work_mem = 5").settings == ()


def test_deallocated_statements_are_named():
    assert judge('DEALLOCATE a; DEALLOCATE PREPARE "B"').deallocates == ("a", "B")
    assert judge("DEALLOCATE ALL").deallocates == ("*",)
    assert judge("DISCARD ALL").deallocates == ("*",)


def test_the_first_reason_to_pin_counts():
    assert judge("LISTEN a; CREATE TEMP TABLE x (a int)").pin_reason == "temp_table"


# --- exactness -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "exact"),
    [
        ("SELECT * FROM t WHERE a = 'x' AND b = 1", False),
        ("SELECT lower('x'), format('%s', 'y'), pg_advisory_lock(1)", False),
        ("SELECT f('x')", False),
        ("INSERT INTO t VALUES ('x')", False),
        ("BEGIN", False),
        ("FETCH 5 FROM c", False),
        ("SELECT c.oid::regclass FROM pg_class c", False),
        ("SELECT nextval($1), $1::regclass, has_table_privilege(oid, 'SELECT') FROM t", False),
        ("SELECT to_tsvector('cat and dog')", False),
        ("SELECT to_tsvector('english', 'cat and dog')", True),
        ("SELECT 'x'::regclass", True),
        ("SELECT nextval('s')", True),
        ("SELECT set_config('a.b', 'c', true)", True),
        ("SELECT query_to_xml('SELECT 1', true, true, '')", True),
        ("SET work_mem = 5", True),
        ("CREATE TABLE t (a int)", True),
        ("EXPLAIN SELECT 1", True),
    ],
)
def test_exact_says_whether_a_literal_was_looked_at(sql, exact):
    verdict = judge(sql)
    assert verdict.action is Action.ALLOW
    assert verdict.exact is exact


# --- functions by OID ----------------------------------------------------------


@pytest.mark.parametrize(
    ("oid", "name", "allowed"),
    [
        (952, "lo_open", True),
        (955, "lowrite", True),
        (964, "lo_unlink", True),
        (764, "lo_import", False),
        (765, "lo_export", False),
        (870, "lower", True),
        (2078, "set_config", False),
        (1574, "nextval", False),
        (2096, "pg_terminate_backend", False),
        (2626, "pg_sleep", True),
        (2880, "pg_advisory_lock", True),
        (16500, None, False),
    ],
)
def test_functions_called_by_oid(oid, name, allowed):
    verdict = GUARD.judge_function(ACME, oid)
    assert (verdict.action is Action.ALLOW) is allowed
    if not allowed:
        assert verdict.sqlstate == "42501"
        assert (name or str(oid)) in verdict.message
    elif name == "pg_advisory_lock":
        assert verdict.pin_reason == "advisory_lock"


def test_policy_counts_for_calls_by_oid():
    assert GUARD.judge_function(scope(denied_functions=["lower"]), 870).action is Action.REJECT
    assert GUARD.judge_function(scope(allowed_functions=["nextval"]), 1574).action is Action.ALLOW


# --- long and hostile texts ----------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES " + ", ".join(["(1, 'abc''d', 2.5, NULL, -3, DEFAULT, true)"] * 20_000),
        "SELECT 1 FROM t WHERE a IN (" + ",".join(["1"] * 100_000) + ")",
        "SELECT 1 FROM t WHERE a = ANY (ARRAY[" + ",".join(["'x'"] * 50_000) + "])",
        "SELECT '" + "x" * 1_000_000 + "'",
        "SELECT 1 " + "/* c */ -- d\n" * 50_000,
        "SELECT " + " || ".join(["a"] * 1_000),
        " UNION ALL ".join(["SELECT 1"] * 1_000),
        "SELECT " + ", ".join(f"${i}" for i in range(1, 2_000)),
        "UPDATE t SET (" + ", ".join(["a"] * 60) + ") = (" + ", ".join(["$1"] * 60) + ")" + " " * 1_000,
    ],
    ids=["values", "in", "array", "literal", "comments", "concat", "union", "parameters", "row"],
)
def test_long_statements_that_applications_send(sql):
    assert judge(sql).action is Action.ALLOW


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES " + "(1, 'a'), " * 5_000 + "((SELECT id FROM beta.t), 1)",
        "INSERT INTO t VALUES " + "(1, 'a'), " * 2_000 + "(2, nextval('beta.s'))",
        "SELECT 1 FROM beta.t WHERE a IN (" + "1, " * 10_000 + "2)",
        "SELECT '" + "x" * 100_000 + "' FROM beta.t",
        "SELECT " + "'x', " * 10_000 + '"values (1), (2)" FROM beta.t',
    ],
)
def test_a_long_text_hides_nothing(sql):
    assert refusal(sql).reason == "cross_schema"


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "too_complex"),
        ("SELECT " + "+".join(["a"] * 50_000), "too_complex"),
        ("SELECT " + "+" * 50_000 + "1", "too_complex"),
        ("SELECT 1 " + "/**/" * 20_000, "too_complex"),
        ("SELECT " + "f(" * 20_000 + "1" + ")" * 20_000, "too_complex"),
        ("UPDATE t SET (" + ",".join(["a"] * 3_000) + ") = (" + ",".join(["1"] * 3_000) + ")", "too_complex"),
        ("UPDATE t SET (" + "a," * 3_000 + "a)/**/=/**/(" + "E'x'+" * 300 + "1)", "too_complex"),
        ("DO $$ BEGIN " + "IF true THEN " * 500 + "NULL; " + "END IF; " * 500 + "END $$", "syntax"),
        ("SELECT '{" + " " * 100_000 + "{'::regclass[]", "invalid_name"),
        ("SELECT '" + "a." * 100_000 + "'::regclass", "invalid_name"),
    ],
)
@pytest.mark.timeout(10)
def test_hostile_texts_end_soon(sql, reason):
    verdict = judge(sql)
    if verdict.action is Action.REJECT:
        assert verdict.reason == reason
        assert verdict.sqlstate in ("54000", "54001", "42602")
    else:
        assert "/**/" in sql  # costs nothing below a limit


def test_whoever_seeds_random_keeps_the_backend():
    for sql in (
        "SET seed = 0.5",
        "SET LOCAL seed = 0.5",
        "SELECT setseed(0.5)",
        "SELECT set_config('seed', '1', true)",
    ):
        assert judge(sql).pin_reason == "random_seed", sql
    assert refusal("SET seed = 0.5", scope(denied_settings=("seed",))).reason == "setting_refused"


def test_values_take_no_longer_than_others_can_wait():
    """They are judged at Bind, where a worker has nobody else do it."""
    names = {number: f"acme.t{number}" for number in range(1, 5000)}
    for kinds, values in (
        ([(number, "relation") for number in names], names),
        ([(1, "type[]")], {1: "{" + "int," * 5000 + "int}"}),
        ([(1, "query")], {1: "SELECT " + "a, " * 10_000 + "a"}),
        ([(1, "value:search_path")], {1: "acme," * 5000 + "acme"}),
    ):
        verdict, _ = GUARD.judge_values(ACME, kinds, values)
        assert (verdict.action, verdict.sqlstate) == (Action.REJECT, "54000")
    few = dict(list(names.items())[:500])
    verdict, _ = GUARD.judge_values(ACME, [(number, "relation") for number in few], few)
    assert verdict.action is Action.ALLOW
