"""How conversations end: Terminate or a lost connection, on either side, in every phase.

Whatever the phase: a server goes back to its pool only at rest; a client is told, unless that would fall
into the middle of a message; nobody else notices.
"""

from collections.abc import Callable

import pytest

from tests.protocol.stage import Client, Server, Stage
from tests.protocol.wire import (
    AUTHENTICATED,
    BOUND,
    COPY_IN,
    FAILED,
    FLUSH,
    IDLE,
    OPEN,
    PARSED,
    SYNC,
    TERMINATE,
    bind,
    columns,
    complete,
    copy_data,
    error,
    execute,
    fatal,
    function_call,
    parse,
    query,
    result,
    row,
    startup,
)

# --- phases of a client that has a server: how it gets there, and whether the server is at rest ------


def at_rest(client: Client, server: Server) -> None:
    client >> query("SELECT 1")
    server >> result("1")


def query_sent(client: Client, server: Server) -> None:
    client >> query("SELECT 1")


def answer_begun(client: Client, server: Server) -> None:
    client >> query("SELECT 1")
    server >> columns("a") + row("1")


def answer_in_the_middle_of_a_row(client: Client, server: Server) -> None:
    client >> query("SELECT 1")
    server >> columns("a") + row("x" * 1000)[:500]


def answered_but_for_ready(client: Client, server: Server) -> None:
    client >> query("SELECT 1")
    server >> result("1")[: -len(IDLE)]


def second_query_unanswered(client: Client, server: Server) -> None:
    client >> query("SELECT 1") + query("SELECT 2")
    server >> result("1")


def in_a_transaction(client: Client, server: Server) -> None:
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN


def in_a_failed_transaction(client: Client, server: Server) -> None:
    client >> query("BEGIN; SELECT 1/0")
    server >> error("22012") + FAILED


def batch_without_sync(client: Client, server: Server) -> None:
    client >> parse("", "SELECT 1") + FLUSH
    server >> PARSED


def batch_failed_before_sync(client: Client, server: Server) -> None:
    client >> parse("", "SELEC") + FLUSH
    server >> error("42601")


def sync_sent(client: Client, server: Server) -> None:
    client >> parse("", "SELECT 1") + bind("") + execute() + SYNC
    server >> PARSED + BOUND


def copying_in(client: Client, server: Server) -> None:
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client >> copy_data(b"1\n")


def copying_in_the_middle_of_data(client: Client, server: Server) -> None:
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client >> copy_data(b"x" * 1000)[:500]


def copy_failed_in_the_middle_of_data(client: Client, server: Server) -> None:
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client >> copy_data(b"x" * 1000)[:500]
    server >> error("22P02") + IDLE


def bind_in_the_middle(client: Client, server: Server) -> None:
    client >> parse("", "SELECT $1") + bind("", b"x" * 100_000)[:80_000]
    server >> PARSED


def calling_a_function(client: Client, server: Server) -> None:
    client >> function_call(1598)


REST: list[Callable[[Client, Server], None]] = [at_rest]
BUSY: list[Callable[[Client, Server], None]] = [
    query_sent,
    answer_begun,
    answer_in_the_middle_of_a_row,
    answered_but_for_ready,
    second_query_unanswered,
    in_a_transaction,
    in_a_failed_transaction,
    batch_without_sync,
    batch_failed_before_sync,
    sync_sent,
    copying_in,
    copying_in_the_middle_of_data,
    copy_failed_in_the_middle_of_data,
    bind_in_the_middle,
    calling_a_function,
]
#: a message to the client is cut in two
IN_THE_MIDDLE_OF_A_ROW = [answer_in_the_middle_of_a_row]
#: what the client says next would be the rest of a message
CLIENT_IN_THE_MIDDLE = [copying_in_the_middle_of_data, copy_failed_in_the_middle_of_data, bind_in_the_middle]


def phases(functions):
    return pytest.mark.parametrize("phase", functions, ids=lambda function: function.__name__)


@pytest.fixture(params=["transaction", "session"])
def pair(request, stage: Stage):
    return stage.pair() if request.param == "transaction" else stage.session_pair()


@pytest.fixture
def bystander(stage: Stage):
    """Somebody in a transaction of their own on another server, who must not notice anything."""
    server = stage.idle_server()
    client = stage.client()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    yield client
    assert server.take() == query("BEGIN")
    client >> query("COMMIT")
    server << query("COMMIT")
    server >> complete("COMMIT") + IDLE
    client << complete("COMMIT") + IDLE


# --- the client ends ------------------------------------------------------------------------------


@phases(REST)
@pytest.mark.parametrize("how", ["terminate", "hang up", "half-close"])
def test_a_client_that_ends_at_rest_leaves_its_server_to_others(stage, pair, bystander, phase, how):
    client, server = pair
    phase(client, server)
    end(client, how)
    assert client.state == "gone"
    if server.state == "tested":
        server >> complete("DISCARD ALL") + IDLE
    assert server.state == "idle"


@pytest.mark.parametrize(
    ("phase", "how"),
    [
        pytest.param(phase, how, id=f"{phase.__name__}, {how}")
        for phase in BUSY
        for how in ("terminate", "hang up", "half-close")
        if how != "terminate" or phase not in CLIENT_IN_THE_MIDDLE
    ],
)
def test_a_client_that_ends_otherwise_takes_its_server_along(stage, pair, bystander, phase, how):
    client, server = pair
    phase(client, server)
    end(client, how)
    server.take()
    assert (client.state, server.state) == ("gone", "gone")
    assert server.ended
    assert server.end == "UNCLEAN"
    assert client.end == ("TERMINATED" if how == "terminate" else "GONE")


def end(client, how):
    if how == "terminate":
        client >> TERMINATE
        client.take()
        assert client.ended
    elif how == "hang up":
        client.hangs_up()
    else:
        client.stops_sending()


def test_terminate_behind_a_query_waits_for_nothing(stage: Stage):
    client, server = stage.pair()
    client >> query("INSERT INTO t VALUES (1)") + TERMINATE
    # the server hears the statement, as it would have from the client itself
    assert server.take() == query("INSERT INTO t VALUES (1)")
    assert server.ended


def test_terminate_without_a_server(stage: Stage):
    client = stage.client()
    client >> TERMINATE
    assert client.is_cut_off()
    assert client.end == "TERMINATED"


def test_terminate_while_skipping_to_sync(stage: Stage):
    client = stage.client()
    client >> parse("", "SELECT forbidden") + FLUSH
    client << error("42501")
    client >> TERMINATE
    assert client.is_cut_off()


@pytest.mark.parametrize("how", ["terminate", "hang up"])
def test_a_client_that_leaves_the_queue(stage: Stage, how: str):
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    first, leaving, last = (stage.client(pool=pool) for _ in range(3))
    first >> query("SELECT 1")
    leaving >> query("SELECT 2")
    last >> query("SELECT 3")
    assert stage.figures(pool)["waiting"] == 2
    if how == "terminate":
        leaving >> TERMINATE
    leaving.hangs_up()
    stage.sweep()
    assert stage.figures(pool)["waiting"] == 1
    server >> result("1")
    server << query("SELECT 1") + query("SELECT 3")
    server >> result("3")
    last << result("3")


def test_what_a_client_asked_for_that_has_left_the_queue_is_not_run(stage: Stage):
    """Over TCP, where the end of one that is not read is noticed only when somebody looks."""
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    first, last = stage.client(pool=pool), stage.client(pool=pool)
    leaving = stage.client(pool=pool, over_tcp=True)
    first >> query("SELECT 1")
    leaving >> query("DELETE FROM t")
    last >> query("SELECT 3")
    leaving.hangs_up()
    server >> result("1")
    server << query("SELECT 1") + query("SELECT 3")
    assert leaving.end == "GONE"


def test_a_client_over_tcp_that_leaves_the_queue_is_noticed_meanwhile(stage: Stage):
    pool = stage.pool(max=1)
    stage.client(pool=pool) >> query("SELECT 1")
    leaving = stage.client(pool=pool, over_tcp=True)
    leaving >> query("SELECT 2")
    leaving.hangs_up()
    stage.sweep()
    assert leaving.end == "GONE"


# --- the server ends -------------------------------------------------------------------------------


@phases(BUSY)
def test_a_client_is_told_that_its_server_is_lost(stage, pair, bystander, phase):
    client, server = pair
    phase(client, server)
    client.take()
    server.hangs_up()
    if phase in IN_THE_MIDDLE_OF_A_ROW:
        assert client.is_cut_off()
    else:
        client << fatal("08006")
        assert client.ended
    assert client.end == "SERVER_LOST"


@phases(BUSY)
def test_a_client_is_told_what_the_server_says_last(stage, pair, bystander, phase):
    client, server = pair
    phase(client, server)
    client.take()
    if phase in IN_THE_MIDDLE_OF_A_ROW:
        server >> row("x" * 1000)[500:]
        client.take()
    server >> fatal("57P01")
    server.hangs_up()
    client << fatal("57P01")
    assert client.ended


def test_an_idle_server_that_is_lost_costs_no_client_anything(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    server >> result("1")
    client << result("1")
    server.hangs_up()
    assert server.end == "GONE"
    client >> query("SELECT 2")
    second = stage.server()
    second << query("SELECT 2")
    second >> result("2")
    client << result("2")


def test_an_idle_server_that_says_goodbye_is_not_used_again(stage: Stage):
    """It is some time from the last words of a server to the end of its connection."""
    client, server = stage.pair()
    server >> fatal("57P01")
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")
    server.take()
    assert server.ended


def test_a_server_that_says_goodbye_behind_an_answer_takes_no_other_client(stage: Stage):
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    first, second = stage.client(pool=pool), stage.client(pool=pool)
    first >> query("SELECT 1")
    second >> query("SELECT 2")
    server >> result("1") + fatal("57P01")
    server.hangs_up()
    first << result("1")
    assert first.state == "idle"
    other = stage.server()
    other << query("SELECT 2")
    other >> result("2")
    second << result("2")


def test_a_server_lost_without_a_word_while_its_client_waits_in_vain(stage: Stage):
    """The refused connection of the server that a client waits for: the client waits on."""
    stage.servers_log_in = False
    client = stage.client()
    client >> query("SELECT 1")
    first = stage.server()
    stage.servers_log_in = True
    first.hangs_up()
    assert first.end == "LOGIN_FAILED"
    stage.server() << query("SELECT 1")


def test_a_server_lost_while_it_resets(stage: Stage):
    client, server = stage.session_pair()
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client >> TERMINATE
    server.take()
    assert server.state == "tested"
    server.hangs_up()
    assert server.end == "GONE"


# --- before the relay ---------------------------------------------------------------------------------


def test_a_client_that_never_says_anything(stage: Stage):
    client = stage.connect()
    client.hangs_up()
    assert client.end == "GONE"


def test_a_client_that_leaves_within_its_startup_packet(stage: Stage):
    client = stage.connect()
    client >> startup(user="someone")[:-3]
    client.hangs_up()
    assert client.end == "GONE"


def test_a_client_that_leaves_instead_of_its_password(stage: Stage):
    client = stage.connect()
    client >> startup(user="someone", wait="yes")
    client >> TERMINATE
    assert client.is_cut_off()
    assert client.end == "TERMINATED"


def test_a_client_that_leaves_while_its_greeting_waits_for_a_server(stage: Stage):
    stage.opens_servers = False
    pool = stage.pool(session_mode=True)
    client = stage.connect()
    stage.wants(pool)
    client >> startup(user="someone")
    assert client.state == "waiting_login"
    assert stage.figures(pool)["waiting"] == 1
    client.hangs_up()
    stage.sweep()
    assert stage.figures(pool)["waiting"] == 0


def test_a_server_lost_in_the_greeting_of_a_session(stage: Stage):
    stage.servers_log_in = False
    pool = stage.pool(session_mode=True)
    client = stage.connect()
    stage.wants(pool)
    client >> startup(user="someone")
    stage.server().hangs_up()
    second = stage.server()
    second >> IDLE
    client << AUTHENTICATED + IDLE
