"""A shared backend that is a tenant's for one transaction, and what may happen at each point of that."""

from __future__ import annotations

import pytest

from tests.adversity.test_switch import (
    Stopped,
    cancel,
    cut,
    relay,
    revoked,
    stepped,
    terminate,
    until_nobodys,
)
from tests.fix_proxy import Proxy
from tests.pg_server import Server
from tests.step_relay import Fault, Passage, StepRelay
from tests.wire_client import (
    SYNC,
    WireClient,
    bind,
    describe_portal,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    wait_until,
)

__all__ = ["relay", "revoked", "stepped"]

#: what the statement leaves where it has run; PostgreSQL's word on who ran it
READ = "SELECT current_user || ' ' || current_schema() || ' turn'"
ACME, BETA = "acme_app acme turn", "beta_app beta turn"

BIND, EXECUTE, STATEMENT, END = "\0tp_turn", "E ", READ, "S "

SIMPLE = [query(READ)]
EXTENDED = [parse(READ), bind(), describe_portal(), execute(), SYNC]


@pytest.fixture(params=[SIMPLE, EXTENDED], ids=["simple", "extended"])
def messages(request: pytest.FixtureRequest) -> list[bytes]:
    return request.param


def value_of(client: WireClient, messages: list[bytes]) -> str | list[str] | None:
    """The row, or SQLSTATEs."""
    client.send(*messages)
    replies = client.until_ready()
    return sqlstates(replies) or rows(replies)[0][0]


def in_turns(acme: WireClient, beta: WireClient, messages: list[bytes]) -> None:
    until_nobodys(acme, beta)
    for _ in range(2):
        assert value_of(acme, messages) == ACME
        assert value_of(beta, messages) == BETA


def test_what_goes_to_the_server(stepped, relay, messages):
    """One implicit transaction: the switch's Bind and Execute, then the client's, and nothing behind it."""
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        in_turns(acme, beta, messages)
        relay.passed.clear()
        assert value_of(acme, messages) == ACME
        assert [text[0] for text in relay.passed] == list("BEPBES")
        assert "\0tp_turn" in relay.passed[0]


@pytest.mark.parametrize(
    ("sql", "how"),
    [
        ("SELECT item FROM orders WHERE id = 1", "turn"),
        ("SHOW search_path", "turn"),
        ("", "turn"),
        ("COPY orders TO STDOUT", "turn"),
        ("SELECT nextval('numbers')", "switch"),
        ("INSERT INTO scratch VALUES (1, 'x'); DELETE FROM scratch", "switch"),
        ("BEGIN; SELECT 1; COMMIT", "switch"),
        ("SELECT 1; SELECT 2", "switch"),
        ("SELECT $$a$$", "switch"),
        ("SET TimeZone = 'UTC'", "switch"),
    ],
)
def test_what_a_turn_is_for(stepped, relay, sql, how):
    """Texts that only read, a statement each; they answer as they do otherwise."""
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        otherwise = acme.query(sql)
        in_turns(acme, beta, SIMPLE)
        relay.passed.clear()
        assert acme.query(sql) == otherwise or "nextval" in sql
        used = any("tp_turn" in text for text in relay.passed)
        assert used == (how == "turn")
        assert value_of(beta, SIMPLE) == BETA
        assert value_of(acme, SIMPLE) == ACME


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nothing FROM orders",
        "SELECT 1 / (id - id) FROM orders",
        "SELEC 1",
        "SELECT $1",
        "SELECT item FROM orders WHERE id = 'x'",
    ],
)
def test_an_error_of_the_clients(stepped, sql):
    """It is told as without turns, with its position, and leaves the backend to others."""
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        otherwise = acme.query(sql)
        for _ in range(3):
            in_turns(acme, beta, SIMPLE)
            pid = acme.value("SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()")
            assert acme.query(sql) == otherwise
            assert beta.value("SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()") == pid


def test_settings_are_in_force_for_each(stepped):
    with stepped.wire("acme_app", TimeZone="Asia/Tokyo") as acme, stepped.wire("beta_app") as beta:
        acme.query("SET DateStyle = 'German'")
        in_turns(acme, beta, SIMPLE)
        for _ in range(3):
            assert acme.value("SELECT timestamptz '2024-01-01 00:00+00'") == "01.01.2024 09:00:00 JST"
            assert beta.value("SELECT timestamptz '2024-01-01 00:00+00'") == "2024-01-01 00:00:00+00"


@pytest.mark.parametrize("name", ["isolation", "read_only"])
def test_what_a_transaction_begins_with(stepped, relay, name):
    """It has begun when a turn's settings come, so there is none."""
    wanted = {"isolation": "serializable", "read_only": "on"}[name]
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        acme.query(f"SET default_transaction_{name} = '{wanted}'")
        in_turns(acme, beta, SIMPLE)
        relay.passed.clear()
        assert acme.value(f"SHOW transaction_{name}") == wanted
        assert not any("tp_turn" in text for text in relay.passed)


def happens(
    stepped: Proxy, pg: Server, relay: StepRelay, messages: list[bytes], point: str, fault: Fault
) -> str | list[str] | None:
    """What the client reads, or is told, of a statement that meets the fault; nobody else is hurt."""
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        in_turns(acme, beta, messages)
        relay.expect(point, fault)
        told = acme.told(*messages, times=1)
        assert relay.happened.wait(10)
        assert value_of(beta, messages) == BETA
        return told


def has_read_all(server: Server, pid: int) -> bool:
    """The backend is in a transaction, and waits for more of it."""
    with server.connect() as conn:
        found = conn.execute(
            "SELECT FROM pg_stat_activity"
            " WHERE pid = %s AND wait_event = 'ClientRead' AND xact_start IS NOT NULL",
            [pid],
        ).fetchone()
    return found is not None


POINTS = {"bind": BIND, "execute": EXECUTE, "statement": STATEMENT, "end": END}


@pytest.mark.parametrize("point", POINTS)
def test_the_backend_is_killed(stepped, pg, relay, messages, point):
    """Before the switch is acknowledged, another backend is tried: its answer comes with the statement's."""
    early = point in ("bind", "execute")

    def fault(passage: Passage) -> None:
        if not early:
            wait_until(lambda: has_read_all(pg, passage.pid), "the switch has run", 10)
        terminate(pg)(passage)

    told = happens(stepped, pg, relay, messages, POINTS[point], fault)
    # the relay may cut what the backend has said last
    assert told in (["08006"], [] if early else ["57P01"])


@pytest.mark.parametrize("point", POINTS)
def test_the_network_is_cut(stepped, pg, relay, messages, point):
    """How far the backend has come is not known, so nothing is tried again."""
    assert happens(stepped, pg, relay, messages, POINTS[point], cut) == ["08006"]


@pytest.mark.parametrize("point", POINTS)
def test_a_late_cancel(stepped, pg, relay, messages, point):
    """It finds a backend that reads, or stops what runs; never is anything run as somebody else."""
    assert happens(stepped, pg, relay, messages, POINTS[point], cancel(pg)) in ([], ["57014"])


def test_the_membership_is_revoked(stepped, pg, relay, messages, revoked):
    assert happens(stepped, pg, relay, messages, BIND, lambda _: revoked()) == ["08006"]


def test_the_switch_itself_is_stopped(stepped, pg, relay, messages):
    """Another backend is tried."""
    fault = Stopped(pg, "cancel")
    assert happens(stepped, pg, relay, messages, BIND, fault) == []
    assert fault.ended.wait(10)


@pytest.mark.parametrize("ahead", ["switch", "turn"])
def test_the_same_tenant_goes_on_where_its_bytes_went(stepped, pg, relay, ahead):
    """What makes the backend nobody's may be among the bytes that went to another."""
    sql = {"switch": "INSERT INTO scratch VALUES (78, 'x')", "turn": READ}[ahead]
    point = {"switch": "exit_on_error = off", "turn": BIND}[ahead]
    for _ in range(5):
        with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
            in_turns(acme, beta, SIMPLE)
            relay.expect(point, terminate(pg))
            told = acme.told(query(sql))
            assert relay.happened.wait(10)
            if told == ["08006"]:
                # the relay has cut what the backend has said last
                continue
            assert told == []
            for _ in range(3):
                assert value_of(acme, SIMPLE) == ACME
            assert sqlstates(acme.query("DELETE FROM scratch WHERE id = 78")) == []
            break
    else:
        pytest.fail("the backend's last words never came through")
