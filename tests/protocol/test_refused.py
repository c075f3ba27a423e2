"""Statements that the guard refuses: PostgreSQL's behaviour for any statement that fails.

Alone, the proxy answers in the server's place.  With something before it under way, a statement that is
bound to fail goes to the server, and the server's error is replaced: so a transaction fails as it should,
the rest of a batch is skipped, and replies keep their order.
"""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    BOUND,
    FAILED,
    FLUSH,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    bind,
    complete,
    error,
    execute,
    fatal,
    function_call,
    notice,
    parse,
    query,
    result,
    row,
)

#: what the server hears in place of a refused statement
POISON = query("tenant_proxy refused this statement")
POISON_PARSE = parse("tp_refused", "tenant_proxy refused this statement")


def begin(client, server):
    client >> query("BEGIN")
    server << query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN


def test_alone_it_is_answered_without_a_server(stage: Stage):
    client = stage.client()
    client >> query("SELECT forbidden")
    client << error("42501") + IDLE
    assert stage.opened() == 0
    assert stage.figures()["rejected"] == 1
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")


def test_in_a_session_it_is_answered_without_the_server(stage: Stage):
    client, server = stage.session_pair()
    client >> query("SELECT forbidden")
    client << error("42501") + IDLE
    server << b""


def test_in_a_transaction_it_fails_the_transaction(stage: Stage):
    client, server = stage.pair()
    begin(client, server)
    client >> query("SELECT forbidden")
    server << POISON
    server >> error("42601") + FAILED
    client << error("42501") + FAILED
    client >> query("SELECT 1")
    server << query("SELECT 1")
    server >> error("25P02") + FAILED
    client << error("25P02") + FAILED
    client >> query("ROLLBACK")
    server << query("ROLLBACK")
    server >> complete("ROLLBACK") + IDLE
    client << complete("ROLLBACK") + IDLE
    assert server.state == "idle"


def test_between_other_queries_replies_keep_their_order(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1") + query("SELECT forbidden") + query("SELECT 2")
    server << query("SELECT 1") + POISON + query("SELECT 2")
    server >> result("1") + error("42601") + IDLE + result("2")
    client << result("1") + error("42501") + IDLE + result("2")
    assert server.state == "idle"


def test_each_refusal_replaces_its_own_error(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1/0") + query("SELECT forbidden") + query("SELECT 1/0")
    server >> error("22012") + IDLE + notice("of the poison") + error("42601") + IDLE + error("22012") + IDLE
    client << error("22012") + IDLE + notice("of the poison") + error("42501") + IDLE + error("22012") + IDLE


def test_a_refused_parse_alone_is_skipped_to_sync(stage: Stage):
    client = stage.client()
    client >> parse("", "SELECT forbidden") + bind("") + execute() + FLUSH
    client << error("42501")
    client >> query("SELECT 1") + parse("", "SELECT 1") + FLUSH
    client << b""
    client >> SYNC
    client << IDLE
    assert stage.opened() == 0
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")


def test_a_refused_parse_in_a_session_is_skipped_to_sync(stage: Stage):
    client, server = stage.session_pair()
    client >> parse("a", "SELECT forbidden") + bind("a") + execute() + SYNC
    client << error("42501") + IDLE
    server << b""
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_a_refused_parse_in_a_transaction_fails_it(stage: Stage):
    client, server = stage.pair()
    begin(client, server)
    client >> parse("", "SELECT forbidden") + bind("") + execute() + SYNC
    server.take()
    server >> error("42601") + FAILED
    client << error("42501") + FAILED


def test_a_refused_parse_in_the_middle_of_a_pipeline(stage: Stage):
    client, server = stage.session_pair()
    good = parse("", "SELECT 1") + bind("") + execute()
    bad = parse("x", "SELECT forbidden") + bind("x") + execute()
    client >> good + bad + good + SYNC + good + SYNC
    server << good + POISON_PARSE + bind("x") + execute() + good + SYNC + good + SYNC
    done = PARSED + BOUND + row("1") + complete("SELECT 1")
    server >> done + error("42601") + IDLE + done + IDLE
    client << done + error("42501") + IDLE + done + IDLE


def test_a_refused_parse_behind_an_error_is_not_heard_of(stage: Stage):
    """The server skips it, as it skips everything up to Sync."""
    client, server = stage.session_pair()
    client >> parse("", "SELEC") + parse("", "SELECT forbidden") + SYNC
    server << parse("", "SELEC") + POISON_PARSE + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE


def test_the_clients_message_behind_a_refusal_come_through(stage: Stage):
    """With a server in hand the rest is skipped by the server itself."""
    client, server = stage.pair()
    begin(client, server)
    client >> parse("", "SELECT forbidden") + FLUSH
    server << POISON_PARSE + FLUSH
    server >> error("42601")
    client << error("42501")
    client >> bind("") + execute() + SYNC
    server << SYNC
    server >> FAILED
    client << FAILED


def test_a_refused_function_call(stage: Stage):
    client = stage.client()
    client >> function_call(13, b"a")
    client << error("42501") + IDLE
    assert stage.opened() == 0


def test_a_refused_function_call_in_a_transaction(stage: Stage):
    client, server = stage.pair()
    begin(client, server)
    client >> function_call(13, b"a")
    server << POISON
    server >> error("42601") + FAILED
    client << error("42501") + FAILED


@pytest.mark.parametrize("make", [query, lambda sql: parse("", sql)], ids=["query", "parse"])
@pytest.mark.parametrize("how", ["at once", "in pieces"])
def test_a_statement_too_large_to_be_judged(stage: Stage, make, how):
    client = stage.client()
    said = make("SELECT '" + "x" * 2_000_000 + "'") + SYNC
    for piece in [said] if how == "at once" else [said[:5], said[5:100_000], said[100_000:]]:
        client >> piece
    client << error("54000") + IDLE + (IDLE if make is query else b"")
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")


def test_a_statement_too_large_in_a_transaction_fails_it(stage: Stage):
    client, server = stage.pair()
    begin(client, server)
    client >> query("SELECT '" + "x" * 2_000_000 + "'")
    server << POISON
    server >> error("42601") + FAILED
    client << error("54000") + FAILED


def test_a_server_that_says_goodbye_instead(stage: Stage):
    """FATAL in answer to what stands in for a refused statement: the client is told of the end."""
    client, server = stage.pair()
    begin(client, server)
    client >> query("SELECT forbidden")
    server >> fatal("57P01")
    server.hangs_up()
    client << error("42501") + fatal("08006")
    assert client.ended
