"""Transaction mode: DEALLOCATE and DISCARD ALL take away what the client has, and nobody else's."""

from tests.protocol.stage import Stage
from tests.protocol.test_statements import prepare
from tests.protocol.wire import (
    BOUND,
    CLOSED,
    FAILED,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    bind,
    close,
    complete,
    error,
    execute,
    parse,
    query,
    result,
)


def test_deallocate_of_a_protocol_statement_is_the_proxys(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("DEALLOCATE a")
    client << complete("DEALLOCATE") + IDLE
    server << b""
    client >> bind("a") + SYNC
    client << error("26000") + IDLE
    assert server.state == "idle"
    # the text is still the pool's
    client >> parse("a", "SELECT 1") + SYNC
    server << SYNC


def test_deallocate_all(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("DEALLOCATE ALL")
    client << complete("DEALLOCATE ALL") + IDLE
    client >> bind("a") + SYNC
    client << error("26000") + IDLE


def test_deallocate_behind_other_queries_is_answered_in_order(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("SELECT 1") + query("DEALLOCATE a") + query("SELECT 2")
    server << query("SELECT 1") + query("SELECT 2")
    client << b""
    server >> result("1")
    client << result("1") + complete("DEALLOCATE") + IDLE
    server >> result("2")
    client << result("2")
    assert server.state == "idle"


def test_deallocate_in_a_transaction_tells_its_state(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    client >> query("DEALLOCATE a")
    client << complete("DEALLOCATE") + OPEN


def test_what_waits_for_the_answer_to_a_deallocate_goes_on(stage: Stage):
    """It was the proxy's own, and no server's that would wake who waits."""
    client, server = stage.pair()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    server.take()
    client >> query("DEALLOCATE ALL") + execute() + SYNC
    client << complete("DEALLOCATE ALL") + OPEN
    server << execute() + SYNC


def test_deallocate_in_a_failed_transaction_fails_and_takes_nothing_away(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("BEGIN; SELECT 1/0")
    server >> complete("BEGIN") + error("22012") + FAILED
    client.take()
    server.take()
    for text in ("DEALLOCATE a", "DEALLOCATE ALL"):
        client >> query(text)
        server << query(text)
        server >> error("25P02") + FAILED
        client << error("25P02") + FAILED
    client >> query("ROLLBACK")
    server << query("ROLLBACK")
    server >> complete("ROLLBACK") + IDLE
    client << complete("ROLLBACK") + IDLE
    client >> bind("a") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC


def test_deallocate_ends_the_unnamed_statement(stage: Stage):
    """As any simple query does."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> parse("", "SELECT 1") + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE
    client >> query("DEALLOCATE a")
    client << complete("DEALLOCATE") + IDLE
    client >> bind("") + SYNC
    client << error("26000") + IDLE


def test_deallocate_of_an_unknown_name_is_the_servers_error(stage: Stage):
    client, server = stage.pair()
    client >> query("DEALLOCATE nobody")
    server << query("DEALLOCATE nobody")
    server >> error("26000") + IDLE
    client << error("26000") + IDLE


def test_deallocate_in_the_extended_protocol(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    for _ in range(2):
        client >> parse("", "DEALLOCATE a") + bind("") + execute() + SYNC
        heard = server.take()
        # a statement of the proxy's is deallocated in its place, whatever became of the last one
        assert heard.startswith(close("tp_none") + parse("tp_none", "SELECT"))
        assert heard.endswith(parse("", "DEALLOCATE tp_none") + bind("") + execute() + SYNC)
        server >> CLOSED + PARSED + PARSED + BOUND + complete("DEALLOCATE") + IDLE
        client << PARSED + BOUND + complete("DEALLOCATE") + IDLE
        client >> bind("a") + SYNC
        client << error("26000") + IDLE
        prepare_again(client, server)


def test_deallocate_all_in_the_extended_protocol(stage: Stage):
    """Whether it is executed is not followed: the server is not used again.  Drivers look for the tag."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> parse("", "DEALLOCATE ALL") + bind("") + execute() + SYNC
    server << parse("", "DEALLOCATE ALL") + bind("") + execute() + SYNC
    server >> PARSED + BOUND + complete("DEALLOCATE ALL") + IDLE
    client << PARSED + BOUND + complete("DEALLOCATE ALL") + IDLE
    assert server.state == "gone"
    client >> bind("a") + SYNC
    client << error("26000") + IDLE


def test_deallocate_all_that_is_itself_prepared(stage: Stage):
    """It takes all statements from the server, others' too, which must not be taken to be there."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    prepare(client, server, "d", "DEALLOCATE ALL", "tp_2")
    client >> bind("d") + execute() + SYNC
    server << bind("tp_2") + execute() + SYNC
    server >> BOUND + complete("DEALLOCATE ALL") + IDLE
    client << BOUND + complete("DEALLOCATE ALL") + IDLE
    assert server.state == "gone"
    for name in ("a", "d"):
        client >> bind(name) + SYNC
        client << error("26000") + IDLE


def prepare_again(client, server):
    client >> parse("a", "SELECT 1") + SYNC
    server << SYNC
    server >> IDLE
    client << PARSED + IDLE


def test_discard_all_empties_the_server(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("DISCARD ALL")
    server << query("DISCARD ALL")
    assert server.statements() == 0
    server >> complete("DISCARD ALL") + IDLE
    client << complete("DISCARD ALL") + IDLE
    server << query("ASK")
    server >> complete("SELECT 0") + IDLE
    client >> bind("a") + SYNC
    client << error("26000") + IDLE
    client >> parse("a", "SELECT 1") + SYNC
    server << parse("tp_2", "SELECT 1") + SYNC


def test_discard_all_ends_a_pin(stage: Stage):
    client, server = stage.pair()
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    assert client.is_pinned()
    client >> query("DISCARD ALL")
    server >> complete("DISCARD ALL") + IDLE
    server << query("LISTEN a") + query("DISCARD ALL") + query("ASK")
    server >> complete("SELECT 0") + IDLE
    client << complete("LISTEN") + IDLE + complete("DISCARD ALL") + IDLE
    assert not client.is_pinned()
    assert server.state == "idle"
    assert stage.figures()["pinned"] == 0
    # nothing is left to reset
    client.hangs_up()
    server << b""


def test_discard_all_does_not_end_a_pin_that_came_behind_it(stage: Stage):
    client, server = stage.pair()
    client >> query("LISTEN a") + query("DISCARD ALL") + query("LISTEN b")
    server >> (complete("LISTEN") + IDLE) * 3
    client << (complete("LISTEN") + IDLE) * 3
    assert client.is_pinned()
    assert server.state == "active"


def test_discard_all_that_fails_ends_no_pin(stage: Stage):
    client, server = stage.pair()
    client >> query("LISTEN a") + query("BEGIN") + query("DISCARD ALL") + query("ROLLBACK")
    server >> complete("LISTEN") + IDLE + complete("BEGIN") + OPEN
    server >> error("25001") + FAILED + complete("ROLLBACK") + IDLE
    assert client.is_pinned()


def test_discard_all_in_the_extended_protocol(stage: Stage):
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> parse("", "DISCARD ALL") + bind("") + execute() + SYNC
    server << parse("", "DISCARD ALL") + bind("") + execute() + SYNC
    server >> PARSED + BOUND + complete("DISCARD ALL") + IDLE
    client << PARSED + BOUND + complete("DISCARD ALL") + IDLE
    # it changed settings, too
    server << query("ASK")
    server >> complete("SELECT 0") + IDLE
    # whether a bound statement is executed is not followed
    assert server.state == "gone"
    client >> parse("a", "SELECT 1") + SYNC
    stage.server() << parse("tp_3", "SELECT 1") + SYNC


def test_a_server_whose_discard_all_failed_is_not_used_again(stage: Stage):
    """In a transaction block it is refused: the server knows statements that it was thought to have lost."""
    client, server = stage.pair()
    prepare(client, server, "a", "SELECT 1", "tp_1")
    client >> query("BEGIN") + query("DISCARD ALL") + query("ROLLBACK")
    server >> complete("BEGIN") + OPEN + error("25001") + FAILED + complete("ROLLBACK") + IDLE
    client << complete("BEGIN") + OPEN + error("25001") + FAILED + complete("ROLLBACK") + IDLE
    server.take()
    server >> complete("SELECT 0") + IDLE
    assert server.state == "gone"
    assert client.state == "idle"
