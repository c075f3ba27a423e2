"""The shape, held against the server's own scanner (pglast has it) and against the judge.

What the cache rests on: equal shapes mean equal tokens up to the values of literals, and a verdict that no
literal decided is the same for all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError, scan

from tenant_proxy.guard.cache import HIT_BIT, VerdictCache
from tenant_proxy.guard.shape import literal_spans, shape
from tenant_proxy.guard.standin import stand_in
from tenant_proxy.model import Action
from tests.guard.corpus_files import read
from tests.unit.guard.scope import judge

COMMENTS = {"SQL_COMMENT", "C_COMMENT"}
LITERALS = {"ICONST", "FCONST", "SCONST"}

#: what SQL is made of, and what lexers stumble over
PIECES = [
    *(
        "SELECT",
        "a",
        "b1",
        "x$2",
        "é",
        "_",
        "E",
        "e",
        "U",
        "u",
        "N",
        "B",
        "X",
        "uescape",
        "from",
        "beta",
        ".",
    ),
    *(
        "1",
        "0",
        "12",
        "1.5",
        ".5",
        "5.",
        "1e5",
        "1E-3",
        "1e",
        "0x1F",
        "0b1",
        "1_0",
        "2147483647",
        "2147483648",
    ),
    *("'", "''", "'a'", "'it''s'", "'a", "'é'", "' -- '", "'/*'", '"', '""', '"q"', '"q""r"', "\\", "'\\'"),
    *("$", "$1", "$12", "$$", "$a$", "$a", "--", "-- c\n", "/*", "*/", "/* c */", "/*/", "/**/", "/***/"),
    *("\n", " ", "\t", "\r", "\f", "\v", "\x01", "\x02", "\x03", "\x7f"),
    *("+", "-", "*", "/", "<", ">", "=", "~", "!", "@", "#", "%", "^", "&", "|", "`", "?", "::", ":=", ":"),
    *("=>", "..", "<=", "<>", "(", ")", "[", "]", ",", ";", "{", "}", "&'", '&"', "U&'", 'U&"', "E'", "x'"),
]

fragments = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def tokens_of(sql: str) -> list[tuple[str, str]] | None:
    """(name, text; literals without theirs) of each token, comments apart; None if there is an error."""
    try:
        found = scan(sql)
    except ParseError:
        return None
    return [
        (token.name, "" if token.name in LITERALS else sql[token.start : token.end + 1])
        for token in found
        if token.name not in COMMENTS
    ]


@given(fragments)
@example("SELECT 'a' -- c\n'b'")
@example("1/*/ */+2")
@example("5.e1")
@example("a.5.5")
@example("x$1'a'")
@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_literals_are_where_the_server_s_scanner_finds_them(sql):
    spans = literal_spans(sql.encode())
    assume(spans is not None)
    tokens = tokens_of(sql)
    if tokens is None:
        return  # the judge will refuse it, so it is never stored
    found = [
        (len(sql[: token.start].encode()), len(sql[: token.end + 1].encode()), token.name)
        for token in scan(sql)
        if token.name in LITERALS
    ]
    assert spans == found


@given(fragments, fragments)
@settings(max_examples=300, deadline=None)
def test_equal_shapes_are_equal_tokens(one, other):
    assume(shape(one.encode()) is not None)
    if shape(one.encode()) == shape(other.encode()):
        assert tokens_of(one) == tokens_of(other)


@given(fragments, st.randoms(use_true_random=False))
@settings(max_examples=800, deadline=None)
def test_other_literals_and_spaces_keep_the_shape_and_the_tokens(sql, random):
    found = shape(sql.encode())
    assume(found is not None)
    assert found is not None
    mutated = reworded(found, random)
    assert shape(mutated.encode()) == found
    before, after = tokens_of(sql), tokens_of(mutated)
    if before is not None and after is not None:
        assert before == after
    # an error in the scanner may depend on a literal's bytes, but not on which literal stands there
    assert (before is None) == (after is None)


@given(fragments, st.integers(0, 33))
@settings(max_examples=800, deadline=None)
def test_the_place_in_the_text_does_not_matter(sql, pad):
    """The lexer takes 16 bytes at once: wherever these are cut, it finds the same."""
    before = b"x" * pad + b","
    found, moved = shape(sql.encode()), shape(before + b" " + sql.encode())
    if found is None:
        assert moved is None
    else:
        assert moved == (before + b" " + found if found else before)


def reworded(found: bytes, random) -> str:
    """A text of a shape: other literals in place of its own, other white space."""
    out = []
    inside_name = False
    for character in found.decode():
        if character == "\x01":
            out.append(random.choice(["0", "7", "2147483647", "0001"]))
        elif character == "\x02":
            # right behind a name only a number that starts with a dot can stand
            joined = bool(out) and (out[-1][-1].isalnum() or out[-1][-1] in "_$")
            numbers = [".5", ".5e9", ".0"] if joined else ["1.5", "2147483648", "1e9", ".5", "9" * 20]
            out.append(random.choice(numbers))
        elif character == "\x03":
            out.append(
                random.choice(["''", "'x'", "'it''s'", "'beta.orders'", "'--'", "'/*'", "'$1'", "'é\n'"])
            )
        elif character == " " and not inside_name:
            out.append(random.choice([" ", "\n", "  ", "\t", "/* 'c' */", " -- d'\n", "/**/ "]))
        else:
            inside_name ^= character == '"'
            out.append(character)
    return "".join(out)


# --- the judge ------------------------------------------------------------------------------------------

CORPUS = [
    sql
    for name in ("allowed.yaml", "refused.yaml")
    for group in read(Path(__file__).parent.parent / "guard" / name)
    for sql in group["sql"]
]


@pytest.mark.slow
@given(st.sampled_from(CORPUS), st.randoms(use_true_random=False))
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_verdict_that_is_not_exact_holds_for_its_shape(sql, random):
    """And whether it is exact is the same for the whole shape, so nothing exact can be stored by shape."""
    found = shape(sql.encode())
    assume(found is not None)
    assert found is not None
    before = judge(sql)
    after = judge(reworded(found, random))
    if before.action is Action.ALLOW and not before.exact:
        assert after.action is Action.ALLOW, (sql, after)
        assert (after.effects, after.exact) == (before.effects, False)
    elif after.action is Action.ALLOW:
        assert after.exact, sql


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(CORPUS), st.randoms(use_true_random=False)), max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_cache_allows_the_judge_allows(statements):
    """Texts of few shapes, in any order, through a cache as the relay uses it."""
    cache = VerdictCache(50)
    for sql, random in statements:
        found = shape(sql.encode())
        for text in [sql] if found is None else [sql, reworded(found, random), reworded(found, random)]:
            held = cache.find(1, text.encode())
            verdict = judge(text)
            if held:
                assert verdict.action is Action.ALLOW, text
                assert held == HIT_BIT | int(verdict.effects), text
            elif verdict.action is Action.ALLOW:
                cache.store(1, text.encode(), int(verdict.effects), verdict.exact)
    assert cache.stats()["conflicts"] == 0


@pytest.mark.parametrize("sql", [sql for sql in CORPUS if shape(sql.encode()) is not None])
def test_a_stand_in_is_judged_as_the_text(sql):
    """A stand-in is asked first for long texts; what it allows without a literal the text must be allowed."""
    short = stand_in(sql.encode())
    assert short is not None
    verdict = judge(short)
    if verdict.action is Action.ALLOW and not verdict.exact:
        whole = judge(sql)
        assert (whole.action, whole.effects) == (Action.ALLOW, verdict.effects)


@given(st.text(max_size=60) | fragments)
@settings(max_examples=300, deadline=None)
def test_the_judge_never_raises_and_refuses_what_it_can_not_read(sql):
    verdict = judge(sql)
    assert verdict.reason not in ("internal", "unknown_syntax"), verdict
    if tokens_of(sql.replace("\0", "")) is None:
        assert verdict.action is Action.REJECT


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_no_text_are_refused(sql):
    verdict = judge(sql)
    try:
        sql.decode()
    except UnicodeDecodeError:
        assert verdict.sqlstate == "22021"


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_have_a_shape_or_none(sql):
    found = shape(sql)
    if found is not None:
        assert len(found) <= len(sql)
        assert shape(sql) == found
