"""Texts that expressions make of constants, against what PostgreSQL makes of them."""

from __future__ import annotations

import time

import pytest
from pglast.parser import parse_sql_json

from tenant_proxy.guard import folding
from tenant_proxy.guard.parse import parse
from tests.unit.guard.scope import judge

EXPRESSIONS = (
    "'a' || 'b' || 'c'",
    "format('%s.%I %L %% %2$s', 'x', 'Y z', 'it''s')",
    "format('%1$I', 'plain')",
    "concat('a', 1, 'b')",
    "concat_ws('-', 'a', 'b', 'c')",
    "array_to_string(ARRAY['a', 'b'], '.')",
    "quote_ident('a b')",
    "quote_literal('a''b')",
    "lower('AbC') || upper('AbC')",
    "trim('  x ') || btrim('xxyxx', 'x') || ltrim('  l') || rtrim('r  ')",
    "chr(65) || reverse('abc')",
    "replace('abcabc', 'b', 'xy')",
    "translate('12345', '143', 'ax')",
    "left('abcdef', 2) || left('abcdef', -2) || right('abcdef', 2) || right('abcdef', -2)",
    "substr('abcdef', 2, 3) || substring('abcdef', 3) || substring('abcdef' FROM 0 FOR 3)",
    "convert_from(decode('5441424c45', 'hex'), 'utf8') || convert_from(decode('YWJj', 'base64'), 'utf8')",
    "coalesce('a', 'b')",
    "(SELECT 'a' || 'b')",
    "'x'::text::varchar COLLATE \"C\"",
)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_texts_are_those_of_the_server(superuser, expression):
    node = parse(f"SELECT {expression}")[0]["stmt"]["SelectStmt"]["targetList"][0]["ResTarget"]["val"]
    (made,) = superuser.execute(f"SELECT ({expression})::text").fetchone()
    assert made in folding.texts(node)


@pytest.mark.parametrize(
    "expression", ["x || 'a'", "lower(x)", "md5('a')", "current_schema()", "$1 || 'a'", "NULL", "now()"]
)
def test_what_is_not_constant_is_not_known(expression):
    node = parse(f"SELECT {expression}")[0]["stmt"]["SelectStmt"]["targetList"][0]["ResTarget"]["val"]
    assert not folding.is_made_of_constants(node)
    assert folding.texts(node) == []


@pytest.mark.parametrize(
    "expression",
    [
        f"replace('{'a' * 16_000}', 'a', '{'b' * 16_000}')",
        f"format('{'%1$s' * 4_000}', '{'b' * 16_000}')",
        f"array_to_string(ARRAY[{','.join(['1'] * 4_000)}], '{'b' * 8_000}')",
        "||".join(["CASE WHEN true THEN 'a' ELSE 'b' END"] * 50),
        "lower(" * 1_000 + "'x'" + ")" * 1_000,
    ],
)
def test_it_is_bounded(expression):
    assert parse_sql_json(f"SELECT {expression}")
    start = time.process_time()
    judge(f"DO $do$ DECLARE q text := {expression}; BEGIN EXECUTE q; END $do$")
    judge(f"SELECT to_regclass({expression})")
    assert time.process_time() - start < 1
