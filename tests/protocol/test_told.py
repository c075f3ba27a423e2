"""What clients were told the rows of their statements are: where a server has one by other definitions, it
is asked first, and who would read its rows wrongly is refused."""

from __future__ import annotations

import pytest

from tests.protocol.stage import Stage
from tests.protocol.test_stale import STALE
from tests.protocol.test_statements import ANSWER, prepare
from tests.protocol.wire import (
    BOUND,
    CLOSED,
    FAILED,
    FLUSH,
    IDLE,
    NO_DATA,
    OPEN,
    PARSED,
    SYNC,
    bind,
    close,
    columns,
    complete,
    describe,
    describe_portal,
    error,
    execute,
    fatal,
    parameter_types,
    parse,
    query,
    row,
)

SQL = "SELECT * FROM t"
RUN = bind("s") + execute() + SYNC
ASKED = describe("tp_1") + FLUSH
POISON = parse("tp_refused", "tenant_proxy refused this statement")


def changes(stage: Stage, server) -> None:
    """Another client changes definitions, and takes the server."""
    other = stage.client()
    other >> query("ALTER TABLE t ADD b int")
    server << query("ALTER TABLE t ADD b int")
    server >> complete("ALTER TABLE") + IDLE
    other << complete("ALTER TABLE") + IDLE
    takes(stage, server)


def takes(stage: Stage, server) -> None:
    stage.client() >> query("BEGIN")
    server << query("BEGIN")


@pytest.fixture
def told(stage: Stage):
    """A client that knows its statement's rows to be one column, before definitions change."""
    client, server = stage.pair()
    prepare(client, server, "s", SQL, "tp_1")
    client >> describe("s") + SYNC
    server << describe("tp_1") + SYNC
    server >> parameter_types() + columns("a") + IDLE
    client << parameter_types() + columns("a") + IDLE
    changes(stage, server)
    return client


def asked(stage: Stage, client):
    """The next server, which was asked for the rows before the client's message."""
    second = stage.server()
    second << parse("tp_1", SQL) + ASKED
    client << b""
    return second


def runs(client, server, what: bytes = RUN) -> None:
    """The client's Bind goes to a server that has the statement by now."""
    server << bind("tp_1") + execute() + SYNC
    server >> ANSWER
    client << ANSWER


def refused(client, server, rest: bytes = execute()) -> None:
    """`rest`: of the client's batch, which the server skips."""
    server << POISON + rest + SYNC
    server >> error("42601") + IDLE
    client << error("0A000") + IDLE


def test_rows_that_are_the_same(stage: Stage, told):
    told >> RUN
    second = asked(stage, told)
    second >> PARSED + parameter_types() + columns("a")
    runs(told, second)
    # and that is known
    told >> RUN
    runs(told, second)


def test_rows_that_are_others(stage: Stage, told):
    told >> RUN
    second = asked(stage, told)
    second >> PARSED + parameter_types() + columns("a", "b")
    refused(told, second)
    # nobody need be asked again
    told >> RUN
    told << error("0A000") + IDLE
    second << b""
    assert second.state == "idle"
    # what is prepared from here on is another statement
    told >> close("s") + parse("s", SQL) + SYNC
    second << parse("tp_2", SQL) + SYNC
    second >> PARSED + IDLE
    told << CLOSED + PARSED + IDLE


def test_no_rows_any_more(stage: Stage, told):
    told >> RUN
    second = asked(stage, told)
    second >> PARSED + parameter_types() + NO_DATA
    refused(told, second)


def test_a_second_description(stage: Stage, told):
    told >> describe("s") + SYNC
    second = asked(stage, told)
    second >> PARSED + parameter_types() + columns("a", "b")
    refused(told, second, b"")


def test_within_a_batch_and_a_transaction(stage: Stage, told):
    """No Sync of the proxy's may end what the client has begun."""
    told >> query("BEGIN")
    second = stage.server()
    second << query("BEGIN")
    second >> complete("BEGIN") + OPEN
    told << complete("BEGIN") + OPEN
    told >> parse("", "SELECT 1") + bind("") + execute() + RUN
    second << parse("", "SELECT 1") + bind("") + execute() + parse("tp_1", SQL) + ASKED
    second >> PARSED + BOUND + row("1") + complete("SELECT 1") + PARSED + parameter_types() + columns("b")
    told << PARSED + BOUND + row("1") + complete("SELECT 1")
    second << POISON + execute() + SYNC
    second >> error("42601") + FAILED
    told << error("0A000") + FAILED


def test_a_table_that_is_gone(stage: Stage, told):
    told >> RUN
    second = asked(stage, told)
    second >> error("42P01")
    told << error("42P01")
    second << SYNC
    second >> IDLE
    told << IDLE
    assert second.statements() == 0


def test_an_error_before_it(stage: Stage, told):
    told >> parse("", "SELECT 1/0") + RUN
    second = stage.server()
    second << parse("", "SELECT 1/0") + parse("tp_1", SQL) + ASKED
    second >> error("22012")
    told << error("22012")
    second << SYNC
    second >> IDLE
    told << IDLE
    told >> RUN
    second << parse("tp_1", SQL) + ASKED
    second >> PARSED + parameter_types() + columns("a")
    runs(told, second)


def test_a_server_that_is_lost(stage: Stage, told):
    told >> RUN
    asked(stage, told).hangs_up()
    told << fatal("08006")
    assert told.end == "SERVER_LOST"


def test_who_was_told_nothing_is_not_asked_for(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "s", SQL, "tp_1")
    changes(stage, server)
    client >> RUN
    second = stage.server()
    second << parse("tp_1", SQL) + bind("tp_1") + execute() + SYNC
    second >> PARSED + ANSWER
    client << ANSWER


def test_one_that_knows_and_one_that_does_not_on_the_same_server(stage: Stage):
    """What was parsed for one by new definitions is not the other's."""
    client, server = stage.pair()
    prepare(client, server, "s", SQL, "tp_1")
    other = stage.client()
    other >> parse("s", SQL) + describe("s") + SYNC
    server << describe("tp_1") + SYNC
    server >> parameter_types() + columns("a") + IDLE
    other << PARSED + parameter_types() + columns("a") + IDLE
    changes(stage, server)
    client >> RUN
    second = stage.server()
    second << parse("tp_1", SQL) + bind("tp_1") + execute() + SYNC
    second >> PARSED + ANSWER
    client << ANSWER
    other >> RUN
    second << ASKED
    second >> parameter_types() + columns("a", "b")
    refused(other, second)
    client >> RUN
    runs(client, second)


def test_told_by_a_portal(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "s", SQL, "tp_1")
    for _ in range(2):
        client >> bind("s") + describe_portal() + execute() + SYNC
        server << bind("tp_1") + describe_portal() + execute() + SYNC
        server >> BOUND + columns("a") + row("1") + complete("SELECT 1") + IDLE
        client << BOUND + columns("a") + row("1") + complete("SELECT 1") + IDLE
    changes(stage, server)
    client >> bind("s") + describe_portal() + execute() + SYNC
    second = asked(stage, client)
    second >> PARSED + parameter_types() + columns("b")
    refused(client, second, describe_portal() + execute())


def test_a_change_that_nobody_has_told_of(stage: Stage):
    """Who knows the rows has the server's error; and from there on it is known."""
    client, server = stage.pair()
    prepare(client, server, "s", SQL, "tp_1")
    for who in (client, other := stage.client()):
        if who is other:
            other >> parse("s", SQL) + SYNC
            server << SYNC
            server >> IDLE
            other << PARSED + IDLE
        who >> describe("s") + SYNC
        server << describe("tp_1") + SYNC
        server >> parameter_types() + columns("a") + IDLE
        who << parameter_types() + columns("a") + IDLE
    whole = bind("s") + describe_portal() + execute() + SYNC
    client >> whole
    server << bind("tp_1") + describe_portal() + execute() + SYNC
    server >> STALE + IDLE
    client << STALE + IDLE
    takes(stage, server)
    other >> RUN
    second = asked(stage, other)
    second >> PARSED + parameter_types() + columns("a", "b")
    refused(other, second)


def test_rows_that_are_what_they_were_again(stage: Stage, told):
    told >> RUN
    second = asked(stage, told)
    second >> PARSED + parameter_types() + columns("b")
    refused(told, second)
    changes(stage, second)
    told >> RUN
    third = asked(stage, told)
    third >> PARSED + parameter_types() + columns("a")
    runs(told, third)


def test_a_server_asked_once_more_when_definitions_have_changed_again(stage: Stage, told):
    told >> RUN
    second = asked(stage, told)
    second >> PARSED + parameter_types() + columns("b")
    refused(told, second)
    told >> query("ALTER TABLE t RENAME b TO a")
    second << query("ALTER TABLE t RENAME b TO a")
    second >> complete("ALTER TABLE") + IDLE
    told << complete("ALTER TABLE") + IDLE
    told >> RUN
    second << close("tp_1") + parse("tp_1", SQL) + ASKED
    second >> CLOSED + PARSED + parameter_types() + columns("a")
    runs(told, second)


# --- the unnamed statement -------------------------------------------------------------


@pytest.fixture
def told_unnamed(stage: Stage):
    client, server = stage.pair()
    client >> parse("", SQL) + describe("") + SYNC
    server << parse("", SQL) + describe("") + SYNC
    server >> PARSED + parameter_types() + columns("a") + IDLE
    client << PARSED + parameter_types() + columns("a") + IDLE
    return client, server


def test_the_unnamed_statement(stage: Stage, told_unnamed):
    client, server = told_unnamed
    changes(stage, server)
    client >> bind("") + execute() + SYNC
    second = stage.server()
    second << parse("", SQL) + describe("") + FLUSH
    client << b""
    second >> PARSED + parameter_types() + columns("a")
    second << bind("") + execute() + SYNC
    second >> ANSWER
    client << ANSWER


def test_the_unnamed_statement_with_other_rows(stage: Stage, told_unnamed):
    client, server = told_unnamed
    changes(stage, server)
    client >> bind("") + execute() + SYNC
    second = stage.server()
    second << parse("", SQL) + describe("") + FLUSH
    second >> PARSED + parameter_types() + columns("b")
    refused(client, second)
    client >> bind("") + execute() + SYNC
    client << error("0A000") + IDLE
    takes(stage, second)
    client >> bind("") + execute() + SYNC
    third = stage.server()
    third << parse("", SQL) + describe("") + FLUSH
    third >> PARSED + parameter_types() + columns("a")
    third << bind("") + execute() + SYNC


def test_the_unnamed_statement_when_nothing_has_changed(stage: Stage, told_unnamed):
    client, server = told_unnamed
    takes(stage, server)
    client >> bind("") + execute() + SYNC
    stage.server() << parse("", SQL) + bind("") + execute() + SYNC
