"""Judge processes: turns, limits, and what becomes of a statement whose process dies."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenant_proxy.judge_process import LARGE_BYTES, dump, load
from tenant_proxy.model import Action, Edit, Effect, Verdict
from tenant_proxy.relay import judges as module
from tests.unit.guard.scope import ACME, judge, scope
from tests.unit.relay.offering import Engine

ALLOWED = b"SELECT 1, " + b"a, " * 3000 + b"b FROM orders"
REFUSED = b"SELECT 1, " + b"a, " * 3000 + b"b FROM beta.orders"
BETA = dataclasses.replace(scope(schema="beta", login="beta_app"), id=3)


@pytest.fixture
def engine() -> Iterator[Engine]:
    found = Engine()
    yield found
    found.judges.close()


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1", "SELECT * FROM beta.orders", "SET app.x = 1", "DEALLOCATE a", "LISTEN a", "SELECT é FROM €"],
)
def test_a_verdict_survives_the_way(sql):
    assert load(dump(judge(sql))) == judge(sql)


def test_every_field_of_a_verdict_survives():
    whole = Verdict(
        Action.ESCALATE,
        Effect.READS | Effect.MULTI,
        True,
        "42501",
        "message",
        "detail",
        "hint",
        3,
        "reason",
        "name",
        "rule",
        ("a", "b"),
        ("c",),
        "listen",
        (Edit(1, 2, "x"), Edit(4, 5, "é")),
        ((1, "class"), (2, "setting")),
        ("d",),
    )
    assert load(dump(whole)) == whole
    assert load(dump(whole)).edits[0].text == "x"


async def test_a_tenant_has_one_process(engine):
    for client in (1, 2, 3):
        engine.say(client, ALLOWED)
    engine.say(4, ALLOWED, dataclasses.replace(ACME, tenant="beta", id=2))
    assert engine.judges.state() == {"processes": 2, "waiting": 2, "judged": 0, "failed": 0}
    await engine.all_answered()


async def test_verdicts_are_those_of_the_judge(engine):
    engine.say(1, ALLOWED)
    engine.say(2, REFUSED)
    engine.say(3, REFUSED, BETA)
    await engine.all_answered()
    assert engine.verdicts[1] == judge(ALLOWED)
    assert engine.verdicts[2] == judge(REFUSED)
    assert engine.verdicts[2].message == "permission denied for schema beta"
    assert engine.verdicts[3].action is Action.ALLOW
    assert engine.judges.state() == {"processes": 1, "waiting": 0, "judged": 3, "failed": 0}


async def test_a_text_is_read_in_the_client_s_encoding(engine):
    sql = b"SELECT '\xe9' FROM orders" + b" " * 5000
    engine.say(1, sql, dataclasses.replace(scope(client_encoding="LATIN1"), id=4))
    engine.say(2, sql)
    await engine.all_answered()
    assert engine.verdicts[1].action is Action.ALLOW
    assert engine.verdicts[2].sqlstate == "22021"


async def test_tenants_have_turns(engine, monkeypatch):
    """Ten statements of one tenant are not all before the one of another."""
    monkeypatch.setattr(module, "PROCESSES", 1)
    for client in range(1, 11):
        engine.say(client, ALLOWED)
    engine.say(11, ALLOWED, dataclasses.replace(ACME, tenant="beta", id=2))
    await engine.all_answered()
    assert engine.order == [1, 2, 11, *range(3, 11)]


async def test_one_that_does_not_come_when_called_holds_up_nobody(engine):
    for client in (1, 2, 3):
        engine.say(client, ALLOWED)
    engine.deaf.add(2)
    await engine.all_answered()
    assert set(engine.verdicts) == {1, 3}
    engine.deaf.clear()
    engine.wake(2)
    await engine.all_answered()
    assert engine.verdicts[2].action is Action.ALLOW


async def test_a_client_leaves(engine):
    for client in (1, 2, 3):
        engine.say(client, ALLOWED)
    for client in (1, 2):
        del engine.offers[client]
        engine.judges.forget(client)
    await engine.all_answered()
    assert set(engine.verdicts) == {3}


async def test_a_cancel_request(engine):
    for client in (1, 2):
        engine.say(client, ALLOWED)
        engine.judges.cancel(client)
    assert [engine.verdicts[client].sqlstate for client in (1, 2)] == ["57014", "57014"]
    engine.say(3, ALLOWED)
    await engine.all_answered()
    assert engine.verdicts[3].action is Action.ALLOW


async def test_what_takes_too_long_is_refused_and_its_process_replaced(engine, monkeypatch):
    monkeypatch.setattr(module, "TIME_LIMIT_S", 0.001)
    engine.say(1, ALLOWED)
    await engine.all_answered()
    assert engine.verdicts[1].sqlstate == "54001"
    assert engine.judges.state() == {"processes": 0, "waiting": 0, "judged": 1, "failed": 1}
    monkeypatch.setattr(module, "TIME_LIMIT_S", 20)
    engine.say(2, ALLOWED)
    await engine.all_answered()
    assert engine.verdicts[2].action is Action.ALLOW


async def test_what_waits_too_long_is_refused(engine, monkeypatch):
    monkeypatch.setattr(module, "WAIT_LIMIT_S", 0)
    engine.say(1, ALLOWED)
    engine.say(2, ALLOWED)
    await engine.all_answered()
    assert engine.verdicts[1].action is Action.ALLOW
    assert engine.verdicts[2].message == "statement could not be checked in time"


async def test_a_process_that_dies_takes_one_statement_with_it(engine):
    engine.say(1, ALLOWED)
    engine.say(2, ALLOWED)
    os.kill(engine.judges._processes[0].child.pid, signal.SIGKILL)
    await engine.all_answered()
    assert engine.verdicts[1].sqlstate == "54001"
    assert engine.verdicts[2].action is Action.ALLOW


async def test_an_idle_process_ends(engine, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    engine.say(1, ALLOWED)
    await engine.all_answered()
    async with asyncio.timeout(10):
        while engine.judges.state()["processes"]:
            await asyncio.sleep(0.01)


async def test_processes_that_can_not_be_started(engine, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr("subprocess.Popen", fail)
    engine.say(1, ALLOWED)
    assert engine.verdicts[1].sqlstate == "53000"


async def test_memory_is_bounded_and_given_back(engine):
    """A text of 1.6 MB whose tree takes some 200: refused, and what is left is small or gone."""
    engine.say(1, b"SELECT " + b"1+1," * 400_000 + b"1")
    await engine.all_answered()
    assert engine.verdicts[1].sqlstate == "54000"
    for process in engine.judges._processes:
        pages = int(Path(f"/proc/{process.child.pid}/statm").read_text().split()[1])
        assert pages * 4096 <= LARGE_BYTES


async def test_who_is_no_client_has_turns_as_well(engine):
    """A tenant's code, whose scopes have no number of their own."""
    acme, beta = dataclasses.replace(ACME, id=0), dataclasses.replace(BETA, id=0)
    first, second, third = await asyncio.gather(
        engine.judges.verdict(acme, REFUSED),
        engine.judges.verdict(acme, ALLOWED),
        engine.judges.verdict(beta, REFUSED),
    )
    assert (first.action, first.reason) == (Action.REJECT, "cross_schema")
    assert (second.action, third.action) == (Action.ALLOW, Action.ALLOW)
    assert engine.judges.state()["waiting"] == 0
