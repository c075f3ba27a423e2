"""Cancel keys: a request reaches only the statement of its own client, and the server that it is sent to
serves nobody else until the request has gone through."""

from tests.protocol.stage import Stage
from tests.protocol.wire import COPY_IN, IDLE, OPEN, complete, copy_data, error, fatal, query, result


def find(stage, client):
    return stage.engine.find_cancel(*client.key)


def test_a_running_statement_is_found(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT pg_sleep(10)")
    number, info = find(stage, client)
    assert (number, info) == (server.id, server)


def test_nothing_is_found_where_nothing_runs(stage: Stage):
    client, server = stage.pair()
    assert find(stage, client) is None
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    # idle in its transaction
    assert find(stage, client) is None


def test_nobody_is_found_by_another_key(stage: Stage):
    client, _ = stage.pair()
    client >> query("SELECT 1")
    pid, key = client.key
    for wrong in ((pid + 1, key), (pid, b"\xff" + key[1:]), (pid, key + b"\0"), (pid, key[:3]), (pid, b"")):
        assert stage.engine.find_cancel(*wrong) is False


def test_a_client_that_has_gone_is_not_found(stage: Stage):
    client = stage.client()
    client.hangs_up()
    assert find(stage, client) is False


def test_a_waiting_client_has_nothing_to_cancel(stage: Stage):
    pool = stage.pool(max=1)
    stage.client(pool=pool) >> query("SELECT 1")
    client = stage.client(pool=pool)
    client >> query("SELECT 2")
    assert find(stage, client) is None


def test_a_cancelled_statement_and_the_next(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT pg_sleep(10)")
    number, _ = find(stage, client)
    server >> error("57014") + IDLE
    client << error("57014") + IDLE
    assert server.state == "being_canceled"
    stage.engine.cancel_done(number)
    assert server.state == "idle"


def test_until_the_request_has_gone_through_the_server_serves_nobody(stage: Stage):
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool)
    client, other = stage.client(pool=pool), stage.client(pool=pool)
    client >> query("SELECT 1")
    other >> query("SELECT 2")
    number, _ = find(stage, client)
    # done before the request came
    server >> result("1")
    client << result("1")
    server << query("SELECT 1")
    # the client itself as well
    client >> query("SELECT 3")
    server << b""
    assert stage.figures(pool)["sv_being_canceled"] == 1
    stage.engine.cancel_done(number)
    server << query("SELECT 2")
    server >> result("2")
    other << result("2")
    server << query("SELECT 3")


def test_two_requests_for_one_statement(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    number, _ = find(stage, client)
    find(stage, client)
    server >> result("1")
    stage.engine.cancel_done(number)
    assert server.state == "being_canceled"
    stage.engine.cancel_done(number)
    assert server.state == "idle"


def test_in_a_transaction_the_client_keeps_its_server_meanwhile(stage: Stage):
    client, server = stage.pair()
    client >> query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client >> query("SELECT 1")
    number, _ = find(stage, client)
    server >> result("1", status=OPEN)
    client.take()
    server.take()
    client >> query("SELECT 2")
    server << query("SELECT 2")
    stage.engine.cancel_done(number)
    assert server.state == "active"


def test_a_copy_can_be_cancelled(stage: Stage):
    client, server = stage.pair()
    client >> query("COPY t FROM STDIN")
    server >> COPY_IN
    client >> copy_data(b"1\n")
    assert find(stage, client)


def test_a_cancelled_server_is_lost_meanwhile(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    number, _ = find(stage, client)
    server.hangs_up()
    client << fatal("08006")
    stage.engine.cancel_done(number)


def test_the_client_leaves_meanwhile(stage: Stage):
    client, server = stage.session_pair()
    client >> query("SELECT 1")
    number, _ = find(stage, client)
    server >> result("1")
    client.hangs_up()
    assert server.state == "being_canceled"
    stage.engine.cancel_done(number)
    assert server.state == "idle"


def test_a_server_goes_for_good_when_its_time_came_meanwhile(stage: Stage):
    client, server = stage.pair()
    client >> query("SELECT 1")
    number, _ = find(stage, client)
    server >> result("1")
    stage.engine.expire_servers(stage.first_pool())
    stage.engine.cancel_done(number)
    assert server.state == "gone"


def test_what_the_proxy_itself_runs_is_not_cancelled(stage: Stage):
    """The client's statement is over; what runs reads its settings."""
    client, server = stage.pair()
    client >> query("SET TimeZone = 'UTC'")
    server >> complete("SET") + IDLE
    client << complete("SET") + IDLE
    server << query("SET TimeZone = 'UTC'") + query("ASK")
    assert find(stage, client) is None
    client >> query("SELECT 1")
    assert find(stage, client) is None
