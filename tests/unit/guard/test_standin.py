"""Long texts that are judged by short ones, and where their edits belong."""

from __future__ import annotations

import time

import pytest

from tenant_proxy.guard import source
from tenant_proxy.guard.standin import LONG_TEXT_BYTES, cut
from tests.unit.guard.scope import PUBLIC, judge, refusal, rewritten

ROWS = ", ".join(f"({n}, 'row {n}', NULL) /* é */" for n in range(3000))
LONG_LIST = ", ".join(str(n) for n in range(5000))


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO {public}.t (a) VALUES {rows} ON CONFLICT (a) DO UPDATE SET b = {public}.f({public}.t.a)",
        "/* é */ WITH x AS (VALUES {rows}) SELECT * FROM x, {pg_catalog}.pg_proc WHERE oid IN ({list})",
        "SELECT 'é' FROM {public}.t WHERE a IN ({list}) AND {public}.f(a) OR ARRAY[{list}]::{public}.i[] = b",
        "SELECT 'é' FROM {public}.t WHERE a IN (1, 2) AND {public}.f(a, $${list}$$)",
    ],
)
def test_edits_of_long_texts_are_where_they_belong(sql):
    before = sql.format(public="public", pg_catalog="pg_catalog", rows=ROWS, list=LONG_LIST)
    assert len(before) > LONG_TEXT_BYTES
    after = sql.format(public='"acme"', pg_catalog="tp_catalog", rows=ROWS, list=LONG_LIST)
    assert rewritten(before, PUBLIC) == after


@pytest.mark.parametrize("literal", ["'{}'", "E'\\n{}'", "$x${}$x$"])
@pytest.mark.parametrize("text", ["x" * 600_000, "é" * 300_000, "word " * 60_000])
def test_one_long_literal(literal, text):
    value = literal.format(" " + text)
    rest = ".t (a, b) VALUES ({value}, nextval('{public}.s')), (now()::text, 1) RETURNING {public}.f(a)"
    before = ("INSERT INTO {public}" + rest).format(public="public", value=value)
    after = 'INSERT INTO "acme"' + rest.format(public='"acme"', value=value)
    started = time.process_time()
    assert rewritten(before, PUBLIC) == after
    assert time.process_time() - started < 3


@pytest.mark.parametrize("literal", ["''", "E''"])
def test_tokens_of_a_text_are_limited(monkeypatch, literal):
    monkeypatch.setattr(source, "_MAX_SCANNED", 200)
    assert rewritten(f"TABLE public.t -- {'x' * 200}", PUBLIC).startswith('TABLE "acme".t --')
    many = "SELECT {} FROM public.t".format(f"a || {literal}, " * 50 + literal)
    assert refusal(many, PUBLIC).reason == "rewriting"


def test_a_bulk_insert_is_judged_by_its_ends():
    rows = ", ".join(f"({n}, 'abcdefghijklmno')" for n in range(100_000))
    started = time.process_time()
    assert rewritten(f"INSERT INTO public.t VALUES {rows}", PUBLIC).startswith(
        'INSERT INTO "acme".t VALUES (0'
    )
    # all of it parsed takes many seconds
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO public.t VALUES (1), (2), (3) RETURNING public.f(1)",
        "INSERT INTO public.t VALUES (1), (2) ,\n(3) ; SELECT 1 FROM public.u WHERE a IN (1, 2, 3)",
        "SELECT public.f(1) IN (1,2,3,4), ARRAY [ 1 , 2 , 3 , 4 ]::public.x, 5 IN (1, 2), public.g()",
    ],
)
def test_cuts_are_placed(sql):
    short = cut(sql.encode())
    assert short is not None
    assert len(short.text) < len(sql)
    assert short.placed(judge(short.text, PUBLIC).edits) == judge(sql, PUBLIC).edits


def test_what_can_not_be_cut():
    assert cut(b"SELECT 1") is None
    assert cut(b"SELECT $$a$$ IN (1, 2, 3, 4)") is None
    assert cut(b"SELECT " + b"1 IN (1, 2, 3, 4) AND " * 9 + b"true") is None
