"""COPY, and what libpq makes of it."""

import pytest

from tests.protocol.stage import Stage
from tests.protocol.wire import (
    BOUND,
    COPY_BOTH,
    COPY_DONE,
    COPY_IN,
    COPY_OUT,
    FAILED,
    FLUSH,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    bind,
    complete,
    copy_data,
    copy_fail,
    error,
    execute,
    parse,
    query,
    result,
)

BATCH = parse("", "COPY t FROM STDIN") + bind("") + execute() + SYNC


def start_copy_in(client, server):
    client >> query("COPY t FROM STDIN")
    server << query("COPY t FROM STDIN")
    server >> COPY_IN
    client << COPY_IN


def is_back(client, server):
    """The server is at rest, and serves again."""
    assert server.state == "idle"
    server.take()
    client >> query("SELECT 1")
    server << query("SELECT 1")
    server >> result("1")
    client << result("1")
    assert server.state == "idle"


def test_copy_out(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t TO STDOUT")
    answer = COPY_OUT + copy_data(b"1\n") + copy_data(b"2\n") + COPY_DONE + complete("COPY 2") + IDLE
    server >> answer
    client << answer
    is_back(client, server)


def test_copy_out_that_fails_in_the_middle(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t TO STDOUT")
    answer = COPY_OUT + copy_data(b"1\n") + error("22012") + IDLE
    server >> answer
    client << answer
    is_back(client, server)


def test_copy_in(stage: Stage):
    client, server = stage.pair()
    start_copy_in(client, server)
    client >> copy_data(b"1\n") + copy_data(b"2\n")
    server << copy_data(b"1\n") + copy_data(b"2\n")
    client >> copy_data(b"3\n") + COPY_DONE
    server << copy_data(b"3\n") + COPY_DONE
    server >> complete("COPY 3") + IDLE
    client << complete("COPY 3") + IDLE
    is_back(client, server)


def test_copy_in_that_the_client_breaks_off(stage: Stage):
    client, server = stage.pair()
    start_copy_in(client, server)
    client >> copy_data(b"1\n") + copy_fail("no more")
    server << copy_data(b"1\n") + copy_fail("no more")
    server >> error("57014") + IDLE
    client << error("57014") + IDLE
    is_back(client, server)


def test_copy_in_that_the_server_breaks_off(stage: Stage):
    """The client may not have read the error yet: what it goes on sending is no more than ignored."""
    client, server = stage.pair()
    start_copy_in(client, server)
    client >> copy_data(b"nonsense\n")
    server >> error("22P02") + IDLE
    client >> copy_data(b"2\n") + copy_data(b"3\n") + COPY_DONE
    client << error("22P02") + IDLE
    is_back(client, server)


def test_copy_in_that_fails_in_a_transaction(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    server.take()
    start_copy_in(client, server)
    client >> copy_data(b"nonsense\n")
    server >> error("22P02") + FAILED
    client >> copy_data(b"2\n") + COPY_DONE
    client << error("22P02") + FAILED
    client >> query("ROLLBACK")
    server >> complete("ROLLBACK") + IDLE
    client << complete("ROLLBACK") + IDLE
    is_back(client, server)


def test_a_copy_data_message_that_outlives_its_copy(stage: Stage):
    """The server fails while half of a message has gone to it: it must get the other half first."""
    client, server = stage.pair()
    start_copy_in(client, server)
    data = copy_data(b"x" * 1000)
    client >> data[:500]
    server >> error("22P02") + IDLE
    client << error("22P02") + IDLE
    assert server.state == "active"
    client >> data[500:]
    server << data
    is_back(client, server)


def test_copy_data_without_a_copy_is_ignored(stage: Stage):
    client = stage.client()
    client >> copy_data(b"1\n" * 1000) + COPY_DONE + copy_fail("why") + query("SELECT 1")
    stage.server() << query("SELECT 1")


def test_statement_data_and_end_in_one_go(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t FROM STDIN") + copy_data(b"1\n") + COPY_DONE + query("SELECT 1")
    server << query("COPY t FROM STDIN") + copy_data(b"1\n") + COPY_DONE + query("SELECT 1")
    server >> COPY_IN + complete("COPY 1") + IDLE + result("1")
    client << COPY_IN + complete("COPY 1") + IDLE + result("1")
    is_back(client, server)


def test_two_copies_in_one_query(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t FROM STDIN; COPY u FROM STDIN")
    server >> COPY_IN
    client >> copy_data(b"1\n") + COPY_DONE
    server >> complete("COPY 1") + COPY_IN
    # in COPY mode the second time: Sync is swallowed
    client >> copy_data(b"2\n") + SYNC + COPY_DONE
    server >> complete("COPY 1") + IDLE
    client << COPY_IN + complete("COPY 1") + COPY_IN + complete("COPY 1") + IDLE
    is_back(client, server)


# --- the extended protocol --------------------------------------------------------------


def test_the_sync_that_libpq_sends_with_execute_is_swallowed(stage: Stage):
    """A server in COPY mode ignores Sync and Flush, so libpq sends Sync again behind CopyDone."""
    client, server = stage.pair()
    client >> BATCH
    server >> PARSED + BOUND + COPY_IN
    client << PARSED + BOUND + COPY_IN
    client >> copy_data(b"1\n") + COPY_DONE + SYNC
    server << BATCH + copy_data(b"1\n") + COPY_DONE + SYNC
    server >> complete("COPY 1") + IDLE
    client << complete("COPY 1") + IDLE
    is_back(client, server)


def test_the_swallowed_sync_when_the_copy_fails(stage: Stage):
    client, server = stage.pair()
    client >> BATCH
    server >> PARSED + BOUND + COPY_IN
    client >> copy_data(b"nonsense\n")
    server >> error("22P02")
    client << PARSED + BOUND + COPY_IN + error("22P02")
    assert server.state == "active"
    client >> copy_data(b"2\n") + COPY_DONE + SYNC
    server >> IDLE
    client << IDLE
    assert server.state == "gone"


def test_the_end_of_the_copy_crosses_its_failure(stage: Stage):
    """Whether the copy had read the first Sync when it failed, or that is answered too, nobody knows."""
    client, server = stage.pair()
    client >> BATCH
    server >> PARSED + BOUND + COPY_IN
    client >> copy_data(b"nonsense\n") + COPY_DONE + SYNC
    server >> error("22P02") + IDLE
    client << PARSED + BOUND + COPY_IN + error("22P02") + IDLE
    assert server.state == "gone"
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")


@pytest.mark.parametrize("batch", [BATCH, query("COPY v FROM STDIN") + SYNC], ids=["extended", "simple"])
def test_an_answer_to_a_sync_that_was_taken_for_swallowed_is_nobody_elses(stage: Stage, batch: bytes):
    """COPY to a view fails when CopyInResponse is out and nothing is read: both Syncs are answered."""
    client, server = stage.pair()
    other = stage.client()
    client >> batch + copy_data(b"1\n") + COPY_DONE + SYNC
    said = PARSED + BOUND + COPY_IN + error("42809") if batch is BATCH else COPY_IN + error("42809") + IDLE
    server >> said + IDLE
    client << said + IDLE
    server.take()
    other >> query("SELECT 2")
    assert server.state == "gone"
    stage.server() << query("SELECT 2")


def test_syncs_before_a_copy_that_fails(stage: Stage):
    """The server had not read them: it answers them behind the query."""
    client, server = stage.pair()
    other = stage.client()
    start_copy_in(client, server)
    client >> SYNC + SYNC
    server >> error("P0001") + IDLE
    client << error("P0001") + IDLE
    server.take()
    other >> query("SELECT 2")
    assert server.state == "gone"
    stage.server() << query("SELECT 2")


def test_a_ready_for_query_before_the_query_is_answered(stage: Stage):
    """It belongs to something that the proxy does not know of: nothing more of this server is anybody's."""
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> IDLE + result("1")
    assert server.end == "PROTOCOL"
    assert b"08006" in client.take()


def test_the_copy_does_not_even_start(stage: Stage):
    client, server = stage.pair()
    client >> BATCH
    server >> PARSED + BOUND + error("42P01") + IDLE
    client << PARSED + BOUND + error("42P01") + IDLE
    is_back(client, server)


def test_syncs_and_flushes_within_the_data(stage: Stage):
    client, server = stage.pair()
    client >> BATCH
    server >> PARSED + BOUND + COPY_IN
    client >> copy_data(b"1\n") + SYNC + FLUSH + copy_data(b"2\n") + SYNC + COPY_DONE + SYNC
    server >> complete("COPY 2") + IDLE
    client << PARSED + BOUND + COPY_IN + complete("COPY 2") + IDLE
    is_back(client, server)


def test_a_whole_copy_sent_before_it_starts(stage: Stage):
    """Both Syncs are on their way when CopyInResponse says that the first will be swallowed."""
    client, server = stage.pair()
    client >> BATCH + copy_data(b"1\n") + COPY_DONE + SYNC
    server >> PARSED + BOUND + COPY_IN + complete("COPY 1") + IDLE
    client << PARSED + BOUND + COPY_IN + complete("COPY 1") + IDLE
    is_back(client, server)


def test_a_sync_that_was_not_swallowed_after_all(stage: Stage):
    """The copy failed before the server read it: it is answered, and the client's other one by the proxy."""
    client, server = stage.pair()
    client >> BATCH
    server >> PARSED + BOUND + COPY_IN
    client << PARSED + BOUND + COPY_IN
    server >> error("57014") + IDLE
    client << error("57014") + IDLE
    assert server.state == "gone"
    client >> COPY_DONE + SYNC
    client << IDLE


def test_copy_out_in_the_extended_protocol(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "COPY t TO STDOUT") + bind("") + execute() + SYNC
    answer = PARSED + BOUND + COPY_OUT + copy_data(b"1\n") + COPY_DONE + complete("COPY 1") + IDLE
    server >> answer
    client << answer
    is_back(client, server)


def test_a_stray_copy_done_disturbs_nothing(stage: Stage):
    """The server ignores it where there is no COPY, and gives no answer."""
    client, server = stage.pair()
    client >> parse("", "SELECT 1") + COPY_DONE + bind("") + copy_fail("late") + execute() + COPY_DONE + SYNC
    server >> PARSED + BOUND + complete("SELECT 0") + IDLE
    client << PARSED + BOUND + complete("SELECT 0") + IDLE
    is_back(client, server)


# --- sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_much_data(stage: Stage, pieces: int):
    client, server = stage.pair()
    start_copy_in(client, server)
    data = copy_data(b"x" * (3_000_000 // pieces)) * pieces
    client >> data + COPY_DONE
    server << data + COPY_DONE
    server >> complete("COPY") + IDLE
    client << complete("COPY") + IDLE
    is_back(client, server)
    client >> query("COPY t TO STDOUT")
    server >> COPY_OUT + data + COPY_DONE + complete("COPY") + IDLE
    client << COPY_OUT + data + COPY_DONE + complete("COPY") + IDLE


def test_both_ways(stage: Stage):
    """Streaming replication, where policy lets it through."""
    client, server = stage.session_pair()
    client >> query("START_REPLICATION")
    server >> COPY_BOTH + copy_data(b"wal")
    client << COPY_BOTH + copy_data(b"wal")
    server.take()
    client >> copy_data(b"status")
    server << copy_data(b"status")
    server >> copy_data(b"more wal")
    client << copy_data(b"more wal")
    client >> COPY_DONE
    server >> COPY_DONE + complete("COPY 0") + IDLE
    client << COPY_DONE + complete("COPY 0") + IDLE
