"""Transaction mode: prepared statements outlive their server.

A text has one name, tp_N, on all servers of a pool; clients call it as they like.
"""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    BOUND,
    CLOSED,
    FAILED,
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
    error,
    execute,
    parameter_types,
    parse,
    query,
    result,
    row,
)

ANSWER = BOUND + row("1") + complete("SELECT 1") + IDLE


def prepare(client, server, name, sql, known_as):
    """The client prepares a statement that its server does not know."""
    client >> parse(name, sql) + SYNC
    server << parse(known_as, sql) + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE


def test_a_statement_gets_a_name_of_the_pools(stage: Stage):
    client, server = stage.pair()
    client >> parse("mine", "SELECT $1", 23) + describe("mine") + bind("mine", b"7") + execute() + SYNC
    server << parse("tp_1", "SELECT $1", 23) + describe("tp_1") + bind("tp_1", b"7") + execute() + SYNC
    answer = PARSED + parameter_types(23) + columns("a") + ANSWER
    server >> answer
    client << answer


def test_one_text_is_one_statement_for_all_clients(stage: Stage):
    client, server = stage.pair()
    other = stage.client()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    other >> parse("b", "SELECT 1") + bind("b") + execute() + SYNC
    # the server knows it: ParseComplete is the proxy's
    server << bind("tp_1") + execute() + SYNC
    server >> ANSWER
    other << PARSED + ANSWER
    figures = stage.figures()
    assert (figures["client_parses"], figures["server_parses"]) == (2, 1)


def test_other_types_are_another_statement(stage: Stage):
    client, server = stage.pair()
    client >> parse("a", "SELECT $1", 23) + parse("b", "SELECT $1", 25) + SYNC
    server << parse("tp_1", "SELECT $1", 23) + parse("tp_2", "SELECT $1", 25) + SYNC


def test_a_statement_follows_its_client_to_another_server(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    stage.client() >> query("BEGIN")
    client >> bind("a") + execute() + SYNC
    server << query("BEGIN")
    second = stage.server()
    second << parse("tp_1", "SELECT 1") + bind("tp_1") + execute() + SYNC
    second >> PARSED + ANSWER
    client << ANSWER


def test_describe_brings_it_too(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    stage.client() >> query("BEGIN")
    client >> describe("a") + SYNC
    second = stage.server()
    second << parse("tp_1", "SELECT 1") + describe("tp_1") + SYNC
    second >> PARSED + parameter_types() + columns("a") + IDLE
    client << parameter_types() + columns("a") + IDLE


def test_a_parse_that_fails_when_repeated_is_the_clients_error(stage: Stage):
    """The table was dropped meanwhile: Bind would have found that too."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    stage.client() >> query("BEGIN")
    client >> bind("a") + execute() + SYNC
    second = stage.server()
    second >> error("42P01") + IDLE
    client << error("42P01") + IDLE
    assert second.state == "idle"
    assert second.statements() == 0


# --- the order of replies that the proxy makes up -----------------------------------


def test_made_up_replies_keep_their_place(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    other = stage.client()
    other >> (
        parse("x", "SELECT 2")
        + parse("y", "SELECT 1")
        + bind("x")
        + close("y")
        + execute()
        + parse("z", "SELECT 1")
        + SYNC
        + close("x")
        + SYNC
    )
    server << parse("tp_2", "SELECT 2") + bind("tp_2") + execute() + SYNC + SYNC
    server >> PARSED
    other << PARSED + PARSED
    server >> BOUND
    other << BOUND + CLOSED
    server >> row("2") + complete("SELECT 1")
    other << row("2") + complete("SELECT 1") + PARSED
    server >> IDLE
    other << IDLE + CLOSED
    server >> IDLE
    other << IDLE
    assert server.state == "idle"


def test_made_up_replies_before_an_error_are_kept_and_those_behind_are_not(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    other = stage.client()
    other >> parse("x", "SELECT 1") + parse("bad", "SELEC") + parse("y", "SELECT 1") + close("x") + SYNC
    server << parse("tp_2", "SELEC") + SYNC
    server >> error("42601") + IDLE
    other << PARSED + error("42601") + IDLE
    assert server.state == "idle"


def test_a_long_row_description_before_a_made_up_reply(stage: Stage):
    """The reply must wait for the whole message, however it is cut."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    wide = columns(*(f"column_{n}" for n in range(1000)))
    client >> describe("a") + close("a") + SYNC
    server << describe("tp_1") + SYNC
    server >> parameter_types() + wide[:1000]
    server >> wide[1000:] + IDLE
    client << parameter_types() + wide + CLOSED + IDLE


# --- names ------------------------------------------------------------------------------


def test_a_name_that_is_taken(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> parse("a", "SELECT 2") + bind("a") + SYNC
    client << error("42P05") + IDLE
    server << b""
    client >> bind("a") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC


def test_a_closed_name_can_be_given_again(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> close("a") + parse("a", "SELECT 2") + bind("a") + SYNC
    server << parse("tp_2", "SELECT 2") + bind("tp_2") + SYNC
    server >> PARSED + BOUND + IDLE
    client << CLOSED + PARSED + BOUND + IDLE


def test_a_name_that_nobody_gave(stage: Stage):
    client = stage.client()
    client >> bind("a") + execute() + SYNC
    client << error("26000") + IDLE
    client >> describe("a") + SYNC
    client << error("26000") + IDLE
    client >> bind("") + SYNC
    client << error("26000") + IDLE
    assert stage.opened() == 0


def test_a_name_that_nobody_gave_in_a_transaction_fails_it(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    server.take()
    client >> bind("a") + execute() + SYNC
    # a statement that is bound to fail goes in its place, so that the server's transaction fails too
    assert b"tp_refused\0" in (heard := server.take())
    assert heard.endswith(SYNC)
    server >> error("42601") + FAILED
    client << error("26000") + FAILED


def test_closing_what_nobody_prepared_is_no_error_and_takes_no_server(stage: Stage):
    client = stage.client()
    client >> close("a") + SYNC
    client << CLOSED + IDLE
    assert not stage.places_taken


def test_names_are_each_clients_own(stage: Stage):
    client, server = stage.pair()
    other = stage.client()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    other >> bind("a") + SYNC
    other << error("26000") + IDLE
    prepare(other, server, "a", "SELECT 2", "tp_2")
    client >> bind("a") + SYNC
    server << bind("tp_1") + SYNC


def test_a_failed_parse_gives_no_name(stage: Stage):
    client, server = stage.pair()
    client >> parse("a", "SELEC") + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    server.take()
    client >> bind("a") + SYNC
    client << error("26000") + IDLE
    client >> parse("a", "SELECT 1") + SYNC
    server << parse("tp_2", "SELECT 1") + SYNC


def test_a_skipped_parse_gives_no_name(stage: Stage):
    client, server = stage.pair()
    client >> parse("a", "SELEC") + parse("b", "SELECT 1") + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    assert server.statements() == 0
    client >> bind("b") + SYNC
    client << error("26000") + IDLE


def test_a_skipped_close_takes_no_name_away(stage: Stage):
    """Behind an error the server skips all messages up to Sync, so the statement is still there."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> execute("no such portal") + close("a") + SYNC
    server << execute("no such portal") + SYNC
    server >> error("34000") + IDLE
    client << error("34000") + IDLE
    client >> bind("a") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC
    server >> ANSWER
    client << ANSWER
    client >> close("a") + SYNC
    client << CLOSED + IDLE
    client >> bind("a") + SYNC
    client << error("26000") + IDLE


def test_a_skipped_close_and_parse_of_a_name_leave_it_as_it_was(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> execute("no such portal") + close("a") + parse("a", "SELECT 2") + SYNC
    server << execute("no such portal") + parse("tp_2", "SELECT 2") + SYNC
    server >> error("34000") + IDLE
    client << error("34000") + IDLE
    client >> bind("a") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC
    server >> ANSWER
    client << ANSWER


def test_a_client_that_leaves_with_a_close_under_way(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> execute("no such portal") + close("a") + SYNC
    client.hangs_up()
    assert server.state == "gone"


def test_the_same_text_fails_and_is_tried_again(stage: Stage):
    """The table that it needs exists the second time."""
    client, server = stage.pair()
    client >> parse("a", "SELECT * FROM t") + SYNC
    server >> error("42P01") + IDLE
    client << error("42P01") + IDLE
    server.take()
    client >> parse("a", "SELECT * FROM t") + SYNC
    assert server.take()[:4] == b"P\0\0\0"
    server >> PARSED + IDLE
    client << PARSED + IDLE


# --- what the server knows after an error ----------------------------------------------


def test_a_known_statement_in_a_failed_transaction_is_refused_and_not_forgotten(stage: Stage):
    """Whether the server refuses it or not, it knows the statement afterwards exactly if it says so."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("BEGIN; SELECT 1/0")
    server >> complete("BEGIN") + error("22012") + FAILED
    server.take()
    client >> parse("b", "SELECT 1") + SYNC
    server << close("tp_1") + parse("tp_1", "SELECT 1") + SYNC
    server >> CLOSED + error("25P02") + FAILED
    client >> query("ROLLBACK")
    server >> complete("ROLLBACK") + IDLE
    client.take()
    server.take()
    client >> parse("b", "SELECT 1") + SYNC
    server << parse("tp_1", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE


def test_a_server_whose_statement_could_not_leave_is_not_used_again(stage: Stage):
    """At the bound, one leaves for another; but an error before it makes the server skip that."""
    pool = stage.pool(max_prepared=1)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> execute("no such portal") + parse("b", "SELECT 2") + SYNC
    server << execute("no such portal") + close("tp_1") + parse("tp_2", "SELECT 2") + SYNC
    server >> error("34000") + IDLE
    client << error("34000") + IDLE
    assert server.state == "gone"
    client >> bind("a") + execute() + SYNC
    stage.server() << parse("tp_1", "SELECT 1") + bind("tp_1") + execute() + SYNC


def test_an_unnamed_statement_that_was_skipped_is_parsed_again(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    stage.client() >> query("BEGIN")
    client >> execute("no such portal") + bind("") + SYNC
    second = stage.server()
    second << execute("no such portal") + parse("", "SELECT 1") + bind("") + SYNC
    second >> error("34000") + IDLE
    client << error("34000") + IDLE
    client >> bind("") + execute() + SYNC
    second << parse("", "SELECT 1") + bind("") + execute() + SYNC
    second >> PARSED + ANSWER
    client << ANSWER


def test_the_least_recently_used_statement_leaves_a_full_server(stage: Stage):
    pool = stage.pool(max_prepared=2)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    prepare(client, server, "a", "SELECT 1", "tp_1")
    prepare(client, server, "b", "SELECT 2", "tp_2")
    client >> bind("a") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC
    server >> ANSWER
    client << ANSWER
    client >> parse("c", "SELECT 3") + SYNC
    server << close("tp_2") + parse("tp_3", "SELECT 3") + SYNC
    server >> CLOSED + PARSED + IDLE
    client << PARSED + IDLE
    assert server.statements() == 2
    client >> bind("b") + execute() + SYNC
    server << close("tp_1") + parse("tp_2", "SELECT 2") + bind("tp_2") + execute() + SYNC
    server >> CLOSED + PARSED + ANSWER
    client << ANSWER
    assert stage.figures(pool)["prepared_evictions"] == 2


def test_a_plan_that_became_invalid_is_prepared_anew_for_those_who_ask(stage: Stage):
    """cached plan must not change result type: the text gets a new name."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT * FROM t", "tp_1")
    client >> bind("a") + execute() + SYNC
    server >> error("0A000") + IDLE
    client << error("0A000") + IDLE
    server.take()
    client >> close("a") + parse("a", "SELECT * FROM t") + SYNC
    server << parse("tp_2", "SELECT * FROM t") + SYNC


# --- the unnamed statement ----------------------------------------------------------------


def test_the_unnamed_statement_is_forwarded(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + bind("") + execute() + SYNC
    server << parse("", "SELECT 1") + bind("") + execute() + SYNC
    server >> PARSED + ANSWER
    client << PARSED + ANSWER
    assert server.statements() == 0


def test_the_unnamed_statement_is_still_there_on_the_same_server(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    server.take()
    client >> bind("") + execute() + SYNC
    server << bind("") + execute() + SYNC


def test_the_unnamed_statement_is_parsed_again_on_another_server(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    stage.client() >> query("BEGIN")
    client >> bind("") + execute() + SYNC
    second = stage.server()
    second << parse("", "SELECT 1") + bind("") + execute() + SYNC
    second >> PARSED + ANSWER
    client << ANSWER


def test_anothers_unnamed_statement_is_not_mine(stage: Stage):
    client, server = stage.pair()
    other = stage.client()
    for who, sql in ((client, "SELECT 1"), (other, "SELECT 2")):
        who >> parse("", sql) + SYNC
        server >> PARSED + IDLE
        who << PARSED + IDLE
    server.take()
    client >> bind("") + execute() + SYNC
    server << parse("", "SELECT 1") + bind("") + execute() + SYNC


def test_a_simple_query_ends_the_unnamed_statement(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client >> query("SELECT 2")
    server >> result("2")
    client << PARSED + IDLE + result("2")
    client >> bind("") + SYNC
    client << error("26000") + IDLE


def test_a_refused_query_ends_it_too(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    client >> query("SELECT forbidden")
    client << error("42501") + IDLE
    client >> bind("") + SYNC
    client << error("26000") + IDLE


def test_what_the_proxy_asks_the_server_ends_it_only_there(stage: Stage):
    """The client has sent no simple query."""
    client, server = stage.pair()
    client >> parse("", "SET TimeZone = $1") + bind("", b"UTC") + execute() + SYNC
    server >> PARSED + BOUND + complete("SET") + IDLE
    client << PARSED + BOUND + complete("SET") + IDLE
    assert server.take().endswith(query("ASK"))
    server >> complete("SELECT 0") + IDLE
    client >> bind("", b"CET") + SYNC
    server << parse("", "SET TimeZone = $1") + bind("", b"CET") + SYNC
    server >> PARSED + BOUND + IDLE
    client << BOUND + IDLE


def test_a_closed_unnamed_statement_is_gone(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + close("") + bind("") + SYNC
    heard = server.take()
    assert heard.startswith(parse("", "SELECT 1"))
    assert b"tp_refused" in heard
    server >> PARSED + error("42601") + IDLE
    client << PARSED + CLOSED + error("26000") + IDLE


def test_a_close_of_the_unnamed_statement_that_was_skipped(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    client >> parse("other", "broken") + close("") + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    server.take()
    client >> bind("") + execute() + SYNC
    server << bind("") + execute() + SYNC
    server >> ANSWER
    client << ANSWER


def test_a_statement_that_was_skipped_and_its_close_too(stage: Stage):
    client, server = stage.pair()
    client >> parse("other", "broken") + parse("mine", "SELECT 1") + close("mine") + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    client >> bind("mine") + execute() + SYNC
    assert b"26000" in client.take()
    client >> parse("mine", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE


def test_a_close_of_an_unnamed_statement_that_was_skipped_with_it(stage: Stage):
    client, server = stage.pair()
    client >> parse("other", "broken") + parse("", "SELECT 1") + close("") + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    client >> bind("") + execute() + SYNC
    assert b"26000" in client.take()


def test_an_unnamed_statement_that_failed_is_not_there(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELEC") + SYNC
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    client >> bind("") + SYNC
    client << error("26000") + IDLE


def test_an_earlier_unnamed_parse_that_fails_leaves_the_later_one(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SELEC") + SYNC + parse("", "SELECT 2") + SYNC
    server >> error("42601") + IDLE + PARSED + IDLE
    client << error("42601") + IDLE + PARSED + IDLE
    server.take()
    client >> bind("") + execute() + SYNC
    server << bind("") + execute() + SYNC


# --- limits ---------------------------------------------------------------------------------


def test_a_pinned_client_may_use_names_that_sql_prepare_gave(stage: Stage):
    client, server = stage.pair()
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client << complete("LISTEN") + IDLE
    server.take()
    client >> bind("by_sql") + execute() + describe("by_sql") + close("by_sql") + SYNC
    server << bind("by_sql") + execute() + describe("by_sql") + close("by_sql") + SYNC


@pytest.mark.parametrize("how", ["at once", "in pieces"])
def test_a_large_bind_of_a_renamed_statement(stage: Stage, how: str):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    said = bind("a", b"x" * 1_000_000, portal="p") + execute("p") + SYNC
    pieces = [said] if how == "at once" else [said[:3], said[3:9], said[9:500_000], said[500_000:]]
    for piece in pieces:
        client >> piece
    server << bind("tp_1", b"x" * 1_000_000, portal="p") + execute("p") + SYNC
    server >> ANSWER
    client << ANSWER


def test_an_open_batch_keeps_the_server(stage: Stage):
    """Parse and Flush without Sync: the server is in the middle of an implicit transaction."""
    client, server = stage.pair()
    client >> parse("a", "SELECT 1") + FLUSH
    server >> PARSED
    client << PARSED
    assert server.state == "active"
    client >> SYNC
    server >> IDLE
    client << IDLE
    assert server.state == "idle"


def test_a_query_ends_an_open_batch(stage: Stage):
    """ReadyForQuery with nothing outstanding: the server is at rest, Sync or not."""
    client, server = stage.pair()
    client >> parse("a", "SELECT 1") + query("SELECT 2")
    server >> PARSED + result("2")
    client << PARSED + result("2")
    assert server.state == "idle"


def test_a_failed_transaction_takes_no_unknown_statement(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN; SELECT 1/0")
    server >> error("22012") + FAILED
    client << error("22012") + FAILED
    server.take()
    client >> parse("a", "SELECT 1") + bind("a") + SYNC
    server << parse("tp_1", "SELECT 1") + bind("tp_1") + SYNC
    server >> error("25P02") + FAILED
    client << error("25P02") + FAILED
    assert server.statements() == 0
