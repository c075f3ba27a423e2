"""refused.yaml and allowed.yaml: statements and what the guard must say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenant_proxy.guard.cache import HIT_BIT, VerdictCache
from tenant_proxy.model import Action, Effect
from tests.guard.corpus_files import read
from tests.unit.guard.scope import judge

HERE = Path(__file__).parent


def corpus(name: str) -> list[Any]:
    """One parameter a statement, with its group."""
    groups = read(HERE / name)
    return [
        pytest.param(sql, group, id=f"{name[0]}{number}.{index}")
        for number, group in enumerate(groups)
        for index, sql in enumerate(group["sql"])
    ]


@pytest.mark.parametrize(("sql", "group"), corpus("refused.yaml"))
def test_refused(sql, group):
    verdict = judge(sql)
    assert verdict.action is Action.REJECT, f"{group['what']}: {sql}"
    assert verdict.reason == group["reason"], (sql, verdict)
    assert verdict.message
    assert not verdict.message[0].isupper()
    if verdict.sqlstate == "42501":
        assert verdict.hint
        assert verdict.detail
    if verdict.position:
        assert verdict.position <= len(sql) + 1


@pytest.mark.parametrize(("sql", "group"), corpus("allowed.yaml"))
def test_allowed(sql, group):
    verdict = judge(sql)
    assert verdict.action is Action.ALLOW, (sql, verdict)
    if group["what"].startswith("introspection"):
        return
    assert verdict.pin_reason == group.get("pins", ""), sql
    wanted = Effect(0)
    for name in group.get("effects", ()):
        wanted |= Effect[name]
    if group.get("pins") == "listen":
        wanted |= Effect.LISTENS
    elif group.get("pins"):
        wanted |= Effect.PINS
    # which backends it may run on is tested in tests/unit/guard/test_judge.py
    ignored = Effect.READS | Effect.WRITES | Effect.ESCALATES | Effect.UNPROVEN | Effect.COPIES
    ignored |= (
        Effect.BEGINS | Effect.STARTS | Effect.COMMITS | Effect.ROLLS_BACK | Effect.EXECUTES | Effect.RESETS
    )
    ignored |= Effect.CHANNELS
    # … and what takes room there, too
    ignored |= Effect.GROWS | Effect.KEEPS | Effect.LAST
    if Effect.DDL not in wanted:
        ignored |= Effect.DDL
    if Effect.MULTI in wanted:
        ignored |= ~Effect.MULTI
    assert verdict.effects & ~ignored == wanted, sql


def test_a_cache_filled_with_all_that_is_allowed_has_nothing_that_is_refused():
    cache = VerdictCache(10_000)
    for parameter in corpus("allowed.yaml"):
        sql = parameter.values[0]
        verdict = judge(sql)
        cache.store(1, sql.encode(), int(verdict.effects), verdict.exact)
    assert cache.stats()["conflicts"] == 0
    for parameter in corpus("allowed.yaml"):
        assert cache.find(1, parameter.values[0].encode()) & HIT_BIT
    for parameter in corpus("refused.yaml"):
        assert not cache.find(1, parameter.values[0].encode()), parameter.values[0]
