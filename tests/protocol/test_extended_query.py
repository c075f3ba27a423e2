"""The extended protocol in session mode: what the client says reaches the server as it is, and back."""

import pytest

from tests.protocol.wire import (
    BOUND,
    CLOSED,
    EMPTY,
    FAILED,
    FLUSH,
    IDLE,
    NO_DATA,
    OPEN,
    PARSED,
    SUSPENDED,
    SYNC,
    bind,
    close,
    close_portal,
    columns,
    complete,
    describe,
    describe_portal,
    error,
    execute,
    notice,
    parameter_types,
    parse,
    query,
    result,
    row,
)


@pytest.fixture
def pair(stage):
    return stage.session_pair()


def test_parse_bind_describe_execute(pair):
    client, server = pair
    batch = parse("", "SELECT $1", 25) + bind("", b"x") + describe_portal() + execute() + SYNC
    client >> batch
    server << batch
    answer = PARSED + BOUND + columns("a") + row("x") + complete("SELECT 1") + IDLE
    server >> answer
    client << answer


def test_a_named_statement_keeps_its_name(pair):
    client, server = pair
    client >> parse("a name", "SELECT 1") + describe("a name") + SYNC
    server << parse("a name", "SELECT 1") + describe("a name") + SYNC
    server >> PARSED + parameter_types() + columns("a") + IDLE
    client << PARSED + parameter_types() + columns("a") + IDLE
    client >> bind("a name") + execute() + close("a name") + SYNC
    server << bind("a name") + execute() + close("a name") + SYNC
    server >> BOUND + row("1") + complete("SELECT 1") + CLOSED + IDLE
    client << BOUND + row("1") + complete("SELECT 1") + CLOSED + IDLE


def test_portals_are_read_in_pieces(pair):
    client, server = pair
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    client >> parse("", "SELECT n FROM t") + bind("", portal="p") + execute("p", 2) + FLUSH
    server >> PARSED + BOUND + row("1") + row("2") + SUSPENDED
    client << PARSED + BOUND + row("1") + row("2") + SUSPENDED
    client >> execute("p", 2) + close_portal("p") + SYNC
    server >> row("3") + complete("SELECT 1") + CLOSED + OPEN
    client << row("3") + complete("SELECT 1") + CLOSED + OPEN
    assert server.state == "active"


def test_flush_passes_on_what_is_there(pair):
    client, server = pair
    client >> parse("", "SELECT 1") + FLUSH
    server << parse("", "SELECT 1") + FLUSH
    server >> PARSED
    client << PARSED


def test_a_statement_that_returns_nothing(pair):
    client, server = pair
    client >> parse("s", "UPDATE t SET a = 1") + describe("s") + SYNC
    server >> PARSED + parameter_types() + NO_DATA + IDLE
    client << PARSED + parameter_types() + NO_DATA + IDLE


def test_an_empty_statement(pair):
    client, server = pair
    client >> parse("", "") + bind("") + execute() + SYNC
    server >> PARSED + BOUND + EMPTY + IDLE
    client << PARSED + BOUND + EMPTY + IDLE


def test_syncs_in_a_row_are_all_answered(pair):
    client, server = pair
    client >> SYNC + SYNC + SYNC
    server << SYNC + SYNC + SYNC
    server >> IDLE + IDLE + IDLE
    client << IDLE + IDLE + IDLE


@pytest.mark.parametrize("failing", ["parse", "bind", "describe", "execute"])
def test_after_an_error_the_server_skips_to_sync(pair, failing):
    client, server = pair
    client >> parse("", "SELECT 1/0") + bind("") + describe_portal() + execute() + SYNC
    before = {
        "parse": b"",
        "bind": PARSED,
        "describe": PARSED + BOUND,
        "execute": PARSED + BOUND + columns("a") + row("1"),
    }[failing]
    server >> before + error("22012") + IDLE
    client << before + error("22012") + IDLE
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")


def test_an_error_that_comes_before_the_sync(pair):
    client, server = pair
    client >> parse("", "SELECT 1/0") + FLUSH
    server << parse("", "SELECT 1/0") + FLUSH
    server >> error("42601")
    client << error("42601")
    # dropped here, as the server would drop it
    client >> bind("") + execute() + query("SELECT 1") + FLUSH
    server << b""
    client >> SYNC
    server << SYNC
    server >> IDLE
    client << IDLE
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_a_pipeline_with_an_error_in_the_middle(pair):
    client, server = pair
    one = parse("", "SELECT 1") + bind("") + execute() + SYNC
    client >> one + one + one
    good = PARSED + BOUND + row("1") + complete("SELECT 1") + IDLE
    server >> good
    client << good
    server >> PARSED + error("22012") + IDLE
    client << PARSED + error("22012") + IDLE
    server >> good
    client << good


def test_an_error_at_sync_itself(pair):
    """A deferred constraint fails when Sync commits."""
    client, server = pair
    client >> parse("", "INSERT INTO t VALUES (1)") + bind("") + execute() + SYNC
    server >> PARSED + BOUND + complete("INSERT 0 1") + error("23503") + IDLE
    client << PARSED + BOUND + complete("INSERT 0 1") + error("23503") + IDLE
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")


def test_a_failed_transaction_in_the_extended_protocol(pair):
    client, server = pair
    client >> parse("", "SELECT 1") + bind("") + execute() + SYNC
    server >> error("25P02") + FAILED
    client << error("25P02") + FAILED


def test_a_query_behind_a_batch_without_sync(pair):
    client, server = pair
    client >> parse("s", "SELECT 1") + query("SELECT 2")
    server >> PARSED + result("2")
    client << PARSED + result("2")
    client >> query("SELECT 3")
    server >> result("3")
    client << result("3")


def test_notices_come_where_they_were_said(pair):
    client, server = pair
    client >> parse("", "DO $$…$$") + bind("") + execute() + SYNC
    answer = PARSED + notice("one") + BOUND + notice("two") + complete("DO") + notice("three") + IDLE
    server >> answer
    client << answer


def test_a_bind_larger_than_every_buffer(pair):
    client, server = pair
    batch = bind("s", b"x" * 3_000_000) + execute() + SYNC
    client >> batch
    server << batch
    server >> BOUND + complete("INSERT 0 1") + IDLE
    client << BOUND + complete("INSERT 0 1") + IDLE


def test_a_long_pipeline(pair):
    client, server = pair
    rounds = 2_000
    one = bind("s", b"1") + execute() + SYNC
    client >> one * rounds
    server << one * rounds
    answer = BOUND + row("1") + complete("SELECT 1") + IDLE
    server >> answer * rounds
    client << answer * rounds
