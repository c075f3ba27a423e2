"""Objects and roles that are looked at when a statement runs, or whose names are those of nobody."""

from __future__ import annotations

import pytest

from tenant_proxy.model import Action
from tests.unit.guard.scope import ACME, HIDING, judge, refusal, rewritten


@pytest.mark.parametrize(
    ("sql", "turned"),
    [
        ("SELECT nextval('s')", "SELECT nextval('s')"),
        ("SELECT nextval('s'::regclass)", "SELECT nextval('s'::pg_catalog.regclass)"),
        ("SELECT nextval('16400')", "SELECT tp_catalog.nextval('16400')"),
        ("SELECT pg_catalog.nextval(16400)", "SELECT tp_catalog.nextval(16400)"),
        ("SELECT nextval($1)", "SELECT tp_catalog.nextval($1)"),
        ("SELECT nextval(x::regclass) FROM t", "SELECT tp_catalog.nextval(x::regclass) FROM t"),
        ("SELECT nextval('s' || '')", "SELECT tp_catalog.nextval('s' || '')"),
        ("SELECT setval(x, 7, true) FROM t", "SELECT tp_catalog.setval(x, 7, true) FROM t"),
        ("SELECT pg_table_size('t')", "SELECT pg_table_size('t')"),
        ("SELECT pg_table_size(oid) FROM t", "SELECT tp_catalog.pg_table_size(oid) FROM t"),
        ("SELECT * FROM pg_partition_tree(x) p", "SELECT * FROM tp_catalog.pg_partition_tree(x) p"),
        ("SELECT acme.nextval(x), t.nextval FROM t", "SELECT acme.nextval(x), t.nextval FROM t"),
        (
            "DO $$ BEGIN PERFORM nextval('s'), nextval(x), r.nextval; END $$",
            "DO $$ BEGIN PERFORM nextval('s'), tp_catalog.nextval(x), r.nextval; END $$",
        ),
    ],
)
def test_what_is_done_with_an_object_is_looked_at_where_no_constant_names_it(sql, turned):
    assert rewritten(sql) == turned
    assert not judge(sql, ACME).edits or "pg_catalog" in turned


def test_an_attribute_that_would_call_these_unseen_is_refused():
    for sql in (
        "SELECT (x).nextval FROM (SELECT 16400::regclass) AS t(x)",
        "SELECT x.nextval FROM unnest($1::regclass[]) AS x",
        "SELECT ('orders'::regclass).pg_table_size",
    ):
        assert refusal(sql, HIDING).reason == "function"
    assert (
        refusal("CREATE OPERATOR !! (FUNCTION = pg_stat_get_numscans, RIGHTARG = oid)", HIDING).reason
        == "function"
    )


def test_others_roles_do_not_exist_where_they_are_hidden():
    for sql in ("SELECT 'beta_app'::regrole", "SELECT pg_has_role('beta_app', 'USAGE')"):
        assert refusal(sql, HIDING).message == 'role "beta_app" does not exist'
        assert judge(sql, ACME).action is Action.ALLOW
    for sql in (
        "SELECT 'acme_app'::regrole, 'ACME_APP'::regrole, '10'::regrole, 'pg_monitor'::regrole, '-'::regrole",
        "SELECT has_table_privilege('acme_app', 'orders', 'SELECT'), has_table_privilege('orders', 'SELECT')",
        "SELECT has_schema_privilege('public', 'acme', 'USAGE'), pg_has_role('pg_read_all_stats', 'USAGE')",
        "SELECT '=r/acme_app'::aclitem, '{acme_app=arwd*/acme_app}'::aclitem[], '{}'::aclitem[]",
    ):
        assert judge(sql, HIDING).action is Action.ALLOW, sql
