"""Casts and parameters' types where the text itself counts: of settings, and of SQL in arguments."""

from __future__ import annotations

import pytest

from tenant_proxy.model import Action
from tests.unit.guard.scope import GUARD, judge, rewritten


@pytest.mark.parametrize(
    ("sql", "meant"),
    [
        ("SELECT set_config('app.x'::text, 'y', true)",
         "SELECT set_config('app.x'::pg_catalog.text, 'y', true)"),
        ("SELECT set_config($1::text, CAST($2 AS text), true)",
         "SELECT set_config($1::pg_catalog.text, CAST($2 AS pg_catalog.text), true)"),
        ("SELECT set_config(text 'app.x', 'y'::varchar, true)",
         "SELECT set_config(pg_catalog.text 'app.x', 'y'::varchar, true)"),
        ("SELECT query_to_xml('SELECT 1'::text, true, true, '')",
         "SELECT query_to_xml('SELECT 1'::pg_catalog.text, true, true, '')"),
        ("SELECT table_to_xml('orders'::regclass, true, true, '')",
         "SELECT table_to_xml('orders'::pg_catalog.regclass, true, true, '')"),
        ("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.x'::text, 'y', true) $$",
         "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS "
         "$$ SELECT set_config('app.x'::pg_catalog.text, 'y', true) $$"),
    ],
)  # fmt: skip
def test_text_is_postgresql_s_own(sql, meant):
    """A tenant's own type `text`, a temporary one for example, could be cast to any text."""
    assert rewritten(sql) == meant


def test_types_that_a_parse_declares():
    kinds = judge("SELECT set_config($1, $2, true), $3::regclass").bound
    for types in ((), (25,), (1043, 0), (25, 705, 23)):
        assert GUARD.judge_types(kinds, types).action is Action.ALLOW, types
    for types in ((16400,), (25, 1042), (19, 25)):
        assert GUARD.judge_types(kinds, types).reason == "parameter_type", types
