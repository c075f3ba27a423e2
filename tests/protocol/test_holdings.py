"""Prepared statements of all clients of a tenant together take so much memory at most."""

import pytest

from tests.protocol.stage import Client, Server, Stage
from tests.protocol.wire import (
    BOUND,
    CLOSED,
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
    row,
)

#: four large statements, and a little
MOST = 100_000
ANSWER = BOUND + row("1") + complete("SELECT 1") + IDLE


def large(number: int) -> str:
    return f"SELECT {number} " + "x" * 20_000


@pytest.fixture
def pool(stage: Stage) -> int:
    return stage.pool(max_prepared_bytes=MOST)


def prepare(client: Client, server: Server, number: int) -> None:
    client >> parse(f"s{number}", large(number)) + SYNC
    server << parse(f"tp_{number}", large(number)) + SYNC
    server >> PARSED + IDLE
    client << PARSED + IDLE


def forget(client: Client, number: int) -> None:
    """Servers keep it."""
    client >> close(f"s{number}") + SYNC
    client << CLOSED + IDLE


@pytest.fixture
def full(stage: Stage, pool: int) -> tuple[Client, Server]:
    """A client with as many statements as its tenant may have."""
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    for number in range(1, 5):
        prepare(client, server, number)
    return client, server


def test_clients_of_all_logins_together(stage: Stage, full):
    other_login = stage.pool(max_prepared_bytes=MOST)
    server = stage.idle_server(pool=other_login)
    second = stage.client(pool=other_login)
    second >> parse("mine", large(5)) + bind("mine") + execute() + SYNC
    second << error("53200") + IDLE
    # one client gives up what another may have
    client, known = full
    forget(client, 1)
    forget(client, 2)
    client >> parse("s6", large(6)) + SYNC
    known << close("tp_1") + parse("tp_5", large(6)) + SYNC
    known >> CLOSED + PARSED + IDLE
    client << PARSED + IDLE
    server << b""


def test_other_tenants_have_their_own(stage: Stage, full):
    pool = stage.pool(2, max_prepared_bytes=MOST)
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> parse("mine", large(5)) + SYNC
    server << parse("tp_5", large(5)) + SYNC


def test_the_session_goes_on(stage: Stage, full):
    client, server = full
    client >> parse("s5", large(5)) + SYNC
    client << error("53200") + IDLE
    client >> bind("s1") + execute() + SYNC
    server << bind("tp_1") + execute() + SYNC
    server >> ANSWER
    client << ANSWER
    client >> query("SELECT 1")
    server << query("SELECT 1")


def test_in_a_transaction_it_is_an_error_like_any_other(stage: Stage, full):
    client, server = full
    client >> query("BEGIN")
    server << query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    client >> parse("s5", large(5)) + SYNC
    server >> error("42601") + IDLE.replace(b"I", b"E")
    client << error("53200") + IDLE.replace(b"I", b"E")


def test_unnamed_ones(stage: Stage, full):
    """A large one is refused, a small one never is: each client has but one."""
    client, server = full
    client >> parse("", large(5)) + SYNC
    client << error("53200") + IDLE
    client >> parse("", "SELECT 1") + bind("") + execute() + SYNC
    server << parse("", "SELECT 1") + bind("") + execute() + SYNC
    server >> PARSED + ANSWER
    client << PARSED + ANSWER


def test_one_text_of_many_clients_is_had_once(stage: Stage, pool: int):
    server = stage.idle_server(pool=pool)
    prepare(stage.client(pool=pool), server, 1)
    for _ in range(20):
        client = stage.client(pool=pool)
        client >> parse("s", large(1)) + SYNC
        server << SYNC
        server >> IDLE
        client << PARSED + IDLE


def test_names_count_too(stage: Stage, pool: int):
    server = stage.idle_server(pool=pool)
    client = stage.client(pool=pool)
    client >> b"".join(parse(f"s{n}", "SELECT 1") for n in range(2000)) + SYNC
    heard = server.take()
    assert heard.startswith(parse("tp_1", "SELECT 1"))
    server >> PARSED
    assert stage.engine.client_rows()[0][9] < 1500


def test_what_the_server_alone_knows_is_forgotten(stage: Stage, full):
    """The least recently used first, and no more than is needed."""
    client, server = full
    forget(client, 2)
    forget(client, 3)
    client >> parse("s5", large(5)) + SYNC
    server << close("tp_2") + parse("tp_5", large(5)) + SYNC
    server >> CLOSED + PARSED + IDLE
    client << PARSED + IDLE
    assert server.statements() == 4


def test_and_what_idle_servers_know(stage: Stage, pool: int, full):
    client, server = full
    for number in range(1, 5):
        forget(client, number)
    client >> query("BEGIN")
    server << query("BEGIN")
    server >> complete("BEGIN") + OPEN
    client << complete("BEGIN") + OPEN
    other = stage.client(pool=pool)
    other >> query("BEGIN")
    second = stage.server()
    second << query("BEGIN")
    second >> complete("BEGIN") + OPEN
    other << complete("BEGIN") + OPEN
    # in a transaction that one is not touched
    other >> parse("mine", large(5)) + SYNC
    second >> error("42601") + IDLE.replace(b"I", b"E")
    other << error("53200") + IDLE.replace(b"I", b"E")
    other >> query("ROLLBACK")
    second.take()
    second >> complete("ROLLBACK") + IDLE
    other << complete("ROLLBACK") + IDLE
    other >> query("BEGIN")
    second << query("BEGIN")
    second >> complete("BEGIN") + OPEN
    other << complete("BEGIN") + OPEN
    client >> query("COMMIT")
    server << query("COMMIT")
    server >> complete("COMMIT") + IDLE
    client << complete("COMMIT") + IDLE
    other >> parse("mine", large(5)) + SYNC
    second << parse("tp_5", large(5)) + SYNC
    assert server.end == "EVICTED"


def test_who_leaves_gives_room(stage: Stage, pool: int, full):
    client, server = full
    client.hangs_up()
    second = stage.client(pool=pool)
    second >> parse("mine", large(5)) + SYNC
    server << close("tp_1") + parse("tp_5", large(5)) + SYNC


def test_too_many_of_one_client(stage: Stage):
    """Refused like any statement, where the session ended."""
    client, server = stage.pair()
    client >> b"".join(parse(f"s{n}", "SELECT 1") for n in range(10_000)) + SYNC
    server.take()
    server >> PARSED + IDLE
    assert client.take() == PARSED * 10_000 + IDLE
    client >> parse("one_more", "SELECT 1") + SYNC
    client << error("53200") + IDLE
