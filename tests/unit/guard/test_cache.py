"""The cache answers only for what was stored, whatever the texts look like, and stays within its bounds."""

from __future__ import annotations

import gc
import weakref

from tenant_proxy.guard.cache import HIT_BIT, MAX_TEXT, VerdictCache

READS, WRITES = 1, 2


def test_what_was_stored_by_shape_is_found_for_other_literals():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT * FROM t WHERE id = 1", READS, exact=False)
    assert cache.find(1, b"SELECT * FROM t  WHERE id = 234 -- later") == HIT_BIT | READS
    assert cache.find(1, b"SELECT * FROM u WHERE id = 1") == 0
    assert cache.find(1, b"SELECT * FROM t WHERE id = 'x'") == 0


def test_scopes_are_apart():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT 1", READS, exact=False)
    assert cache.find(2, b"SELECT 1") == 0


def test_an_exact_verdict_is_found_for_its_text_only():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT nextval('a')", READS | WRITES, exact=True)
    assert cache.find(1, b"SELECT nextval('a')") == HIT_BIT | READS | WRITES
    assert cache.find(1, b"SELECT nextval('b')") == 0
    assert cache.find(1, b"SELECT  nextval('a')") == 0


def test_a_text_without_a_shape_is_kept_by_itself():
    cache = VerdictCache(100)
    cache.store(1, rb"SELECT E'\n'", READS, exact=False)
    assert cache.find(1, rb"SELECT E'\n'") == HIT_BIT | READS
    assert cache.find(1, rb"SELECT E'\t'") == 0


def test_a_contradiction_allows_nothing():
    """Exact and not exact for one shape can't both be right: the judge is broken."""
    cache = VerdictCache(100)
    cache.store(1, b"SELECT f('a')", READS, exact=False)
    assert not cache.store(1, b"SELECT f('b')", READS, exact=True)
    assert cache.find(1, b"SELECT f('a')") == 0
    assert not cache.store(1, b"SELECT f('a')", READS, exact=False)
    assert cache.find(1, b"SELECT f('a')") == 0
    assert cache.stats()["conflicts"] == 2


def test_long_texts_are_not_kept():
    cache = VerdictCache(100)
    long = b"SELECT " + b"x" * MAX_TEXT
    assert not cache.store(1, long, READS, exact=False)
    assert cache.find(1, long) == 0
    just = b"SELECT " + b"x" * (MAX_TEXT - 7)
    assert cache.store(1, just, READS, exact=False)
    assert cache.find(1, just) == HIT_BIT | READS


def test_entries_are_bounded_and_those_in_use_stay():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT wanted", READS, exact=False)
    for i in range(1000):
        cache.store(1, b"SELECT c%d" % i, READS, exact=False)
        assert cache.find(1, b"SELECT wanted") == HIT_BIT | READS, i
    stats = cache.stats()
    assert stats["entries"] == 100
    assert stats["evictions"] == 901


def test_bytes_are_bounded():
    cache = VerdictCache(1000, max_bytes=50_000)
    for i in range(100):
        cache.store(1, b"SELECT %d AS " % i + b"x" * 5000 + b"%d" % i, READS, exact=False)
        assert cache.stats()["bytes"] <= 50_000
    assert 0 < cache.stats()["entries"] < 10


def test_what_does_not_fit_at_all_is_not_kept():
    cache = VerdictCache(10, max_bytes=10)
    cache.store(1, b"SELECT 1", READS, exact=False)
    assert cache.stats()["entries"] == 0


def test_forgetting_a_scope():
    cache = VerdictCache(100)
    for i in range(20):
        cache.store(i % 2, b"SELECT c%d" % i, READS, exact=i % 4 == 0)
    assert cache.forget_scope(0) == 15  # five of them with a mark
    assert cache.find(0, b"SELECT c2") == 0
    assert cache.find(1, b"SELECT c3") == HIT_BIT | READS
    cache.clear()
    assert cache.find(1, b"SELECT c3") == 0
    assert cache.stats()["entries"] == cache.stats()["bytes"] == 0


def test_storing_again_renews():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT 1", READS, exact=False, verdict="old")
    cache.store(1, b"SELECT 2", WRITES, exact=False, verdict="new")
    assert cache.find(1, b"SELECT 1") == HIT_BIT | WRITES
    assert cache.verdict(1, b"SELECT 1") == "new"
    assert cache.stats()["entries"] == 1


class Thing:
    pass


def test_verdicts_are_owned_and_let_go():
    cache = VerdictCache(4)
    thing = Thing()
    watched = weakref.ref(thing)
    cache.store(1, b"SELECT 1", READS, exact=False, verdict=thing)
    del thing
    gc.collect()
    assert isinstance(cache.verdict(1, b"SELECT 1"), Thing)
    for i in range(10):
        cache.store(1, b"SELECT c%d" % i, READS, exact=False)
    gc.collect()
    assert watched() is None
    assert cache.verdict(1, b"SELECT 1") is None

    thing = Thing()
    watched = weakref.ref(thing)
    cache.store(1, b"SELECT 1", READS, exact=False, verdict=thing)
    del thing, cache
    gc.collect()
    assert watched() is None


def test_the_hit_bit_is_never_part_of_the_effects():
    cache = VerdictCache(4)
    cache.store(1, b"SELECT 1", 0xFFFFFFFF, exact=False)
    assert cache.find(1, b"SELECT 1") == 0xFFFFFFFF
    cache.store(1, b"SELECT a", 0, exact=False)
    assert cache.find(1, b"SELECT a") == HIT_BIT


def test_edits_are_kept_with_the_verdict_and_counted():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT * FROM pg_class WHERE oid = 1", READS, False, edits=[(14, 14, b"tp_catalog.")])
    with_edits = cache.stats()["bytes"]
    assert (
        cache.rewritten(1, b"SELECT * -- \nFROM /* pg_class */ pg_class WHERE oid = 77")
        == b"SELECT * -- \nFROM /* pg_class */ tp_catalog.pg_class WHERE oid = 77"
    )
    assert cache.rewritten(2, b"SELECT * FROM pg_class WHERE oid = 1") is None
    cache.store(1, b"SELECT * FROM pg_class WHERE oid = 1", READS, False)
    assert cache.rewritten(1, b"SELECT * FROM pg_class WHERE oid = 1") is None
    assert cache.stats()["bytes"] < with_edits


def test_exact_texts_have_edits_of_their_own():
    cache = VerdictCache(100)
    cache.store(1, b"SELECT 'public.a'::regclass", READS, True, edits=[(8, 14, b"acme")])
    assert cache.rewritten(1, b"SELECT 'public.a'::regclass") == b"SELECT 'acme.a'::regclass"
    assert cache.rewritten(1, b"SELECT 'public.b'::regclass") is None


def test_edits_inside_literals_are_not_kept_by_shape():
    cache = VerdictCache(100)
    assert not cache.store(1, b"SELECT 'public.a'", READS, False, edits=[(8, 14, b"acme")])
    assert not cache.store(1, b"SELECT a /* b */", READS, False, edits=[(12, 13, b"c")])
    assert cache.find(1, b"SELECT 'public.a'") == 0
    assert cache.stats()["conflicts"] == 2
