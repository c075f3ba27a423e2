"""Who gets which server, in what order, and when somebody's time is up."""

import time

import pytest

from tenant_proxy.relay.core import Reason
from tests.protocol.stage import POOL_DEFAULTS, Stage
from tests.protocol.wire import (
    AUTHENTICATED,
    FLUSH,
    IDLE,
    OPEN,
    PARSED,
    complete,
    copy_data,
    fatal,
    parse,
    query,
    result,
    startup,
)

#: pool/fair.pxd: who waits for longer gets any server
PATIENCE_S = 0.01


def busy(stage, pool, number=1):
    """Servers that are all in somebody's transaction; [(client, server)]."""
    pairs = []
    for _ in range(number):
        client = stage.client(pool=pool)
        client >> query("BEGIN")
        server = stage.server()
        server << query("BEGIN")
        server >> complete("BEGIN") + OPEN
        client << complete("BEGIN") + OPEN
        pairs.append((client, server))
    return pairs


def commit(client, server):
    client >> query("COMMIT")
    server << query("COMMIT")
    server >> complete("COMMIT") + IDLE
    client << complete("COMMIT") + IDLE


def answer(server, number):
    server << query(f"SELECT {number}")
    server >> result(str(number))


# --- the queue ------------------------------------------------------------------------------


def test_first_come_first_served(stage: Stage):
    pool = stage.pool(max=1)
    ((owner, server),) = busy(stage, pool)
    waiting = [stage.client(pool=pool) for _ in range(5)]
    for number, client in enumerate(waiting):
        client >> query(f"SELECT {number}")
    assert [client.state for client in waiting] == ["waiting"] * 5
    figures = stage.figures(pool)
    assert (figures["waiting"], figures["cl_waiting"], figures["total"]) == (5, 5, 1)
    commit(owner, server)
    for number, client in enumerate(waiting):
        assert [one.state for one in waiting] == ["idle"] * number + ["active"] + ["waiting"] * (4 - number)
        answer(server, number)
        client << result(str(number))
    assert server.state == "idle"
    # and the owner had waited for the server to be opened
    assert sum(stage.figures(pool)["wait_hist"]) == 6


def test_a_pool_opens_no_more_servers_than_its_maximum(stage: Stage):
    pool = stage.pool(max=3)
    busy(stage, pool, 3)
    stage.client(pool=pool) >> query("SELECT 1")
    assert stage.opened() == 3


def test_a_server_is_opened_for_each_who_waits_and_no_more(stage: Stage):
    stage.servers_log_in = False
    pool = stage.pool(max=10)
    clients = [stage.client(pool=pool) for _ in range(3)]
    for client in clients:
        client >> query("SELECT 1")
    assert stage.opened() == 3
    assert stage.figures(pool)["opening"] == 3


def test_whoever_waited_longest_gets_the_server_that_opens_first(stage: Stage):
    stage.servers_log_in = False
    pool = stage.pool()
    first, second = stage.client(pool=pool), stage.client(pool=pool)
    first >> query("SELECT 1")
    second >> query("SELECT 2")
    one, two = stage.server(), stage.server()
    two >> IDLE
    two << query("SELECT 1")
    one >> IDLE
    one << query("SELECT 2")


def test_what_a_client_says_while_it_waits_is_kept(stage: Stage):
    pool = stage.pool(max=1)
    ((owner, server),) = busy(stage, pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    client >> query("SELECT 2")
    client >> query("SELECT 3")[:7]
    commit(owner, server)
    server << query("SELECT 1") + query("SELECT 2")
    client >> query("SELECT 3")[7:]
    server << query("SELECT 3")


def test_the_most_recently_used_server_is_taken(stage: Stage):
    """So that those that are not needed grow old."""
    pool = stage.pool()
    (a, one), (b, two) = busy(stage, pool, 2)
    commit(a, one)
    commit(b, two)
    stage.client(pool=pool) >> query("SELECT 1")
    two << query("SELECT 1")


def test_pools_have_their_own_servers(stage: Stage):
    one, two = stage.pool(), stage.pool()
    stage.idle_server(pool=one)
    stage.client(pool=two) >> query("SELECT 1")
    stage.server() << query("SELECT 1")
    assert stage.figures(one)["idle"] == 1


# --- limits -------------------------------------------------------------------------------------


def test_a_full_queue_refuses(stage: Stage):
    pool = stage.pool(max=1, queue_limit=1)
    ((owner, server),) = busy(stage, pool)
    stage.client(pool=pool) >> query("SELECT 1")
    late = stage.client(pool=pool)
    late >> query("SELECT 2")
    late << fatal("53300")
    assert late.ended
    assert late.end == "QUEUE_FULL"
    commit(owner, server)
    answer(server, 1)


def test_waiting_too_long(stage: Stage):
    pool = stage.pool(max=1, queue_timeout_s=0.2)
    ((owner, server),) = busy(stage, pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    stage.sweep()
    client << b""
    time.sleep(0.21)
    stage.sweep()
    client << fatal("57P03")
    assert client.ended
    commit(owner, server)
    assert server.state == "idle"


def test_waiting_too_long_for_a_greeting(stage: Stage):
    stage.opens_servers = False
    stage.wants(stage.pool(session_mode=True, queue_timeout_s=0.01))
    client = stage.connect()
    client >> startup(user="someone")
    time.sleep(0.02)
    stage.sweep()
    client << fatal("57P03")
    assert client.ended


def test_a_query_that_takes_too_long(stage: Stage):
    pool = stage.pool(query_timeout_s=0.01)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> query("SELECT pg_sleep(10)")
    stage.sweep()
    client << b""
    time.sleep(0.02)
    stage.sweep()
    client << fatal("57014")
    assert client.ended
    # closing the connection does not stop the statement: it has to be cancelled
    assert stage.hooks.stopped == [server.pid]
    assert server.state == "gone"


def test_each_query_of_a_pipeline_has_its_own_time(stage: Stage):
    pool = stage.pool(query_timeout_s=0.1)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1") + query("SELECT 2")
    time.sleep(0.06)
    server >> result("1")
    time.sleep(0.06)
    stage.sweep()
    client << result("1")
    assert client.state == "active"


def test_idle_in_a_transaction_for_too_long(stage: Stage):
    pool = stage.pool(idle_in_transaction_timeout_s=0.01)
    ((client, server),) = busy(stage, pool)
    time.sleep(0.02)
    stage.sweep()
    client << fatal("25P03")
    assert client.ended
    assert server.state == "gone"


def test_a_batch_without_sync_is_idle_in_a_transaction(stage: Stage):
    pool = stage.pool(idle_in_transaction_timeout_s=0.01)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> parse("", "SELECT 1")
    server >> b"1\0\0\0\4"
    time.sleep(0.02)
    stage.sweep()
    client << b"1\0\0\0\4" + fatal("25P03")


def test_half_a_message_that_is_of_no_statement_keeps_no_server(stage: Stage):
    pool = stage.pool(idle_in_transaction_timeout_s=0.1)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1") + copy_data(b"x" * 1000)[:500]
    server >> result("1")
    client << result("1")
    time.sleep(0.15)
    stage.sweep()
    client << fatal("25P03")
    assert server.state == "gone"


def test_who_is_answered_behind_a_flush_has_his_time_from_then_on(stage: Stage):
    pool = stage.pool(idle_in_transaction_timeout_s=0.2)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> parse("", "SELECT 1") + FLUSH
    time.sleep(0.25)
    stage.sweep()
    server >> PARSED
    stage.sweep()
    client << PARSED
    assert client.state == "active"
    time.sleep(0.25)
    stage.sweep()
    client << fatal("25P03")


def test_who_sends_a_long_statement_slowly_is_not_idle(stage: Stage):
    pool = stage.pool(idle_in_transaction_timeout_s=0.2)
    ((client, server),) = busy(stage, pool)
    long = query(f"SELECT '{'x' * 5000}'")
    for start in range(0, 5000, 1000):
        client >> long[start : start + 1000]
        time.sleep(0.08)
        stage.sweep()
    client >> long[5000:]
    server << long
    server >> result("x", OPEN)
    client << result("x", OPEN)
    client >> long[:1000]
    for _ in range(4):
        time.sleep(0.08)
        stage.sweep()
    client << fatal("25P03")


def test_who_reads_a_large_answer_slowly_is_not_idle():
    stage = Stage(send_buffer_bytes=1 << 20)
    pool = stage.pool(idle_in_transaction_timeout_s=0.3)
    ((client, server),) = busy(stage, pool)
    client >> query("SELECT 1")
    server >> result("x" * 700_000, OPEN)
    read = b""
    for _ in range(5):
        read += client.socket.recv(100_000)
        stage.work()
        time.sleep(0.1)
        stage.sweep()
    assert client.state == "active"
    assert read + client.take() == result("x" * 700_000, OPEN)
    client >> query("SELECT 1")
    server >> result("x" * 700_000, OPEN)
    for _ in range(5):
        time.sleep(0.1)
        stage.sweep()
    assert client.end == "IDLE_IN_TRANSACTION"
    stage.close()


def test_an_idle_client(stage: Stage):
    pool = stage.pool(client_idle_timeout_s=0.01)
    client = stage.client(pool=pool)
    time.sleep(0.02)
    stage.sweep()
    client << fatal("57P05")
    assert client.ended


def test_a_login_that_takes_too_long(stage: Stage):
    silent, asked = stage.connect(), stage.connect()
    asked >> startup(user="someone", wait="yes")
    done = stage.client()
    time.sleep(0.02)
    stage.sweep(login_timeout_s=0.01)
    silent << fatal("08006")
    asked << fatal("08006")
    done << b""
    assert silent.ended
    assert asked.ended


def test_an_idle_server_ages(stage: Stage):
    pool = stage.pool(server_idle_timeout_s=0.01, min=1)
    one, two = stage.idle_server(pool=pool), stage.idle_server(pool=pool)
    time.sleep(0.02)
    stage.sweep()
    assert sorted((one.end, two.end)) == ["", "IDLE"]


def test_a_server_past_its_lifetime_goes_when_it_is_free(stage: Stage):
    stage.servers_log_in = False
    idle, busy_one = stage.open_server(stage.first_pool()), stage.open_server(stage.first_pool())
    stage.work()
    client = stage.client()
    soon = int((time.time() + 0.01) * 1e6)
    stage.engine.server_ready(busy_one.id, 1, soon)
    client >> query("SELECT 1")
    stage.engine.server_ready(idle.id, 1, soon)
    time.sleep(0.02)
    stage.sweep()
    assert idle.end == "LIFETIME"
    assert busy_one.state == "active"
    busy_one >> result("1")
    client << result("1")
    assert busy_one.end == "LIFETIME"


def test_a_server_that_never_answers_its_login(stage: Stage):
    stage.servers_log_in = False
    pool = stage.pool(connect_timeout_s=0.01)
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    server = stage.server()
    time.sleep(0.02)
    stage.opens_servers = False
    stage.sweep()
    assert server.end == "CONNECT_FAILED"
    assert client.state == "waiting"


def test_a_reset_that_never_ends_is_not_waited_for_by_anybody(stage: Stage):
    client, server = stage.session_pair(max=1)
    client >> query("LISTEN a")
    server >> complete("LISTEN") + IDLE
    client.hangs_up()
    assert server.state == "tested"
    stage.sweep()
    assert server.state == "tested"


# --- what a server was opened with ---------------------------------------------------------------


def test_a_server_opened_with_other_settings_does_not_fit(stage: Stage):
    server = stage.idle_server(TimeZone="UTC")
    client = stage.client(TimeZone="CET")
    client >> query("SELECT 1")
    stage.server() << query("SELECT 1")
    assert server.state == "idle"


def test_in_a_full_pool_a_server_that_fits_nobody_makes_room(stage: Stage):
    pool = stage.pool(max=1)
    server = stage.idle_server(pool=pool, TimeZone="UTC")
    client = stage.client(pool=pool, TimeZone="CET")
    client >> query("SELECT 1")
    assert server.end == "EVICTED"
    # it is told that it is not needed
    assert server.take() == b"X\0\0\0\4"
    stage.server() << query("SELECT 1")


def test_in_a_full_pool_a_server_that_comes_free_makes_room(stage: Stage):
    pool = stage.pool(max=1)
    ((owner, server),) = busy(stage, pool)
    client = stage.client(pool=pool, TimeZone="CET")
    client >> query("SELECT 1")
    commit(owner, server)
    assert server.end == "EVICTED"
    stage.server() << query("SELECT 1")


def test_while_the_first_has_patience_a_server_goes_to_whom_it_fits(stage: Stage):
    """Tried again where the machine let the test wait for longer than that."""
    for _ in range(20):
        pool = stage.pool(max=1)
        ((owner, server),) = busy(stage, pool)
        other, fitting = stage.client(pool=pool, TimeZone="CET"), stage.client(pool=pool)
        began = time.monotonic()
        other >> query("SELECT 1")
        fitting >> query("SELECT 2")
        commit(owner, server)
        if time.monotonic() - began < PATIENCE_S:
            break
    server << query("SELECT 2")


def test_but_not_for_long(stage: Stage):
    pool = stage.pool(max=1)
    ((owner, server),) = busy(stage, pool)
    other, fitting = stage.client(pool=pool, TimeZone="CET"), stage.client(pool=pool)
    other >> query("SELECT 1")
    fitting >> query("SELECT 2")
    time.sleep(0.06)
    commit(owner, server)
    assert server.end == "EVICTED"
    stage.server() << query("SELECT 1")


# --- a server that is down -------------------------------------------------------------------------


def test_clients_wait_while_the_server_is_down(stage: Stage):
    stage.opens_servers = False
    client = stage.client()
    client >> query("SELECT 1")
    stage.engine.pool_down(stage.first_pool(), 0, 60)
    stage.engine.poke()
    client << b""
    stage.opens_servers = True
    stage.engine.pool_demand(stage.first_pool())
    stage.server() << query("SELECT 1")


def test_or_fail_if_they_shall(stage: Stage):
    stage.opens_servers = False
    pool = stage.pool(fail_when_down=True)
    waiting, later = stage.client(pool=pool), stage.client(pool=pool)
    waiting >> query("SELECT 1")
    waiting << b""
    stage.engine.pool_down(pool, 0, 0.02)
    stage.engine.poke()
    waiting << fatal("08006")
    later >> query("SELECT 1")
    later << fatal("08006")
    assert (waiting.end, later.end) == ("SERVER_UNAVAILABLE", "SERVER_UNAVAILABLE")
    # until it is time to try again
    time.sleep(0.03)
    last = stage.client(pool=pool)
    last >> query("SELECT 1")
    assert last.state == "waiting"


def test_while_others_still_work_nobody_fails(stage: Stage):
    pool = stage.pool(max=2, fail_when_down=True)
    ((owner, server),) = busy(stage, pool)
    stage.opens_servers = False
    waiting = stage.client(pool=pool)
    waiting >> query("SELECT 1")
    stage.engine.pool_down(pool, 0, 60)
    stage.engine.poke()
    waiting << b""
    commit(owner, server)
    answer(server, 1)
    waiting << result("1")


def test_those_who_want_what_the_server_refuses_are_told(stage: Stage):
    stage.opens_servers = False
    pool = stage.pool()
    wrong, right = stage.client(pool=pool, TimeZone="nowhere"), stage.client(pool=pool)
    wrong >> query("SELECT 1")
    right >> query("SELECT 2")
    stage.engine.fail_waiting(pool, stage.settings.intern({"TimeZone": "nowhere"}), fatal("22023"))
    stage.engine.poke()
    wrong << fatal("22023")
    assert right.state == "waiting"


# --- taken away -----------------------------------------------------------------------------------


def test_an_idle_server_is_given_up_for_another_pool(stage: Stage):
    one, two = stage.pool(min=1), stage.pool()
    kept = stage.idle_server(pool=one)
    older, newer = stage.idle_server(pool=two), stage.idle_server(pool=two)
    assert stage.engine.evict_idle([one, two])
    stage.work()
    assert (kept.end, older.end, newer.end) == ("", "EVICTED", "")
    assert stage.engine.evict_idle([one, two])
    assert not stage.engine.evict_idle([one, two])
    stage.work()
    assert (kept.end, newer.end) == ("", "EVICTED")


def test_servers_of_an_older_configuration_are_not_used_again(stage: Stage):
    pool = stage.pool()
    idle = stage.idle_server(pool=pool)
    in_use = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    in_use << query("SELECT 1")
    stage.engine.expire_servers(pool)
    stage.work()
    assert idle.state == "gone"
    in_use >> result("1")
    client << result("1")
    assert in_use.state == "gone"
    client >> query("SELECT 2")
    stage.server() << query("SELECT 2")


def test_nor_is_one_waited_for_that_is_being_opened(stage: Stage):
    stage.servers_log_in = False
    client = stage.client()
    client >> query("SELECT 1")
    silent = stage.server()
    stage.servers_log_in = True
    stage.engine.expire_servers(stage.first_pool())
    stage.work()
    assert silent.end == "RETIRED"
    stage.server() << query("SELECT 1")


def test_a_retired_pool_loses_its_servers_as_they_come_free(stage: Stage):
    pool = stage.pool()
    idle = stage.idle_server(pool=pool)
    in_use = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    stage.engine.pool_retire(pool)
    stage.work()
    assert idle.end == "RETIRED"
    in_use >> result("1")
    client << result("1")
    assert in_use.end == "RETIRED"


def test_new_limits_hold_from_now_on(stage: Stage):
    pool = stage.pool(max=1)
    busy(stage, pool)
    client = stage.client(pool=pool)
    client >> query("SELECT 1")
    assert client.state == "waiting"
    stage.engine.pool_update(pool, **(POOL_DEFAULTS | {"max": 2}))
    stage.engine.pool_demand(pool)
    stage.server() << query("SELECT 1")


def test_draining_ends_those_who_do_nothing(stage: Stage):
    ((working, server),) = busy(stage, stage.first_pool())
    resting = stage.client()
    left = stage.engine.end_idle_clients(Reason.SHUTDOWN, fatal("57P01"))
    assert left == 1
    resting << fatal("57P01")
    assert resting.ended
    commit(working, server)
    stage.engine.end_idle_clients(Reason.SHUTDOWN, fatal("57P01"))
    working << fatal("57P01")


def test_the_end_of_all(stage: Stage):
    ((working, server),) = busy(stage, stage.first_pool())
    resting = stage.client()
    stage.engine.end_all_clients(Reason.SHUTDOWN, fatal("57P01"))
    working << fatal("57P01")
    resting << fatal("57P01")
    assert server.end == "UNCLEAN"


# --- figures ----------------------------------------------------------------------------------------


def test_counts(stage: Stage):
    pool = stage.pool(max=2)
    (one, first), _ = busy(stage, pool, 2)
    stage.client(pool=pool) >> query("SELECT 1")
    figures = stage.figures(pool)
    expected = {"clients": 3, "cl_active": 2, "cl_waiting": 1, "waiting": 1, "total": 2, "sv_active": 2}
    assert {name: figures[name] for name in expected} == expected
    commit(one, first)
    first >> result("1")
    figures = stage.figures(pool)
    expected = {"cl_active": 3, "cl_waiting": 0, "total": 2, "sv_active": 1, "sv_idle": 1, "idle": 1}
    assert {name: figures[name] for name in expected} == expected
    assert figures["xacts"] == 2
    assert figures["queries"] == 4


def test_a_client_that_is_told_of_its_end_is_not_counted_any_more(stage: Stage):
    """Its socket stays for a while, so that it can read the last words."""
    pool = stage.pool()
    client = stage.client(pool=pool)
    client >> b"?????"
    figures = stage.figures(pool)
    assert (figures["clients"], figures["cl_active"]) == (0, 0)
    received = figures["bytes_in"]
    client << fatal("08P01")
    client.hangs_up()
    assert stage.figures(pool)["bytes_in"] == received > 0


def test_a_pool_without_links_has_figures(stage: Stage):
    assert stage.figures()["total"] == 0


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_greeting_comes_from_a_server_where_it_must(stage: Stage, mode: str):
    stage.wants(stage.pool(session_mode=mode == "session"))
    client = stage.connect()
    client >> startup(user="someone")
    client << AUTHENTICATED + IDLE
    assert stage.opened() == (1 if mode == "session" else 0)


def test_a_server_is_opened_for_whoever_is_first_though_others_are_on_their_way(stage: Stage):
    pool = stage.pool()
    waiting = [stage.client(pool=pool, TimeZone=zone) for zone in ("UTC", "CET", "CET")]
    stage.opens_servers = False
    for client in waiting:
        client >> query("SELECT 1")
    utc, cet = (stage.settings.intern({"TimeZone": zone}) for zone in ("UTC", "CET"))
    # that for the first has been given up, as another came first when it was there
    stage.open_server(pool, cet)
    assert stage.engine.pool_wanted(pool) == utc
    stage.open_server(pool, utc)
    assert stage.engine.pool_wanted(pool) == cet
