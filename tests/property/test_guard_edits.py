"""Rewriting by shape is the same as judging each text anew.

A stand-in judge turns some names of a text to others, by the places that PostgreSQL's scanner gives.
What the cache makes of a text's twin (other literals, white space, comments) by the edits of the first must
be what that judge makes of the twin itself.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError, scan

from tenant_proxy.guard.cache import VerdictCache
from tenant_proxy.guard.edits import applied
from tenant_proxy.guard.shape import shape
from tenant_proxy.model import Action
from tests.property.test_guard_shape import CORPUS, PIECES, reworded
from tests.unit.guard.scope import judge, scope

#: names that the stand-in judge replaces -> by what; "b1" gets something in front, "from" something behind
REPLACED = {"a": b"tp_catalog.a", '"q"': b"", "b1": b"tp_", "é": "schön.é".encode(), "from": b" x"}

WHOLE = [piece for piece in PIECES if shape(piece.encode()) is not None]
#: more often than by chance
WORDS = ["a", " a ", " b1 ", '"q"', "é", " from ", " ", ".", "-- c\n", "/* a */"]

fragments = st.lists(st.sampled_from(WHOLE) | st.sampled_from(WORDS), max_size=14).map("".join)


def edits_of(sql: str) -> list[tuple[int, int, bytes]] | None:
    try:
        tokens = scan(sql)
    except ParseError:
        return None
    found = []
    for token in tokens:
        start, end = len(sql[: token.start].encode()), len(sql[: token.end + 1].encode())
        word = sql[token.start : token.end + 1]
        if word == "b1":
            found.append((start, start, REPLACED[word]))
        elif word == "from":
            found.append((end, end, REPLACED[word]))
        elif word in REPLACED:
            found.append((start, end, REPLACED[word]))
    return found


def by_hand(sql: str, edits: list[tuple[int, int, bytes]]) -> bytes:
    text, out, done = sql.encode(), b"", 0
    for start, end, new in edits:
        out += text[done:start] + new
        done = end
    return out + text[done:]


@given(fragments, st.randoms(use_true_random=False))
@example("SELECT a from b1 WHERE x='a'", None)
@example(" /* a */ a", None)
@example("a--b1\n.b1", None)
@example('"a b1" "q""r"."q"1.e3', None)
@settings(
    max_examples=1500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_a_twin_is_rewritten_as_if_it_were_judged_itself(sql, random):
    found = shape(sql.encode())
    assume(found is not None)
    assert found is not None
    edits = edits_of(sql)
    assume(edits)
    assert edits
    assert applied(sql.encode(), edits) == by_hand(sql, edits)
    cache = VerdictCache(16)
    assert cache.store(1, sql.encode(), 0, False, edits=edits)
    assert cache.rewritten(1, sql.encode()) == by_hand(sql, edits)
    for twin in [reworded(found, random) for _ in range(4)] if random else []:
        anew = edits_of(twin)
        if anew is not None:
            assert cache.rewritten(1, twin.encode()) == by_hand(twin, anew), twin


@given(fragments, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=3))
@settings(max_examples=500, deadline=None)
def test_edits_anywhere_are_applied_right_or_not_at_all(sql, places):
    text = sql.encode()
    edits, last = [], 0
    for start, size in sorted(places):
        if start >= last and start + size <= len(text):
            edits.append((start, start + size, b"<new>"))
            last = start + size
    whole = by_hand(sql, edits)
    assert applied(text, edits) == whole
    assert applied(text, edits, by_shape=True) in (None, whole)


@pytest.mark.slow
@given(st.sampled_from(CORPUS), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_verdict_s_edits_hold_for_its_shape(sql, public_is_own, random):
    found = shape(sql.encode())
    assume(found is not None)
    assert found is not None
    hiding = scope(public_is_own=public_is_own, hides=True)
    before = judge(sql, hiding)
    if before.action is not Action.ALLOW or before.exact or not before.edits:
        return
    cache = VerdictCache(16)
    kept = cache.store(
        1, sql.encode(), 0, False, edits=[(a, b, text.encode()) for a, b, text in before.edits]
    )
    assert kept, sql
    twin = reworded(found, random)
    after = judge(twin, hiding)
    edits = [(start, end, text.encode()) for start, end, text in after.edits]
    assert cache.rewritten(1, twin.encode()) == by_hand(twin, edits), twin
