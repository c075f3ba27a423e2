"""Slow readers hold back who writes to them, and nobody else; buffers stay bounded."""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    COPY_IN,
    COPY_OUT,
    IDLE,
    SYNC,
    TERMINATE,
    columns,
    complete,
    copy_data,
    error,
    fatal,
    query,
    result,
    row,
)

ROWS = row("x" * 10_000) * 300
ROW = copy_data(b"x" * 10_000)
COPY = ROW * 300


def test_a_client_that_does_not_read_holds_back_its_server(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT much")
    server >> columns("a") + ROWS + complete("SELECT 300") + IDLE
    assert server.is_held_back()
    client << columns("a") + ROWS + complete("SELECT 300") + IDLE
    assert not server.is_held_back()
    assert server.state == "idle"


def test_others_are_served_meanwhile(stage: Stage):
    slow, server = stage.pair()
    slow >> query("SELECT much")
    server >> columns("a") + ROWS
    client = stage.client()
    client >> query("SELECT 1")
    second = stage.server()
    second >> result("1")
    client << result("1")
    assert server.is_held_back()


def test_a_server_that_does_not_read_holds_back_its_client(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client << COPY_IN
    client >> COPY
    assert client.is_held_back()
    server << query("COPY t FROM STDIN") + COPY
    assert not client.is_held_back()


@pytest.mark.parametrize("rows", [12, 16, 20, 24, 28])
def test_a_server_is_read_again_by_its_next_client(stage: Stage, rows: int):
    """Held back by a slow reader as it gave its last row: the next client must not suffer for it."""
    slow, server = stage.pair()
    answer = columns("a") + row("x" * 10_000) * rows + complete("SELECT") + IDLE
    slow >> query("SELECT much")
    server >> answer
    client = stage.client()
    assert not server.is_held_back()
    assert server.state == "idle"
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")
    slow << answer


def test_a_client_that_was_held_back_is_read_again_when_its_copy_fails(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client >> COPY
    assert client.is_held_back()
    server >> error("22P02") + IDLE
    client << COPY_IN + error("22P02") + IDLE
    # whole messages, and no more of them than were under way
    heard = server.take()
    assert (query("COPY t FROM STDIN") + COPY).startswith(heard)
    assert (len(heard) - len(query("COPY t FROM STDIN"))) % len(ROW) == 0
    assert not client.is_held_back()
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_a_pipeline_of_very_many_requests_is_read_in_turns(stage: Stage):
    client, server = stage.session_pair()
    client >> SYNC * 300_000
    assert client.is_held_back()
    heard, answered = b"", 0
    while answered < 300_000:
        heard += server.take()
        assert len(heard) // 5 > answered, "it does not go on"
        server >> IDLE * (len(heard) // 5 - answered)
        answered = len(heard) // 5
        assert client.take().count(b"Z") > 0
    assert not client.is_held_back()


def test_a_slow_client_that_leaves(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT much")
    server >> columns("a") + ROWS
    assert server.is_held_back()
    client.hangs_up()
    server.take()
    assert server.end == "UNCLEAN"


def test_a_slow_client_still_gets_its_servers_last_words(stage: Stage):
    """What the server said before it died waits for the client to read it."""
    client, server = stage.pair()
    client >> query("COPY t TO STDOUT")
    said = COPY_OUT + COPY[: 10_005 * 40] + fatal("57P01")
    server >> said
    server.hangs_up()
    client << said
    assert client.ended


def test_terminate_behind_much_data(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client >> COPY + TERMINATE
    assert client.is_held_back()
    assert (query("COPY t FROM STDIN") + COPY).startswith(server.take())
    assert server.end == "UNCLEAN"
