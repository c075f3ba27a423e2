"""Verdicts on texts that took a judge process."""

from __future__ import annotations

from tenant_proxy.model import Action, Edit, Effect, Verdict
from tenant_proxy.relay.long_texts import LongTexts, digest

VERDICT = Verdict(Action.ALLOW, Effect.READS, exact=True, edits=(Edit(0, 1, "x"),), bound=((1, "class"),))


def test_what_is_kept_is_found_again_without_its_edits():
    texts = LongTexts()
    texts.keep("acme", 1, digest(b"a"), VERDICT)
    found = texts.of("acme", 1, b"a")
    assert found is not None
    assert (found.bound, found.edits) == (VERDICT.bound, ())
    assert texts.of("acme", 2, b"a") is None
    assert texts.of("beta", 1, b"a") is None
    assert texts.of("acme", 1, b"b") is None


def test_who_has_most_loses_first_and_what_is_unused_goes():
    texts = LongTexts(max_bytes=4 * 1024 + 4 * 128)
    texts.keep("beta", 1, digest(b"beta"), VERDICT)
    for text in (b"0", b"1", b"2"):
        texts.keep("acme", 1, digest(text), VERDICT)
    assert texts.of("acme", 1, b"0") is not None
    texts.keep("acme", 1, digest(b"3"), VERDICT)
    assert texts.of("acme", 1, b"1") is None
    assert texts.of("acme", 1, b"0") is not None
    assert texts.of("beta", 1, b"beta") is not None


def test_what_is_too_large_for_all_is_not_kept():
    texts = LongTexts(max_bytes=2000)
    texts.keep("acme", 1, digest(b"a"), VERDICT)
    texts.keep("acme", 1, digest(b"b"), VERDICT)
    texts.keep(
        "acme", 1, digest(b"c"), Verdict(Action.ALLOW, Effect.READS, exact=True, bound=((1, "class"),) * 20)
    )
    assert all(texts.of("acme", 1, text) is None for text in (b"a", b"b", b"c"))
    texts.keep("acme", 1, digest(b"a"), VERDICT)
    assert texts.of("acme", 1, b"a") is not None
