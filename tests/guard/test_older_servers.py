"""What servers read otherwise than PostgreSQL 18's grammar, which the guard has: refused, and said why."""

from __future__ import annotations

import psycopg
import pytest
from pglast import keywords

from tenant_proxy.model import Action, Effect
from tests.unit.guard.scope import effects, judge, refusal

#: where a word stands in them, it may be a name
FORMS = (
    "CREATE TEMP TABLE {word} (a int)",
    "SELECT 1 {word}",
    "SELECT {word} FROM (SELECT 1) AS t ({word})",
    "SELECT * FROM (SELECT 1) AS {word}",
    "SELECT {word}()",
)

#: says that the text can't be parsed, which the server does too, or only the guard
SYNTAX = "42601"


def words() -> list[str]:
    found: set[str] = set()
    for kind in ("RESERVED", "TYPE_FUNC_NAME", "COL_NAME", "UNRESERVED"):
        found |= getattr(keywords, f"{kind}_KEYWORDS")
    return sorted(found)


def test_words_that_are_names_on_older_servers_only(any_pg):
    """Each text that the server takes the guard either takes too, or says why not."""
    only_there = set()
    with psycopg.connect(any_pg.dsn(), autocommit=True) as conn:
        for word in words():
            for form in FORMS:
                sql = form.format(word=word)
                verdict = judge(sql)
                if verdict.sqlstate != SYNTAX:
                    continue
                try:
                    conn.execute(f"BEGIN; {sql}; ROLLBACK")
                except psycopg.Error as error:
                    conn.execute("ROLLBACK")
                    if error.sqlstate == SYNTAX:
                        continue
                only_there.add(word)
                assert verdict.detail == "The proxy reads SQL as PostgreSQL 18 does.", sql
                quoted = judge(form.format(word=f'"{word}"'))
                assert quoted.sqlstate != SYNTAX, sql
    if any_pg.major >= 18:
        assert not only_there
    elif any_pg.major == 15:
        assert "system_user" in only_there


@pytest.mark.parametrize("sql", ["SELECT FROM WHERE", "SELECT !@#", "CREATE TABLE t (a int,)"])
def test_a_mistake_on_every_server_is_told_as_they_do(sql):
    verdict = judge(sql)
    assert (verdict.sqlstate, verdict.detail, verdict.hint) == (SYNTAX, "", "")


@pytest.mark.parametrize("sql", ["SELECT pg_catalog.brand_new(1)", "SELECT pg_brand_new(1)"])
def test_a_function_that_is_not_in_the_data_is_refused(sql):
    """As of a newer server, until somebody has classified it."""
    assert refusal(sql).sqlstate == "42501"
    assert refusal(sql).reason == "function"


def test_a_function_that_is_not_in_the_data_is_nobody_s_but_the_tenant_s():
    """Without a schema and pg_ in front it may be the tenant's own: then what it does is not known."""
    assert effects("SELECT brand_new(1)") & Effect.OPAQUE
    assert effects("SELECT acme.brand_new(1)") & Effect.OPAQUE
    assert judge("SELECT beta.brand_new(1)").action is Action.REJECT
