"""What PostgreSQL's reader of PL/pgSQL finds, and ours has not judged."""

from __future__ import annotations

import dataclasses

import pytest

from tenant_proxy.guard import plpgsql, second_reading
from tenant_proxy.model import Action, Effect
from tests.unit.guard.scope import HIDING, PUBLIC, judge, refusal, scope


def definition(body: str, arguments: str = "x int, q text", returns: str = "int") -> str:
    return f"CREATE FUNCTION acme.fn({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $body${body}$body$"


def is_proven(sql: str) -> bool:
    verdict = judge(sql)
    assert verdict.action is Action.ALLOW, verdict
    return not verdict.effects & Effect.UNPROVEN


# --- faults that our reader has had, or could have ------------------------------------------


def every_name(reader: plpgsql._Reader, at: int, end: int) -> int:
    """Names behind INTO, however many: PL/pgSQL takes three."""
    while at < end and (reader._is_variable(reader.tokens[at]) or reader.tokens[at].word in (".", ",")):
        at += 1
    return at


def one_argument(reader: plpgsql._Reader) -> None:
    """The first argument of a cursor, and no other."""
    reader.name()
    if reader.accept("("):
        reader.argument(reader.until(",", ")"))
        while reader.peek() != ";":
            reader.at += 1


def an_expression(reader: plpgsql._Reader, span: tuple[int, int]) -> None:
    """EXECUTE as if it took a value and ran nothing."""
    reader.expression(span)


def nothing(reader: plpgsql._Reader) -> None:
    """Skips a statement."""
    reader.at = reader.until(";")[1] + 1


def without_message(reader: plpgsql._Reader) -> None:
    reader.expect("assert")
    reader.expression(reader.until(",", ";"))
    nothing(reader)


FAULTS = {
    "_skip_targets": (
        every_name,
        "<<blk>> DECLARE r record; BEGIN SELECT (q) INTO blk.r.f.ts_stat; RETURN 1; END",
    ),
    "cursor_arguments": (
        one_argument,
        "DECLARE c CURSOR (a int, b int) FOR SELECT a; BEGIN OPEN c(1, f(2)); END",
    ),
    "dynamic": (an_expression, "BEGIN EXECUTE q; END"),
    "sql_statement": (nothing, "BEGIN SET ROLE beta; END"),
    "perform": (nothing, "BEGIN PERFORM beta.f(1); END"),
    "assert_": (without_message, "BEGIN ASSERT x > 1, beta.f(); END"),
    "raise_": (nothing, "BEGIN RAISE NOTICE 'a %', beta.f(); END"),
    "fetch": (nothing, "DECLARE c refcursor; BEGIN FETCH ABSOLUTE beta.f() FROM c INTO x; END"),
    "assignment": (nothing, "BEGIN x := beta.f(); END"),
    "return_": (nothing, "BEGIN RETURN beta.f(); END"),
    "exit": (nothing, "BEGIN LOOP EXIT WHEN beta.f(); END LOOP; END"),
}


@pytest.fixture
def faulty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    fault, body = FAULTS[request.param]
    monkeypatch.setattr(plpgsql._Reader, request.param, fault)
    for word, rule in plpgsql._STATEMENTS.items():
        if rule.__name__ == request.param:
            monkeypatch.setitem(plpgsql._STATEMENTS, word, fault)
    return body


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
@pytest.mark.parametrize("judged_in", [scope(), HIDING], ids=["seen", "hidden"])
def test_a_fault_of_our_reader_refuses_the_body(faulty, judged_in):
    verdict = refusal(definition(faulty), judged_in)
    assert verdict.message == second_reading.REFUSED
    assert (verdict.sqlstate, verdict.reason) == ("0A000", "syntax")


def test_the_line_is_told_and_nothing_of_the_text(monkeypatch):
    monkeypatch.setitem(plpgsql._STATEMENTS, "perform", nothing)
    verdict = refusal(definition("BEGIN\n  NULL;\n  PERFORM f('secret');\nEND"))
    assert "line 3 of a body" in verdict.detail
    assert "secret" not in f"{verdict}"


def test_what_is_judged_once_may_run_once(monkeypatch):
    """Each place counts, as edits are made at places."""
    original = plpgsql._Reader.dynamic
    seen: set[str] = set()

    def first(reader: plpgsql._Reader, span: tuple[int, int]) -> None:
        if reader.slice(span) not in seen:
            original(reader, span)
        seen.add(reader.slice(span))

    monkeypatch.setattr(plpgsql._Reader, "dynamic", first)
    assert refusal(definition("BEGIN EXECUTE q; EXECUTE q; END"), HIDING).message == second_reading.REFUSED


# --- what both read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "DECLARE a acme.t; b acme.t%ROWTYPE; c acme.t.a%TYPE; d acme.mood[]; BEGIN"
        " a.f := 1; d[1] := b.g; END",
        "DECLARE a acme.mood; b acme.positive; BEGIN SELECT 1, 2 INTO a, b; SELECT a.x INTO b FROM t a; END",
        "DECLARE a text COLLATE \"C\" := 'x'; b numeric(10, 2) NOT NULL DEFAULT 1; BEGIN a := b; END",
        "DECLARE c CURSOR (a int, b acme.mood) FOR SELECT a, b; BEGIN"
        " OPEN c(b := 1, a := x); FOR r IN c(1, b := f(1, 2)) LOOP NULL; END LOOP; END",
        "DECLARE c pg_catalog.refcursor; r acme.t; BEGIN OPEN c FOR SELECT 1; FETCH c INTO r; r.a := 1; END",
        "DECLARE r acme.t; BEGIN FOR r IN SELECT * FROM t LOOP x := r.a; END LOOP;"
        " FOR x, q IN SELECT 1, 2 LOOP NULL; END LOOP; END",
        "BEGIN SELECT 1 /* into x */ INTO /* y */ STRICT x /* z */ FROM t WHERE a = 'é'; END",
        'DECLARE "É" int; BEGIN SELECT 1 INTO "É" FROM t; END',
        "BEGIN CASE x WHEN 1, 2 THEN x := 1; ELSE x := 2; END CASE; CASE WHEN x > 1 THEN NULL; END CASE; END",
        "BEGIN GET DIAGNOSTICS x = ROW_COUNT, q = PG_CONTEXT; PERFORM x FROM t x WHERE x.a; fn.x := 1; END",
        "DECLARE a ALIAS FOR $1; BEGIN $2 := a; a = 1; END",
        "#print_strict_params on\n#variable_conflict use_column\nBEGIN RETURN 1; END",
        "DECLARE open text; BEGIN open := 'a'; RETURN 1; END",
        "BEGIN EXECUTE q INTO x USING q, 1; FOR x IN EXECUTE 'SELECT 1' LOOP NULL; END LOOP; END",
    ],
)
def test_types_of_the_tenants_own_are_no_obstacle(body, monkeypatch):
    trees = []
    original = second_reading.read

    def read(*arguments):
        trees.append(original(*arguments))
        return trees[-1]

    monkeypatch.setattr(second_reading, "read", read)
    assert judge(definition(body)).action is Action.ALLOW
    assert judge(definition(body), PUBLIC).action is Action.ALLOW
    assert all(trees)


@pytest.mark.parametrize(
    ("arguments", "returns", "body"),
    [
        ("a acme.t", "SETOF acme.t", "BEGIN RETURN NEXT a; RETURN QUERY SELECT 1; RETURN; END"),
        ("OUT a acme.mood, INOUT b int", "record", "BEGIN a := b; RETURN; END"),
        ("a int, OUT b acme.mood", "SETOF acme.mood", "BEGIN b := a; RETURN NEXT; END"),
        ("a int[], VARIADIC b text[]", "TABLE (c int, d acme.mood)", "BEGIN c := a[1]; RETURN NEXT; END"),
        ("int, acme.mood", "void", "BEGIN $1 := 1; RETURN; END"),
        ("c refcursor", "refcursor", "BEGIN OPEN c FOR SELECT 1; RETURN c; END"),
        (
            "",
            "trigger",
            "BEGIN NEW.a := TG_ARGV[0]; OLD := NULL;"
            " IF TG_OP = 'x' THEN RETURN NULL; END IF; RETURN NEW; END",
        ),
    ],
)
def test_what_a_function_is_given_and_returns_is_known(arguments, returns, body):
    assert is_proven(definition(body, arguments, returns))


def test_procedures_and_blocks():
    assert is_proven(
        "CREATE PROCEDURE p(INOUT a int) LANGUAGE plpgsql AS 'BEGIN a := 1; COMMIT; RETURN; END'"
    )
    assert is_proven("DO 'DECLARE a int; BEGIN a := 1; PERFORM a; END'")


# --- what PostgreSQL can't read ---------------------------------------------------------------


def test_what_it_can_not_read_is_not_proven():
    assert not is_proven(definition("BEGIN nobody := 1; END"))
    assert not is_proven("DO 'BEGIN SELECT 1 INTO nobody; END'")


def test_what_it_can_not_read_could_change_a_locked_setting():
    locked = dataclasses.replace(scope(), locked=frozenset({"work_mem"}))
    assert refusal(definition("BEGIN nobody := 1; END"), locked).reason == "locked_settings"
    assert judge(definition("BEGIN x := 1; END"), locked).action is Action.ALLOW


def test_it_prints_nothing(capfd):
    """#option dump has PL/pgSQL print its tree, with all literals."""
    assert judge(definition("#option dump\nBEGIN PERFORM f('secret'); END")).action is Action.ALLOW
    assert capfd.readouterr() == ("", "")
