"""Statements and their twins in the verdict cache: no two with different verdicts have one key.

Twins differ in what an attacker would change: a schema, a literal that may name something, how a literal or a
name is written, what a comment hides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tenant_proxy.guard.cache import HIT_BIT, VerdictCache
from tenant_proxy.guard.shape import shape
from tenant_proxy.model import Action
from tests.guard.corpus_files import read
from tests.property.test_guard_shape import CORPUS
from tests.unit.guard.scope import judge


def texts_in(found: Any) -> Iterator[str]:
    """Every text of a file of the corpus: those that are no statements are refused, and do no harm."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from texts_in(value)
    elif isinstance(found, list):
        for value in found:
            yield from texts_in(value)


FILES = sorted((Path(__file__).parent.parent / "guard" / "corpus").glob("*/*.yaml"))
TEXTS = sorted({*CORPUS, *(text for path in FILES for text in texts_in(read(path)))})

names = st.sampled_from(
    [
        "orders",
        "acme.orders",
        "beta.orders",
        "public.t",
        "pg_catalog.pg_class",
        '"beta".orders',
        "BETA.orders",
    ]
)
literals = st.sampled_from(
    [
        *(
            "'orders'",
            "'beta.orders'",
            "'acme.seq'",
            "'search_path'",
            "'beta'",
            "''",
            "1",
            "16384",
            "2147483648",
        ),
        *("1.5", "E'beta.orders'", "$$beta.orders$$", "U&'beta'", "'beta' '.orders'", "N'x'", "NULL", "$1"),
    ]
)
expressions = st.recursive(
    literals | st.sampled_from(["id", "o.id", "orders.note"]),
    lambda inner: st.one_of(
        st.builds(
            "{}::{}".format, inner, st.sampled_from(["regclass", "text", "int", "regnamespace", "beta.t"])
        ),
        st.builds(
            "{}({})".format,
            st.sampled_from(
                ["lower", "nextval", "to_regclass", "pg_relation_size", "f", "beta.f", "current_setting"]
            ),
            inner,
        ),
        st.builds("set_config({}, {}, false)".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("CASE WHEN a THEN {} ELSE {} END".format, inner, inner),
        st.builds("(SELECT {} FROM {})".format, inner, names),
    ),
    max_leaves=5,
)
statements = st.one_of(
    st.builds("SELECT {} FROM {} AS o WHERE o.id = {}".format, expressions, names, literals),
    st.builds("INSERT INTO {} VALUES ({}, {})".format, names, expressions, literals),
    st.builds("UPDATE {} SET note = {} WHERE id = {}".format, names, expressions, literals),
    st.builds("SET {} TO {}".format, st.sampled_from(["search_path", "app.x", "role", "work_mem"]), literals),
    st.builds(
        "DO {}".format, st.sampled_from(["'BEGIN END'", "$$ BEGIN PERFORM 1; END $$", "'DELETE FROM beta.t'"])
    ),
    st.builds("COPY (SELECT {} FROM {}) TO STDOUT".format, expressions, names),
    st.builds("{}; SELECT {}".format, st.sampled_from(["BEGIN", "COMMIT", "RESET ROLE"]), expressions),
)

SWAPS = [
    *(
        ("acme.", "beta."),
        ("beta.", "acme."),
        ("orders", "beta.orders"),
        ("'orders'", "'beta.orders'"),
        ("1", "'1'"),
    ),
    *(
        ("'", "E'"),
        ("'", "U&'"),
        ("'", "$$"),
        (" ", "/**/"),
        (" ", "\n--x\n"),
        ('"', ""),
        ("e", "E"),
        ("::text", "::regclass"),
    ),
    *(
        ("'a", "'beta.a"),
        ("''", "'"),
        ("$$", "'"),
        ("1", "2147483648"),
        ("1", "-1"),
        ("1", "1.0"),
        ("true", "NULL"),
        ("$1", "1"),
    ),
]


def twin_of(sql: str, chance: random.Random) -> str:
    for _ in range(chance.randrange(1, 4)):
        old, new = chance.choice(SWAPS)
        at = sql.find(old, chance.randrange(len(sql) + 1))
        if at < 0:
            at = sql.find(old)
        if at >= 0:
            sql = sql[:at] + new + sql[at + len(old) :]
    return sql


def check(sql: str, twin: str) -> None:
    """What is stored for one is not found for the other unless their verdicts are the same."""
    one, other = judge(sql), judge(twin)
    for verdict, text, asked, truth in ((one, sql, twin, other), (other, twin, sql, one)):
        if verdict.action is not Action.ALLOW:
            continue
        cache = VerdictCache(8)
        cache.store(1, text.encode(), int(verdict.effects), verdict.exact)
        held = cache.find(1, asked.encode())
        if held:
            assert truth.action is Action.ALLOW, (text, asked, truth)
            assert held == HIT_BIT | int(truth.effects), (text, asked)
            assert truth.exact == verdict.exact, (text, asked)


@given(statements, st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_twins_of_a_grammar(sql, chance):
    check(sql, twin_of(sql, chance))


@pytest.mark.slow
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
def test_twins_of_the_corpus(sql, chance):
    assume(len(sql) < 4000 and "\0" not in sql)
    check(sql, twin_of(sql, chance))


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@given(st.sampled_from(TEXTS) | statements, st.randoms(use_true_random=False))
@settings(max_examples=200_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_twins_for_long(sql, chance):
    assume(len(sql) < 4000 and "\0" not in sql)
    check(sql, twin_of(sql, chance))


def test_keys_that_collide_are_told_apart_by_their_bytes():
    """Thousands of keys in a table of 16 buckets: chains are full of other keys of the same bucket."""
    cache = VerdictCache(4)
    for number in range(5000):
        text = f"SELECT a{number} FROM t".encode()
        assert not cache.find(1, text)
        assert cache.store(1, text, number & 0xFF, False)
        assert cache.find(1, text) == HIT_BIT | (number & 0xFF)
        for older in range(max(0, number - 8), number + 1):
            held = cache.find(1, f"SELECT a{older} FROM t".encode())
            assert held in (0, HIT_BIT | (older & 0xFF))
            assert not cache.find(2, f"SELECT a{older} FROM t".encode())


def test_a_key_is_never_a_prefix_of_what_it_is_taken_for():
    cache = VerdictCache(64)
    cache.store(1, b"SELECT a FROM t", 1, False)
    for text in (
        b"SELECT a FROM t ",
        b"SELECT a FROM t2",
        b"SELECT a FROM ",
        b"SELECT a FROM t;",
        b"SELECT a FROM t\0",
    ):
        same = shape(text) == shape(b"SELECT a FROM t")
        assert bool(cache.find(1, text)) == same
