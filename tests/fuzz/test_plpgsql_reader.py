"""Our reader of PL/pgSQL beside PostgreSQL's: what that would run as SQL, the guard has been given to judge.

Ours finds the SQL in a body by the words around it, as libpg_query's parser does, which knows no types and
can't be had for all bodies.  Where both read a body, each run of three tokens that PostgreSQL would run must
be in a text that was judged: what ours takes for a target, a label or an option would be missing there.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pglast.parser import ParseError, parse_plpgsql_json, scan

from tenant_proxy.guard import plpgsql
from tenant_proxy.guard.judge import Judgement
from tenant_proxy.guard.parse import Unreadable
from tenant_proxy.guard.walk import Refusal
from tests.fuzz import mutation
from tests.unit.guard.scope import ACME

DECLARED = (
    "<<blk>> DECLARE x int; y text; r record; c refcursor; i int;"
    " d CURSOR (a int, b int) FOR SELECT a, b; BEGIN "
)
SEEDS = [
    b"x := (q).h;",
    b"r.f[f(1)].z := g(2);",
    b"SELECT (q).h INTO x FROM t;",
    b"SELECT 1 INTO STRICT blk.r.f, x;",
    b"INSERT INTO t VALUES (1) RETURNING a INTO r;",
    b"WITH w AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a INTO x FROM w;",
    b"MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE;",
    b"EXPLAIN ANALYZE SELECT 1;",
    b"CREATE FUNCTION a() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;",
    b"CREATE RULE a AS ON INSERT TO t DO (SELECT 1; SELECT 2);",
    b"PERFORM f(1);",
    b"CALL p(x);",
    b"EXECUTE q INTO x USING y;",
    b"FOR r IN SELECT 1 FROM t LOOP NULL; END LOOP;",
    b"FOR i IN 1..f(2) LOOP x := i; END LOOP;",
    b"FOR i IN REVERSE 5..1 BY 2 LOOP END LOOP;",
    b"FOR r IN EXECUTE q USING y LOOP END LOOP;",
    b"FOREACH x SLICE 1 IN ARRAY f(1) LOOP END LOOP;",
    b"WHILE f(1) LOOP EXIT WHEN g(2); END LOOP;",
    b"IF f(1) THEN NULL; ELSIF g(2) THEN NULL; ELSE NULL; END IF;",
    b"CASE x WHEN 1, f(2) THEN NULL; ELSE NULL; END CASE;",
    b"RETURN QUERY SELECT 1;",
    b"RETURN QUERY EXECUTE q USING x;",
    b"RETURN NEXT x;",
    b"RETURN x;",
    b"OPEN c FOR SELECT 1;",
    b"OPEN c FOR EXECUTE q USING x;",
    b"FETCH ABSOLUTE f(1) FROM c INTO r;",
    b"MOVE c;",
    b"CLOSE c;",
    b"RAISE NOTICE 'a %', f(1) USING hint = g(2);",
    b"ASSERT f(1), g(2);",
    b"GET DIAGNOSTICS x = ROW_COUNT;",
    b"BEGIN NULL; EXCEPTION WHEN others THEN x := f(1); END;",
    b"DECLARE z int := f(1); BEGIN NULL; END;",
]
_WORDS = """
x y r r.f blk blk.r.f blk.r.f.ts_stat c q into strict select ( ) [ ] , ; . .. := = 1 'a' perform
return query next execute using for in loop then else elsif when while open fetch from move close
call do raise notice exit continue null begin end exception others declare cursor int text assert
foreach array slice scroll no reverse by commit all is t f(1) beta.g(2) (q).h explain analyze values
default not constant collate as with delete update set where and or order reset table notify type %
rowtype $1 found absolute relative create function temp record alias "x" "into" chain
"""
WORDS = [f" {word} ".encode() for word in _WORDS.split()]


def run_as_sql(tree: Any) -> Iterator[str]:
    """The texts of a body's queries and expressions, without what PL/pgSQL puts around those of a CASE."""
    if isinstance(tree, dict):
        if "PLpgSQL_expr" in tree:
            text = tree["PLpgSQL_expr"]["query"]
            compared = re.fullmatch(r'"__Case__Variable_\d+__" IN \((.*)\)', text, re.DOTALL)
            yield compared[1] if compared else text
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from run_as_sql(item)


def threes(text: str) -> set[tuple[str, ...]]:
    words = [
        text[token.start : token.end + 1].lower()
        for token in scan(text)
        if token.name not in ("SQL_COMMENT", "C_COMMENT")
    ]
    # an assignment's target is PL/pgSQL's
    return {
        three
        for three in zip(words, words[1:], words[2:], strict=False)
        if not {":=", "="}.intersection(three)
    }


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is judged as SQL."""
    texts: list[str] = []
    monkeypatch.setattr(plpgsql._Reader, "sql", lambda _self, text, _offset: texts.append(text))
    monkeypatch.setattr(plpgsql._Reader, "type_name", lambda _self, _span: None)
    return texts


def compare(judged: list[str], body: str) -> bool:
    """Whether both read it."""
    judged.clear()
    try:
        plpgsql.judge(Judgement(ACME, body), body, 0)
        tree = json.loads(
            parse_plpgsql_json(
                "CREATE FUNCTION fn(a int, q text) RETURNS SETOF record LANGUAGE plpgsql AS"
                f" $tp_body${body}$tp_body$"
            )
        )
        known = set().union(*map(threes, judged))
        run = set().union(*map(threes, run_as_sql(tree)))
    except (Refusal, ParseError, Unreadable):
        return False
    assert not run - known, (body, judged)
    return True


def fuzzed(judged: list[str], for_s: float) -> int:
    both = 0

    def act(data: bytes, _chance: random.Random) -> None:
        nonlocal both
        text = data.decode("utf-8", "replace").replace("\0", " ").replace("$tp_body$", " ")
        both += compare(judged, f"{DECLARED}{text} END")

    mutation.run(act, SEEDS, WORDS, for_s)
    return both


@pytest.mark.timeout(60)
def test_for_a_moment(judged: list[str]):
    assert fuzzed(judged, 2.0) > len(SEEDS)


@pytest.mark.fuzz
@pytest.mark.timeout(100_000)
def test_for_long(judged: list[str]):
    both = fuzzed(judged, mutation.seconds(60))
    print(f"{both:,} bodies that both read")
