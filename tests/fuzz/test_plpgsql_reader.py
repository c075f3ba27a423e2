"""Our reader of PL/pgSQL beside PostgreSQL's, for bodies that nobody would write.

Where both read a body, what PostgreSQL would run as SQL must be what was judged (`guard.second_reading`):
what ours takes for a target, a label or an option would be missing there.  Such a body is refused, so a
find here leads nowhere, but is a fault of our reader all the same.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tenant_proxy.guard import plpgsql, second_reading
from tenant_proxy.guard.judge import Judgement
from tenant_proxy.guard.parse import Unreadable
from tenant_proxy.guard.second_reading import Around, Parameter
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
    b"SELECT r.insert, (r).insert, a.b.c.merge INTO x;",
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
    b"MOVE BACKWARD ALL IN c;",
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
rowtype $1 found .insert .merge insert.x $1.insert reverse.x next.x query.y
absolute relative create function temp record alias "x" "into" chain
"""
WORDS = [f" {word} ".encode() for word in _WORDS.split()]


FUNCTION = Around("fn", "FUNCTION", [Parameter("IN", "a", False), Parameter("IN", "q", False)], is_set=True)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which bodies PostgreSQL's reader could read.  No SQL and no type in them is judged."""
    found: list[bool] = []
    original = second_reading.read

    def reads(*arguments: Any) -> Any:
        tree = original(*arguments)
        found.append(tree is not None)
        return tree

    monkeypatch.setattr(second_reading, "read", reads)
    monkeypatch.setattr(plpgsql._Reader, "sql", lambda _self, _text, _offset: None)
    monkeypatch.setattr(plpgsql._Reader, "type_name", lambda _self, _span: None)
    return found


def compare(body: str) -> None:
    message = ""
    try:
        plpgsql.judge(Judgement(ACME, body), body, 0, FUNCTION)
    except (Refusal, Unreadable) as refusal:
        message = refusal.message
    assert message != second_reading.REFUSED, body


def fuzzed(for_s: float) -> None:
    def act(data: bytes, _chance: random.Random) -> None:
        compare(f"{DECLARED}{data.decode('utf-8', 'replace')} END")

    mutation.run(act, SEEDS, WORDS, for_s)


@pytest.mark.timeout(60)
def test_for_a_moment(read: list[bool]):
    fuzzed(2.0)
    assert sum(read) > len(SEEDS)


@pytest.mark.fuzz
@pytest.mark.timeout(100_000)
def test_for_long(read: list[bool]):
    fuzzed(mutation.seconds(60))
    print(f"{sum(read):,} bodies that both read")
