"""Bodies in PL/pgSQL that the guard can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenant_proxy.guard import second_reading
from tenant_proxy.model import Action, Effect
from tests.guard.corpus_files import read
from tests.unit.guard.scope import judge, refusal, scope

BODIES = read(Path(__file__).parent.parent.parent / "guard" / "plpgsql.yaml")


def verdict_of(body: str, *, arguments: str = "", returns: str = "int"):
    return judge(f"CREATE FUNCTION f({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $body${body}$body$")


@pytest.mark.parametrize("body", BODIES["read"])
def test_read(body):
    verdict = verdict_of(body, arguments="x int")
    assert verdict.action is Action.ALLOW, verdict


@pytest.mark.parametrize("body", BODIES["malformed"])
def test_what_is_not_read_is_refused(body):
    verdict = verdict_of(body)
    assert verdict.action is Action.REJECT
    assert (verdict.reason, verdict.sqlstate) == ("syntax", "42601")


def test_dynamic_sql_passes_and_what_is_constant_in_it_is_judged():
    assert verdict_of("BEGIN EXECUTE 'SELECT * FROM ' || a; END").action is Action.ALLOW
    assert verdict_of("BEGIN EXECUTE 'SELECT * FROM be' || 'ta.t'; END").reason == "cross_schema"
    assert verdict_of("BEGIN EXECUTE 'SET ROLE postgres'; END").reason == "setting_refused"
    assert verdict_of("BEGIN EXECUTE format('SET ROLE %I', beta.f()); END").reason == "cross_schema"


def test_references_to_variables_are_not_taken_for_schemas():
    body = "<<blk>> DECLARE r record; BEGIN blk.r.total := blk.r.total + 1; RETURN blk.r.total; END"
    assert verdict_of(body).action is Action.ALLOW
    assert (
        judge("CREATE FUNCTION f(arg acme.comp) RETURNS int LANGUAGE sql AS 'SELECT f.arg.a'").action
        is Action.ALLOW
    )
    assert refusal("SELECT f.arg.a FROM t").reason == "cross_schema"


def test_a_function_may_have_the_name_of_a_direction():
    """FETCH takes one; what follows is a number, or makes one."""
    body = "DECLARE c refcursor; r text; BEGIN FETCH ABSOLUTE last(1) FROM c INTO r; END"
    denied = scope(denied_functions=["last"])
    definition = f"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body${body}$body$"
    assert refusal(definition, denied).reason == "function"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT t.insert INTO x FROM t",
        "SELECT t.merge INTO x FROM t",
        "SELECT acme.t.insert INTO x FROM t",
        "SELECT t . /* a */ insert INTO x FROM t",
        'SELECT "insert" INTO x FROM t',
        "WITH w AS (INSERT INTO t VALUES (1) RETURNING a) SELECT w.insert INTO x FROM w",
        "INSERT INTO t VALUES (1) RETURNING t.insert INTO x",
    ],
)
def test_a_column_may_be_called_insert(query):
    verdict = verdict_of(f"DECLARE x int; BEGIN {query}; RETURN x; END")
    assert verdict.action is Action.ALLOW, verdict
    assert not verdict.effects & Effect.UNPROVEN


def test_variables_may_be_called_like_words_of_pl_pgsql():
    body = "BEGIN FOR i IN reverse.lo..reverse.hi LOOP NULL; END LOOP; RETURN next.a; END"
    verdict = verdict_of(f"DECLARE reverse record; next record; {body}")
    assert verdict.action is Action.ALLOW, verdict
    assert not verdict.effects & Effect.UNPROVEN


@pytest.mark.parametrize("name", ["(t).insert", "app.acme.t.insert", "app.acme.t.a.b.c.merge"])
def test_into_that_is_no_target_of_pl_pgsql_makes_a_table(name):
    """As PL/pgSQL reads it: SELECT INTO, which it does not allow."""
    verdict = verdict_of(f"DECLARE x int; BEGIN SELECT {name} INTO x FROM t; RETURN x; END")
    assert verdict.message != second_reading.REFUSED
    assert verdict.action is Action.REJECT or verdict.effects & Effect.UNPROVEN, verdict
