"""Simple queries: one statement, several, errors, large answers."""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    EMPTY,
    FAILED,
    FLUSH,
    IDLE,
    OPEN,
    SYNC,
    columns,
    complete,
    error,
    query,
    result,
    row,
)


def test_a_query_and_its_answer(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server << query("SELECT 1")
    server >> result("1")
    client << result("1")
    assert (client.state, server.state) == ("idle", "idle")


def test_a_server_is_opened_for_the_first_query(stage: Stage):
    client = stage.client()
    assert stage.opened() == 0
    client >> query("SELECT 1")
    server = stage.server()
    server << query("SELECT 1")
    server >> result("1")
    client << result("1")


def test_the_answer_is_passed_on_as_it_comes(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT n FROM t")
    server >> columns("n") + row("1")
    client << columns("n") + row("1")
    server >> row("2")
    client << row("2")
    server >> complete("SELECT 2") + IDLE
    client << complete("SELECT 2") + IDLE


def test_several_statements_in_one_query(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1; UPDATE t SET a = 1; SELECT 2")
    answer = columns("a") + row("1") + complete("SELECT 1") + complete("UPDATE 3") + columns("a") + row("2")
    server >> answer + complete("SELECT 1") + IDLE
    client << answer + complete("SELECT 1") + IDLE
    assert server.state == "idle"


def test_an_empty_query(stage: Stage):
    client, server = stage.pair()
    client >> query("")
    server << query("")
    server >> EMPTY + IDLE
    client << EMPTY + IDLE


def test_an_error_and_on_it_goes(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1/0")
    server >> error("22012") + IDLE
    client << error("22012") + IDLE
    assert server.state == "idle"
    client >> query("SELECT 1")
    server << query("SELECT 1/0") + query("SELECT 1")
    server >> result("1")
    client << result("1")


def test_an_error_behind_rows(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1/n FROM t")
    server >> columns("n") + row("1") + error("22012") + IDLE
    client << columns("n") + row("1") + error("22012") + IDLE


def test_queries_sent_without_waiting_are_answered_in_order(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1") + query("SELECT 2") + query("SELECT 3")
    server << query("SELECT 1") + query("SELECT 2") + query("SELECT 3")
    server >> result("1") + error("22012") + IDLE
    client << result("1") + error("22012") + IDLE
    assert server.state == "active"
    server >> result("3")
    client << result("3")
    assert server.state == "idle"


def test_a_transaction_keeps_its_server(stage: Stage):
    client, server = stage.pair()
    other = stage.client()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    other >> query("SELECT 2")
    second = stage.server()
    second << query("SELECT 2")
    client >> query("SELECT 1")
    server << query("BEGIN") + query("SELECT 1")
    server >> result("1", status=OPEN)
    client << result("1", status=OPEN)
    assert server.state == "active"
    client >> query("COMMIT")
    server >> complete("COMMIT") + IDLE
    client << complete("COMMIT") + IDLE
    assert server.state == "idle"


def test_a_failed_transaction_keeps_its_server_until_it_is_rolled_back(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN; SELECT 1/0")
    server >> complete("BEGIN") + error("22012") + FAILED
    client << complete("BEGIN") + error("22012") + FAILED
    assert (client.state, server.state) == ("active", "active")
    client >> query("ROLLBACK")
    server >> complete("ROLLBACK") + IDLE
    client << complete("ROLLBACK") + IDLE
    assert (client.state, server.state) == ("idle", "idle")


def test_a_session_keeps_its_server(stage: Stage):
    client, server = stage.session_pair()
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")
    assert (client.state, server.state) == ("active", "active")


@pytest.mark.parametrize("size", [100, 8_192, 131_072, 1_000_000])
def test_a_long_statement(stage: Stage, size: int):
    client, server = stage.pair()
    client >> query("SELECT '" + "x" * size + "'")
    server << query("SELECT '" + "x" * size + "'")
    server >> result("x" * size)
    client << result("x" * size)


def test_a_row_larger_than_every_buffer(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT repeat('x', 10000000)")
    server >> result("x" * 10_000_000)
    client << result("x" * 10_000_000)
    assert server.state == "idle"


def test_sync_and_flush_without_a_server_need_none(stage: Stage):
    client = stage.client()
    client >> FLUSH + SYNC + FLUSH
    client << IDLE
    assert stage.opened() == 0


def test_one_byte_at_a_time(stage: Stage):
    client, server = stage.pair()
    for byte in query("SELECT 1"):
        client >> bytes([byte])
    server << query("SELECT 1")
    for byte in result("1"):
        server >> bytes([byte])
    client << result("1")
    assert server.state == "idle"
