"""Plans that a server finds outdated: the batch is asked again, where nothing of it has run and its client is
told in it what the rows are."""

from __future__ import annotations

import struct

import pytest

from tenant_proxy.wire.messages import message
from tests.protocol.stage import Stage
from tests.protocol.test_statements import prepare
from tests.protocol.wire import (
    BOUND,
    CLOSED,
    FLUSH,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    bind,
    close,
    columns,
    complete,
    describe,
    describe_portal,
    execute,
    parameter_types,
    parse,
    query,
    row,
    text,
)


def refusal(routine: str) -> bytes:
    """feature_not_supported, and the function of the server's that says it."""
    fields = {"S": "ERROR", "V": "ERROR", "C": "0A000", "M": "cached plan must not …", "R": routine}
    return message(b"E", b"".join(text(key + value) for key, value in fields.items()) + b"\0")


SQL = "SELECT * FROM t"
STALE = refusal("RevalidateCachedQuery")
BATCH = bind("tp_1") + describe_portal() + execute() + SYNC
MINE = bind("s") + describe_portal() + execute() + SYNC
ANEW = close("tp_1") + parse("tp_1", SQL)
ROWS = BOUND + columns("a", "b") + row("1", "2") + complete("SELECT 1") + IDLE


@pytest.fixture
def pair(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "s", SQL, "tp_1")
    return client, server


def test_a_batch_is_asked_again(pair):
    client, server = pair
    client >> MINE
    server << BATCH
    server >> STALE
    server << ANEW + BATCH
    server >> IDLE + CLOSED + PARSED + ROWS
    client << ROWS
    # and is the pool's again
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_once(pair):
    client, server = pair
    client >> MINE
    server << BATCH
    server >> STALE + IDLE
    server << ANEW + BATCH
    server >> CLOSED + PARSED + STALE + IDLE
    client << STALE + IDLE


def test_the_statement_that_another_client_has_made(stage: Stage, pair):
    """Its Parse was answered by the proxy, so it should never hear of a plan of before."""
    _, server = pair
    other = stage.client()
    other >> parse("mine", SQL) + bind("mine") + describe_portal() + execute() + SYNC
    server << BATCH
    server >> STALE
    other << PARSED
    server << ANEW + BATCH
    server >> IDLE + CLOSED + PARSED + ROWS
    other << ROWS


@pytest.mark.parametrize("end", [SYNC, FLUSH], ids=["sync", "flush"])
def test_a_description(stage: Stage, pair, end):
    """The server describes parameters before it looks at the plan."""
    _, server = pair
    other = stage.client()
    other >> parse("mine", SQL) + describe("mine") + end
    server << describe("tp_1") + end
    other << PARSED
    server >> parameter_types(23)
    other << b""
    server >> STALE
    other << b""
    server << (b"" if end == SYNC else SYNC) + ANEW + describe("tp_1") + end
    server >> IDLE + CLOSED + PARSED + parameter_types(25) + columns("a", "b")
    other << parameter_types(25) + columns("a", "b")
    if end == FLUSH:
        other >> SYNC
        server << SYNC
    server >> IDLE
    other << IDLE


def test_a_description_that_holds(pair):
    client, server = pair
    client >> describe("s") + SYNC
    server << describe("tp_1") + SYNC
    server >> parameter_types(23)
    server >> columns("a") + IDLE
    client << parameter_types(23) + columns("a") + IDLE


# --- where it is the client's to deal with --------------------------------------------


def test_a_client_that_is_not_told_what_the_rows_are(pair):
    client, server = pair
    client >> bind("s") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC
    server >> STALE + IDLE
    client << STALE + IDLE


def test_a_format_for_each_column(pair):
    """There may be more columns now."""
    client, server = pair
    formats = struct.pack("!HHHhh", 0, 0, 2, 0, 1)
    client >> message(b"B", text("") + text("s") + formats) + describe_portal() + execute() + SYNC
    server.take()
    server >> STALE + IDLE
    client << STALE + IDLE


def test_a_transaction(pair):
    client, server = pair
    client >> query("BEGIN; SELECT 1")
    server.take()
    server >> complete("BEGIN") + complete("SELECT 1") + OPEN
    client << complete("BEGIN") + complete("SELECT 1") + OPEN
    client >> MINE
    server << BATCH
    server >> STALE + message(b"Z", b"E")
    client << STALE + message(b"Z", b"E")


@pytest.mark.parametrize("behind", [MINE, query("SELECT 1")], ids=["batch", "query"])
@pytest.mark.parametrize("at_once", [True, False])
def test_something_is_behind_it(pair, behind, at_once):
    """It would run first."""
    client, server = pair
    if at_once:
        client >> MINE + behind
    else:
        client >> MINE
        client >> behind
    server.take()
    server >> STALE + IDLE
    client << STALE + IDLE


def test_something_is_before_it(pair):
    client, server = pair
    client >> parse("", "SELECT 1") + bind("") + execute() + MINE
    server.take()
    server >> PARSED + BOUND + row("1") + complete("SELECT 1") + STALE + IDLE
    client << PARSED + BOUND + row("1") + complete("SELECT 1") + STALE + IDLE


def test_something_before_it_was_answered(pair):
    """What has run in the batch was undone with it."""
    client, server = pair
    client >> parse("", "INSERT INTO t VALUES (1)") + bind("") + execute() + FLUSH
    server.take()
    server >> PARSED + BOUND + complete("INSERT 0 1")
    client << PARSED + BOUND + complete("INSERT 0 1")
    client >> parse("mine", SQL) + bind("mine") + describe_portal() + execute() + SYNC
    server << BATCH
    server >> STALE + IDLE
    client << PARSED + STALE + IDLE


def test_another_error(pair):
    client, server = pair
    client >> MINE
    server << BATCH
    server >> refusal("transformColumnRef") + IDLE
    client << refusal("transformColumnRef") + IDLE
