"""Transaction mode: what a client has SET goes with it from server to server.

After a transaction that may have changed settings the server is asked for them; a server that comes with
others is brought to the client's before the client's statement runs.
"""

import pytest

from tests.protocol.stage import Hooks, Stage
from tests.protocol.wire import (
    AUTHENTICATED,
    FAILED,
    IDLE,
    OPEN,
    SYNC,
    TERMINATE,
    bind,
    columns,
    complete,
    error,
    execute,
    fatal,
    notice,
    parameter,
    parse,
    query,
    result,
    row,
    startup,
)

SET_UTC = query("SELECT pg_catalog.set_config('TimeZone', 'UTC', false)")
SET_CET = query("SELECT pg_catalog.set_config('TimeZone', 'CET', false)")
RESET = query('RESET "TimeZone"')
SET_DONE = columns("set_config") + row("UTC") + complete("SELECT 1") + IDLE
RESET_DONE = complete("RESET") + IDLE


def settings(**values):
    """A server's answer when it is asked for its settings."""
    rows = b"".join(row(name, value) for name, value in values.items())
    return columns("name", "setting") + rows + complete(f"SELECT {len(values)}") + IDLE


def set_time_zone(client, server, value="UTC"):
    client >> query(f"SET TimeZone = '{value}'")
    server << query(f"SET TimeZone = '{value}'")
    server >> complete("SET") + parameter("TimeZone", value) + IDLE
    client << complete("SET") + parameter("TimeZone", value) + IDLE
    server << query("ASK")
    server >> settings(TimeZone=value)
    client << b""
    assert (client.state, server.state) == ("idle", "idle")


def test_after_set_the_server_is_asked(stage: Stage):
    client, server = stage.pair()
    set_time_zone(client, server)


@pytest.mark.parametrize("asked", [True, False])
def test_a_server_that_ends_before_it_was_asked(stage: Stage, asked: bool):
    """What was set with it is not known, so the client must not go on as if it had set nothing."""
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'")
    server.take()
    if asked:
        server >> complete("SET") + IDLE
        server << query("ASK")
        server >> fatal("57P01")
        server.hangs_up()
    else:
        # the end comes with the answer
        server >> complete("SET") + IDLE + fatal("57P01")
    client << complete("SET") + IDLE + fatal("08006", "failed")
    assert client.end == "SERVER_LOST"


def test_a_cancel_that_comes_late_does_not_hit_the_question(stage: Stage):
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'")
    server.take()
    assert stage.engine.find_cancel(*client.key)
    server >> complete("SET") + IDLE
    client << complete("SET") + IDLE
    server << b""
    # what the client asks meanwhile goes the same way
    client >> query("SELECT 1")
    server << query("SELECT 1")
    server >> result("1")
    client << result("1")
    server << b""
    stage.engine.cancel_done(server.id)
    server << query("ASK")
    server >> settings(TimeZone="UTC")
    assert (client.state, server.state) == ("idle", "idle")


def test_the_same_server_needs_nothing(stage: Stage):
    client, server = stage.pair()
    set_time_zone(client, server)
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_another_server_is_brought_to_the_clients_settings(stage: Stage):
    client, server = stage.pair()
    set_time_zone(client, server)
    stage.client() >> query("BEGIN")
    client >> query("SELECT 1")
    second = stage.server()
    # nothing of the client's is sent before the server has them
    second << SET_UTC
    second >> SET_DONE
    client << b""
    second << query("SELECT 1")
    second >> result("1")
    client << result("1")
    assert second.state == "idle"


def test_from_the_queue_too(stage: Stage):
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    other, client = stage.client(pool=pool), stage.client(pool=pool, settings={"TimeZone": "UTC"})
    other >> query("SELECT 1")
    client >> query("SELECT 2") + query("SELECT 3")
    server >> result("1")
    server << query("SELECT 1") + SET_UTC
    assert client.state == "waiting"
    server >> SET_DONE
    server << query("SELECT 2") + query("SELECT 3")
    assert client.state == "active"


def test_the_extended_protocol_waits_too(stage: Stage):
    server = stage.idle_server()
    client = stage.client(settings={"TimeZone": "UTC"})
    batch = parse("", "SELECT 1") + bind("") + execute() + SYNC
    for at in range(0, len(batch), 7):
        client >> batch[at : at + 7]
    server << SET_UTC
    server >> SET_DONE
    server << batch


def test_a_name_in_lists_of_sessions_is_not_waited_for(stage: Stage):
    server = stage.idle_server()
    client = stage.client(settings={"application_name": "mine"})
    client >> query("SELECT 1")
    heard = server.take()
    assert heard.startswith(query("SELECT pg_catalog.set_config('application_name', 'mine', false)"))
    assert heard.endswith(query("SELECT 1"))


def test_another_client_gets_the_server_as_it_was_opened(stage: Stage):
    client, server = stage.pair()
    other = stage.client()
    set_time_zone(client, server)
    other >> query("SELECT 1")
    server << RESET
    server >> RESET_DONE
    server << query("SELECT 1")
    server >> result("1")
    other << result("1")


def test_a_server_whose_settings_fit_is_preferred(stage: Stage):
    client, server = stage.pair()
    set_time_zone(client, server)
    # used last, and so the first choice otherwise
    stage.idle_server()
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_what_the_proxy_asks_is_not_seen(stage: Stage):
    client, server = stage.pair()
    set_time_zone(client, server)
    stage.client() >> query("BEGIN")
    client >> query("SELECT 1")
    second = stage.server()
    second >> notice("of the proxy's") + parameter("TimeZone", "UTC") + SET_DONE
    second << SET_UTC + query("SELECT 1")
    second >> notice("of the client's") + result("1")
    client << notice("of the client's") + result("1")


def test_statements_behind_set_wait_for_nothing(stage: Stage):
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'") + query("SELECT 1")
    server << query("SET TimeZone = 'UTC'") + query("SELECT 1")
    server >> complete("SET") + IDLE
    server << b""
    server >> result("1")
    client << complete("SET") + IDLE + result("1")
    server << query("ASK")


def test_within_a_transaction_it_is_asked_at_its_end(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN") + query("SET TimeZone = 'UTC'")
    server >> complete("BEGIN") + OPEN + complete("SET") + OPEN
    server.take()
    assert server.state == "active"
    client >> query("ROLLBACK")
    server >> complete("ROLLBACK") + IDLE
    server << query("ROLLBACK") + query("ASK")
    # rolled back: nothing is set
    server >> settings()
    client << complete("BEGIN") + OPEN + complete("SET") + OPEN + complete("ROLLBACK") + IDLE
    stage.client() >> query("SELECT 1")
    server << query("SELECT 1")


def test_the_next_statement_may_come_while_the_server_is_asked(stage: Stage):
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'")
    server >> complete("SET") + IDLE
    client << complete("SET") + IDLE
    client >> query("SELECT 1")
    server << query("SET TimeZone = 'UTC'") + query("ASK") + query("SELECT 1")
    server >> settings(TimeZone="UTC") + result("1")
    client << result("1")
    assert server.state == "idle"


def test_set_in_the_extended_protocol(stage: Stage):
    client, server = stage.pair()
    client >> parse("", "SET TimeZone = 'UTC'") + bind("") + execute() + SYNC
    server.take()
    server >> b"1\0\0\0\4" + b"2\0\0\0\4" + complete("SET") + IDLE
    server << query("ASK")


def test_a_session_is_never_asked(stage: Stage):
    client, server = stage.session_pair()
    client >> query("SET TimeZone = 'UTC'")
    server >> complete("SET") + IDLE
    client << complete("SET") + IDLE
    server << query("SET TimeZone = 'UTC'")


# --- at the login -------------------------------------------------------------------------------


def test_a_server_that_only_lends_its_greeting_stays_as_it_is(stage: Stage):
    """The first login of a pool waits for a server's parameters; it needs no more of it."""
    pool = stage.pool()
    client = stage.connect()
    stage.wants(pool, {"application_name": "mine"})
    stage.greets_from_servers = True
    client >> startup(user="someone")
    server = stage.server()
    client << AUTHENTICATED + IDLE
    server << b""
    assert server.state == "idle"


# --- when it goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [error("57014") + IDLE, complete("BEGIN") + OPEN, error("57014") + FAILED],
    ids=["an error", "a transaction", "a failed transaction"],
)
def test_when_settings_fail_nothing_of_the_client_runs(stage: Stage, failure: bytes):
    """For instance by the statement_timeout of whoever had the server before."""
    one, two = stage.idle_server(), stage.idle_server()
    client = stage.client(settings={"TimeZone": "UTC"})
    client >> query("DELETE FROM t")
    two << SET_UTC
    two >> failure
    assert two.end == "SETTINGS_FAILED"
    # another server may take them
    one << SET_UTC
    one >> failure
    client << fatal("08006")
    assert client.ended
    assert two.take() == one.take() == b""


def test_another_server_that_takes_them(stage: Stage):
    one, two = stage.idle_server(), stage.idle_server()
    client = stage.client(settings={"TimeZone": "UTC"})
    client >> query("SELECT 1")
    two << SET_UTC
    two >> error("57014") + IDLE
    one << SET_UTC
    one >> SET_DONE
    one << query("SELECT 1")
    one >> result("1")
    client << result("1")


@pytest.mark.parametrize("how", ["terminate", "hang up"])
def test_a_client_that_leaves_while_it_waits_for_its_settings(stage: Stage, how: str):
    server = stage.idle_server()
    client = stage.client(settings={"TimeZone": "UTC"})
    client >> query("DELETE FROM t")
    if how == "terminate":
        client >> TERMINATE
    client.hangs_up()
    server << SET_UTC
    server >> SET_DONE
    server << b""
    assert client.state == "gone"


def test_a_client_whose_settings_could_not_be_read_keeps_its_server(stage: Stage):
    """For instance because it has set statement_timeout to next to nothing."""
    client, server = stage.pair()
    client >> query("SET statement_timeout = 1")
    server >> complete("SET") + IDLE
    client << complete("SET") + IDLE
    server >> columns("name", "setting") + error("57014") + IDLE
    client << b""
    assert client.is_pinned()
    assert server.state == "active"
    assert stage.figures()["pinned"] == 1
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")
    client.hangs_up()
    # what it has set is reset before another gets the server
    assert server.take().endswith(query("DISCARD ALL"))
    server >> complete("DISCARD ALL") + IDLE
    assert server.state == "idle"


def test_a_server_that_dies_when_asked_takes_its_client_along(stage: Stage):
    """Nobody knows what the client had set."""
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'")
    server >> complete("SET") + IDLE
    client << complete("SET") + IDLE
    server >> fatal("57P01")
    server.hangs_up()
    client << fatal("08006")
    assert client.ended


def test_a_server_that_dies_when_it_is_brought_to_settings_costs_the_client_nothing(stage: Stage):
    client, server = stage.pair()
    set_time_zone(client, server)
    stage.client() >> query("BEGIN")
    client >> query("SELECT 1")
    second = stage.server()
    second << SET_UTC
    second >> fatal("57P01")
    second.hangs_up()
    third = stage.server()
    third << SET_UTC
    third >> SET_DONE
    third << query("SELECT 1")


class CannotSync(Hooks):
    def sync_message(self, have: int, want: int) -> tuple[bytes, bool]:
        raise ValueError("no such settings")


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "from the queue"])
def test_without_its_settings_nothing_of_a_client_runs(waits: bool):
    stage = Stage(hooks=CannotSync)
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    owner = stage.client(pool=pool)
    if waits:
        owner >> query("SELECT 1")
        server << query("SELECT 1")
    client = stage.client(pool=pool, settings={"TimeZone": "UTC"})
    client >> query("SELECT 2")
    if waits:
        server >> result("1")
    client << fatal("08006")
    assert client.ended
    assert b"SELECT 2" not in server.take()
    assert server.end == "SETTINGS_FAILED"
    assert len(stage.log.lines) == 1
    stage.log.lines.clear()
    stage.close()


# --- clients that end --------------------------------------------------------------------------------


def test_a_client_that_ends_while_its_server_is_asked(stage: Stage):
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'")
    server >> complete("SET") + IDLE
    client.hangs_up()
    assert client.state == "gone"
    assert server.end == "UNCLEAN"


def test_a_pinned_client_leaves_a_clean_server(stage: Stage):
    client, server = stage.pair()
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client >> query("SET TimeZone = 'UTC'")
    server >> complete("SET") + IDLE
    server << query("LISTEN a") + query("SET TimeZone = 'UTC'")
    client.hangs_up()
    server << query("DISCARD ALL")
    assert server.state == "tested"
    server >> complete("DISCARD ALL") + IDLE
    assert server.state == "idle"
    other = stage.client()
    other >> query("SELECT 1")
    server << query("SELECT 1")


def test_a_session_at_rest_leaves_a_server_that_is_not_reset(stage: Stage):
    """Only what is dirty is cleaned."""
    client, server = stage.session_pair()
    client >> query("SELECT 1")
    server >> result("1")
    server.take()
    client.hangs_up()
    server << b""
    assert server.state == "idle"


def test_a_server_whose_reset_fails_is_closed(stage: Stage):
    client, server = stage.session_pair()
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client.hangs_up()
    server >> error("57014") + IDLE
    assert server.end == "RESET_FAILED"


def test_a_reset_in_a_strange_state_is_not_trusted(stage: Stage):
    client, server = stage.session_pair()
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client.hangs_up()
    server >> complete("BEGIN") + FAILED
    assert server.state == "gone"


def test_without_a_reset_query_a_dirty_server_is_closed(stage: Stage):
    client, server = stage.session_pair(reset_query=b"")
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client.hangs_up()
    assert server.state == "gone"


def test_a_reset_that_keeps_statements_is_not_thought_to_drop_them(stage: Stage):
    """Or a name that is taken would be given again."""
    pool = stage.pool(reset_query=query("RESET ALL"))
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> parse("a", "SELECT 1") + SYNC
    server >> b"1\0\0\0\4" + IDLE
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client.hangs_up()
    assert server.take().endswith(query("DEALLOCATE ALL") + query("RESET ALL"))
    server >> complete("DEALLOCATE ALL") + IDLE + complete("RESET") + IDLE
    assert server.state == "idle"
    assert server.statements() == 0
