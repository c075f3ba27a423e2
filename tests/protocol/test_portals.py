"""The unnamed portal that a failed simple Query leaves behind: PostgreSQL must not be asked to run it."""

from __future__ import annotations

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    BOUND,
    COPY_IN,
    FAILED,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    bind,
    complete,
    copy_data,
    error,
    execute,
    parse,
    query,
    row,
)

RUN = execute() + SYNC
POISON = parse("tp_refused", "tenant_proxy refused this statement")


def said(client, server, message: bytes, answer: bytes) -> None:
    client >> message
    server << message
    server >> answer
    client << answer


@pytest.fixture(params=["transaction", "session"])
def failed(request: pytest.FixtureRequest, stage: Stage):
    """In a transaction block that a simple Query has failed."""
    client, server = stage.pair() if request.param == "transaction" else stage.session_pair()
    said(client, server, query("BEGIN"), complete("BEGIN") + OPEN)
    said(client, server, query("EXECUTE q"), error("26000") + FAILED)
    return client, server


def refused(client, server) -> None:
    client >> RUN
    server << POISON + SYNC
    server >> error("25P02") + FAILED
    client << error("25P02") + FAILED


def test_it_is_not_run(failed):
    client, server = failed
    for message in (query("SELECT 1"), parse("a", "SELECT 1") + SYNC):
        client >> message
        server.take()
        server >> error("25P02") + FAILED
        client << error("25P02") + FAILED
        refused(client, server)
    said(client, server, query("ROLLBACK"), complete("ROLLBACK") + IDLE)


def test_the_end_of_the_transaction_is_run(failed):
    client, server = failed
    end = parse("", "ROLLBACK") + bind("") + RUN
    said(client, server, end, PARSED + BOUND + complete("ROLLBACK") + IDLE)
    if server.state == "active":
        # of a client that keeps it; the server says that there is no portal
        said(client, server, RUN, error("34000") + IDLE)


def test_a_bind_that_is_skipped_is_none(failed):
    client, server = failed
    said(client, server, parse("", "SELECT 1") + bind("") + RUN, error("25P02") + FAILED)
    refused(client, server)


def test_a_bind_of_another_portal_is_none(failed):
    client, server = failed
    client >> parse("", "ROLLBACK") + bind("", portal="p") + execute() + SYNC
    server << parse("", "ROLLBACK") + bind("", portal="p") + POISON + SYNC


def test_what_fails_otherwise_leaves_no_such_portal(stage: Stage):
    client, server = stage.pair()
    said(client, server, query("BEGIN"), complete("BEGIN") + OPEN)
    said(client, server, parse("", "SELECT x") + SYNC, error("42703") + FAILED)
    said(client, server, RUN, error("34000") + FAILED)


def test_a_portal_that_is_read_on(stage: Stage):
    client, server = stage.pair()
    said(client, server, query("BEGIN"), complete("BEGIN") + OPEN)
    first = parse("", "SELECT 1") + bind("") + execute(rows=1) + SYNC
    said(client, server, first, PARSED + BOUND + row("1") + b"s\0\0\0\4" + OPEN)
    said(client, server, RUN, row("2") + complete("SELECT 1") + OPEN)


def test_while_it_is_not_known_how_a_query_ends(stage: Stage):
    client, server = stage.pair()
    said(client, server, query("BEGIN"), complete("BEGIN") + OPEN)
    client >> query("EXECUTE q") + RUN
    server << query("EXECUTE q")
    server >> error("26000") + FAILED
    server << POISON + SYNC
    server >> error("25P02") + FAILED
    client << error("26000") + FAILED + error("25P02") + FAILED


def test_a_bind_before_the_query_is_none(stage: Stage):
    client, server = stage.pair()
    said(client, server, query("BEGIN"), complete("BEGIN") + OPEN)
    client >> parse("", "SELECT 1") + bind("") + query("EXECUTE q") + RUN
    server << parse("", "SELECT 1") + bind("") + query("EXECUTE q")
    server >> PARSED + BOUND + error("26000") + FAILED
    server << POISON + SYNC


def test_while_a_copy_may_have_failed(stage: Stage):
    """By data that are ahead of it, which nobody knows yet."""
    client, server = stage.pair()
    said(client, server, query("BEGIN"), complete("BEGIN") + OPEN)
    said(client, server, query("COPY t FROM STDIN"), COPY_IN)
    client >> copy_data(b"bad\n") + query("SELECT f(x)") + RUN
    server << copy_data(b"bad\n") + query("tenant_proxy refused this statement") + POISON + SYNC
    server >> error("22P02") + FAILED + error("25P02") + FAILED + error("42601") + FAILED
    client << error("22P02") + FAILED + error("08P01") + FAILED + error("08P01") + FAILED
