"""Statements made to crash, to fill memory, or to take long: each is answered, and the process lives on.

They go through a judge process, as the relay sends them; PostgreSQL's parser guards its own stack there, and
a crash would be a failed judgement.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from tenant_proxy.guard.judge import Guard
from tenant_proxy.model import Action
from tests.unit.guard.scope import ACME
from tests.unit.relay.offering import Engine

#: n levels, terms or members
HOSTILE: dict[str, Callable[[int], str]] = {
    "parentheses": lambda n: "SELECT " + "(" * n + "a" + ")" * n,
    "CASE": lambda n: "SELECT " + "CASE WHEN a THEN " * n + "1" + " END" * n,
    "subqueries": lambda n: "SELECT " + "(SELECT " * n + "1" + ")" * n,
    "EXISTS": lambda n: "SELECT " + "EXISTS(SELECT " * n + ")" * n,
    "IN": lambda n: "SELECT " + "a IN (" * n + "1" + ")" * n,
    "FROM": lambda n: "SELECT * FROM " + "(SELECT * FROM " * n + "a" + ") a" * n,
    "WITH": lambda n: "WITH a AS (" * n + "SELECT 1" + ") SELECT 1" * n,
    "UNION": lambda n: "SELECT 1" + " UNION SELECT 1" * n,
    "nested UNION": lambda n: "(" * n + "SELECT 1" + " UNION SELECT 1)" * n,
    "nested joins": lambda n: "SELECT * FROM " + "(" * n + "a" + " JOIN b ON true)" * n,
    "joins": lambda n: "SELECT * FROM a" + " CROSS JOIN b" * n,
    "ARRAY": lambda n: "SELECT " + "ARRAY[" * n + "1" + "]" * n,
    "array levels": lambda n: "SELECT ARRAY" + "[" * n + "1" + "]" * n,
    "array type": lambda n: "CREATE TABLE a(b c" + "[]" * n + ")",
    "subscripts": lambda n: "SELECT a" + "[1]" * n,
    "fields": lambda n: "SELECT (a)" + ".a" * n,
    "dots": lambda n: "SELECT a" + ".a" * n,
    "casts": lambda n: "SELECT a" + "::t" * n,
    "CAST": lambda n: "SELECT " + "CAST(" * n + "a" + " AS t)" * n,
    "type modifiers": lambda n: "SELECT a::" + "numeric(" * n + "1" + ")" * n,
    "signs": lambda n: "SELECT " + "- " * n + "a",
    "NOT": lambda n: "SELECT " + "NOT " * n + "a",
    "operators": lambda n: "SELECT a" + "+a" * n,
    "AND and OR": lambda n: "SELECT a" + " AND a OR b" * n,
    "IS NULL": lambda n: "SELECT a" + " IS NULL" * n,
    "COLLATE": lambda n: "SELECT a" + " COLLATE c" * n,
    "AT TIME ZONE": lambda n: "SELECT a" + " AT TIME ZONE b" * n,
    "functions": lambda n: "SELECT " + "f(" * n + ")" * n,
    "FILTER": lambda n: "SELECT " + "f() FILTER (WHERE " * n + "a" + ")" * n,
    "OVER": lambda n: "SELECT " + "f() OVER (ORDER BY " * n + "a" + ")" * n,
    "ROW": lambda n: "SELECT " + "ROW(" * n + "1" + ")" * n,
    "grouping sets": lambda n: "SELECT 1 GROUP BY " + "GROUPING SETS(" * n + "a" + ")" * n,
    "xmlelement": lambda n: "SELECT " + "xmlelement(name a, " * n + "1" + ")" * n,
    "json_object": lambda n: "SELECT " + "json_object('a':" * n + "1" + ")" * n,
    "JSON_TABLE": lambda n: (
        "SELECT * FROM json_table(a, '$' COLUMNS ("
        + "NESTED PATH '$' COLUMNS (" * n
        + "a int"
        + ")" * n
        + "))"
    ),
    "JSON path": lambda n: "SELECT jsonb_path_query(a, '$" + "[*]" * n + "')",
    "JSON text": lambda n: "SELECT '" + "[" * n + "]" * n + "'::jsonb",
    "comments": lambda n: "SELECT 1" + "/*" * n + "*/" * n,
    "unclosed comments": lambda n: "SELECT 1" + "/*" * n,
    "statements": lambda n: "SELECT 1;" * n,
    "COMMITs": lambda n: "COMMIT;" * n,
    "parameters": lambda n: "SELECT " + ",".join(f"${i + 1}" for i in range(n)),
    "IN list": lambda n: "SELECT * FROM a WHERE b IN (" + "1," * n + "2)",
    "VALUES": lambda n: "INSERT INTO a VALUES " + "(1, 'x')," * n + "(2, 'y')",
    "columns": lambda n: "CREATE TABLE t(" + "a int," * n + "a int)",
    "row assignment": lambda n: "UPDATE t SET (" + "a," * n + "a) = (" + "1," * n + "1)",
    "nested row assignment": lambda n: "UPDATE t SET (a, b) = (" + "SELECT (" * n + "1" + ")" * n + ")",
    "operator characters": lambda n: "SELECT a " + "@" * n + " b",
    "long name": lambda n: "SELECT " + "a" * n + " FROM " + "é" * n,
    "long number": lambda n: "SELECT " + "9" * n,
    "long parameter": lambda n: "SELECT $" + "9" * n,
    "escapes": lambda n: "SELECT E'" + "\\n" * n + "'",
    "continued literal": lambda n: "SELECT 'a'" + "\n'a'" * n,
    "rules": lambda n: "CREATE RULE r AS ON SELECT TO a DO ALSO (" + "SELECT 1;" * n + "SELECT 1)",
    "an atomic body": lambda n: "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC " + "SELECT 1;" * n + " END",
    "a body in SQL": lambda n: "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$" + "SELECT 1;" * n + "$$",
    "blocks": lambda n: "DO $$ " + "BEGIN " * n + "NULL; " + "END; " * n + "$$",
    "IF": lambda n: "DO $$ BEGIN " + "IF a THEN " * n + "NULL; " + "END IF; " * n + "END $$",
    "LOOP": lambda n: "DO $$ BEGIN " + "LOOP " * n + "NULL; " + "END LOOP; " * n + "END $$",
    "parentheses in a body": lambda n: "DO $$ BEGIN a := " + "(" * n + "1" + ")" * n + "; END $$",
    "assignments": lambda n: "DO $$ BEGIN " + "a := b;" * n + " END $$",
    "assignments, not ASCII": lambda n: "DO $$ BEGIN " + "é := é;" * n + " END $$",
    "bodies in bodies": lambda n: (
        "DO $a0$ BEGIN "
        + "".join(f"EXECUTE $a{i}$DO $b{i}$ BEGIN " for i in range(1, min(n, 500)))
        + "NULL; "
        + "".join(f"END $b{i}$$a{i}$; " for i in reversed(range(1, min(n, 500))))
        + "END $a0$"
    ),
}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    found = Engine()
    yield found
    found.judges.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_of_anything_are_answered(engine):
    """None crashes its process or takes it more than its time, whatever the verdict."""
    for client, (name, text) in enumerate(HOSTILE.items(), 1):
        engine.say(client, text(10_000).encode())
        await engine.all_answered(within_s=60)
        verdict = engine.verdicts[client]
        assert verdict.reason not in ("internal", "unknown_syntax"), name
        assert verdict.action is Action.ALLOW or verdict.sqlstate, name
        assert engine.judges.failed == 0, name


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
async def test_megabytes_of_anything_are_answered(engine):
    for client, (name, text) in enumerate(HOSTILE.items(), 1):
        sql = text(10_000)
        if len(sql) < 400_000:  # as long as a megabyte
            sql = text(10_000 * (1_000_000 // len(sql)))
        before = engine.judges.failed
        engine.say(client, sql.encode())
        await engine.all_answered(within_s=60)
        verdict = engine.verdicts[client]
        assert verdict.reason not in ("internal", "unknown_syntax"), name
        # out of CPU time: refused, as what is too complex
        assert engine.judges.failed == before or verdict.sqlstate == "54001", name


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_judged_in_the_loop_is_soon_judged(name):
    """A text of some kilobytes is judged or handed on before it holds up anybody: in CPU time, so that a busy
    machine does not fail it."""
    guard = Guard()
    text = HOSTILE[name]
    for size in (600, 1200, 2400, 4000):
        count = max(1, size * 10 // len(text(10)))
        sql = text(count)
        best = min(_cpu_s(partial(guard.judge_at_once, ACME, sql)) for _ in range(3))
        assert best < 0.012, (size, best)


def _cpu_s(act: Callable[[], object]) -> float:
    before = time.thread_time()
    act()
    return time.thread_time() - before
