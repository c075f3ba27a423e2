"""Statements that are judged outside of the loop: their client waits, in order, and nobody else does.

A statement with "long" in it waits until a test gives the verdict (`judged`).
"""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    FAILED,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    complete,
    error,
    parse,
    query,
    result,
)

POISON = query("tenant_proxy refused this statement")


def judged(stage: Stage, client, refusal: bytes | None = None) -> None:
    stage.hooks.verdicts[client.id] = refusal
    stage.engine.client_judged(client.id)
    stage.engine.poke()
    stage.work()


def test_its_client_waits_and_others_go_on(stage: Stage):
    client, other = stage.client(), stage.client()
    client >> query("SELECT long")
    assert stage.hooks.waiting == [client.id]
    assert stage.opened() == 0
    other >> query("SELECT 1")
    server = stage.server()
    server << query("SELECT 1")
    server >> result("1")
    other << result("1")
    judged(stage, client)
    server << query("SELECT long")
    server >> result("2")
    client << result("2")
    assert stage.hooks.dealt_with == [client.id]


def test_what_comes_behind_waits_too(stage: Stage):
    client = stage.client()
    client >> query("SELECT long") + query("SELECT 2")
    client >> query("SELECT 3")
    assert stage.hooks.judged == ["SELECT long"]
    judged(stage, client)
    server = stage.server()
    server << query("SELECT long") + query("SELECT 2") + query("SELECT 3")


def test_what_went_before_is_answered_meanwhile(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1") + query("SELECT long")
    server << query("SELECT 1")
    server >> result("1")
    client << result("1")
    assert server.state == "idle"
    client << b""
    judged(stage, client)
    server << query("SELECT long")


def test_a_refusal_alone(stage: Stage):
    client = stage.client()
    client >> query("SELECT long")
    judged(stage, client, error("54001"))
    client << error("54001") + IDLE
    assert stage.opened() == 0
    assert stage.figures()["rejected"] == 1


def test_a_refusal_in_a_transaction_fails_it(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN")
    server << query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    client >> query("SELECT long")
    server << b""
    judged(stage, client, error("54001"))
    server << POISON
    server >> error("42601") + FAILED
    client << error("54001") + FAILED


def test_in_the_extended_protocol(stage: Stage):
    client = stage.client()
    client >> parse("", "SELECT long") + SYNC
    assert stage.opened() == 0
    judged(stage, client)
    server = stage.server()
    server << parse("", "SELECT long") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE


def test_a_refused_parse_skips_to_sync(stage: Stage):
    client = stage.client()
    client >> parse("a", "SELECT long") + parse("b", "SELECT 2") + SYNC
    judged(stage, client, error("54001"))
    client << error("54001") + IDLE
    assert stage.hooks.judged == ["SELECT long", "SELECT long"]


def test_an_error_before_it_skips_it(stage: Stage):
    """It is offered again when its batch has failed: it is dropped, and its verdict with it."""
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + parse("", "SELECT long") + SYNC
    server << parse("", "SELECT 1")
    server >> error("42P01")
    client << error("42P01")
    judged(stage, client)
    server << SYNC
    server >> IDLE
    client << IDLE
    assert stage.hooks.dealt_with == [client.id]
    client >> query("SELECT 2")
    server << query("SELECT 2")


def test_a_verdict_is_kept_while_there_is_no_server(stage: Stage):
    pool = stage.pool(max=1)
    busy, client = stage.client(pool=pool), stage.client(pool=pool)
    busy >> query("SELECT 1")
    server = stage.server()
    server << query("SELECT 1")
    client >> query("SELECT long")
    judged(stage, client)
    assert stage.hooks.dealt_with == []
    server >> result("1")
    busy << result("1")
    server << query("SELECT long")
    assert stage.hooks.dealt_with == [client.id]


def test_its_client_leaves(stage: Stage):
    client = stage.client()
    client >> query("SELECT long")
    client.hangs_up()
    stage.sweep()
    assert stage.hooks.clients_gone == [(client.id, "GONE")]
    judged(stage, client)
    assert stage.opened() == 0


def test_a_cancel_request_is_for_it(stage: Stage):
    client = stage.client()
    client >> query("SELECT long")
    assert stage.engine.find_cancel(*client.key) is None
    assert stage.hooks.canceled == [client.id]


def test_a_cancel_request_is_for_what_runs_before_it(stage: Stage):
    client, _ = stage.pair()
    client >> query("SELECT 1") + query("SELECT long")
    assert stage.engine.find_cancel(*client.key)
    assert stage.hooks.canceled == []


def test_a_drain_waits_for_it(stage: Stage):
    client = stage.client()
    client >> query("SELECT long")
    assert stage.engine.end_idle_clients(14, b"") == 1
    judged(stage, client)
    assert stage.opened() == 1


@pytest.mark.parametrize("bytes_each", [1, 7])
def test_in_pieces(stage: Stage, bytes_each):
    client = stage.client()
    text = query("SELECT long") + query("SELECT 2")
    for at in range(0, len(text), bytes_each):
        client >> text[at : at + bytes_each]
    judged(stage, client)
    stage.server() << query("SELECT long") + query("SELECT 2")


def test_a_text_of_many_kilobytes_is_given_once(stage: Stage):
    """Copying megabytes takes its time, too."""
    client = stage.client()
    text = "SELECT long " + "x" * 20_000
    client >> query(text)
    judged(stage, client)
    assert stage.hooks.judged == [text]
    assert client.id in stage.hooks.asked_again
    stage.server() << query(text)


def test_a_text_of_many_kilobytes_whose_turn_has_come_is_given_again(stage: Stage):
    client = stage.client()
    text = "SELECT long " + "x" * 20_000
    client >> query(text)
    stage.engine.client_judged(client.id)
    stage.engine.poke()
    stage.work()
    assert stage.hooks.judged == [text, text]
    judged(stage, client)
    stage.server() << query(text)
