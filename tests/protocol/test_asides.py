"""What comes besides answers: notices, ParameterStatus, notifications; and FunctionCall."""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    FAILED,
    IDLE,
    columns,
    complete,
    error,
    fatal,
    function_call,
    function_result,
    notice,
    notification,
    parameter,
    query,
    result,
    row,
)


def test_notices_and_parameters_within_an_answer(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT f()")
    answer = (
        notice("a")
        + columns("f")
        + parameter("TimeZone", "UTC")
        + row("1")
        + notice("b")
        + complete("SELECT 1")
        + parameter("DateStyle", "ISO")
        + IDLE
    )
    server >> answer
    client << answer


def test_what_an_idle_server_says_is_for_nobody(stage: Stage):
    client, server = stage.pair()
    server >> notice("a") + parameter("TimeZone", "UTC") + notification(1, "channel")
    assert server.state == "idle"
    client << b""
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")


def test_what_a_server_says_behind_an_answer_is_not_the_next_clients(stage: Stage):
    """A notice in the same read as ReadyForQuery, while another client waits for that server."""
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    first, second = stage.client(pool=pool), stage.client(pool=pool)
    first >> query("SELECT 1")
    second >> query("SELECT 2")
    server >> result("1") + notice("for nobody")
    first << result("1")
    second << b""
    server >> result("2")
    second << result("2")


def test_in_a_session_it_is_the_clients(stage: Stage):
    client, server = stage.session_pair()
    server >> notice("a") + parameter("TimeZone", "UTC") + notification(1, "channel", "payload")
    client << notice("a") + parameter("TimeZone", "UTC") + notification(1, "channel", "payload")


def test_notifications_reach_a_client_that_listens(stage: Stage):
    client, server = stage.pair()
    client >> query("LISTEN channel")
    server >> complete("LISTEN") + IDLE
    client << complete("LISTEN") + IDLE
    assert client.is_pinned()
    assert stage.hooks.pinned == 1
    server >> notification(1, "channel", "x" * 7999)
    client << notification(1, "channel", "x" * 7999)


def test_notifications_reach_nobody_who_does_not_listen(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> notification(1, "channel") + result("1")
    client << result("1")


def test_a_notification_in_pieces(stage: Stage):
    client, server = stage.session_pair()
    said = notification(1, "channel", "x" * 100_000)
    server >> said[:10]
    server >> said[10:50_000]
    server >> said[50_000:]
    client << said


def test_the_servers_own_goodbye_reaches_a_session(stage: Stage):
    client, server = stage.session_pair()
    server >> fatal("57P01")
    server.hangs_up()
    client << fatal("57P01")
    assert client.ended


def test_the_servers_own_goodbye_reaches_a_client_in_the_middle(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> columns("a") + row("1") + fatal("57P01")
    server.hangs_up()
    client << columns("a") + row("1") + fatal("57P01")
    assert client.ended


def test_a_function_call(stage: Stage):
    client, server = stage.pair()
    client >> function_call(1598, b"a", b"b")
    server << function_call(1598, b"a", b"b")
    server >> function_result(b"0.5") + IDLE
    client << function_result(b"0.5") + IDLE
    assert server.state == "idle"


def test_a_function_call_that_fails(stage: Stage):
    client, server = stage.pair()
    client >> function_call(1598) + query("SELECT 1")
    server >> error("22012") + IDLE + result("1")
    client << error("22012") + IDLE + result("1")


@pytest.mark.parametrize("how", ["at once", "in pieces"])
def test_a_large_function_call(stage: Stage, how: str):
    client, server = stage.pair()
    said = function_call(1598, b"x" * 1_000_000)
    for piece in [said] if how == "at once" else [said[:6], said[6:100], said[100:]]:
        client >> piece
    server << said
    answer = function_result(b"y" * 1_000_000) + IDLE
    for piece in [answer] if how == "at once" else [answer[:6], answer[6:100], answer[100:]]:
        server >> piece
    client << answer
    assert server.state == "idle"


def test_an_error_status_is_passed_on(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> error("25P02") + FAILED
    client << error("25P02") + FAILED
