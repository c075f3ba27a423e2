"""A shared backend that can't be made the tenant's: nothing of the client's has run, nobody else is hurt.

docs/decisions/0012-shared-backends.md says what a switch consists of, and what a failure means at each point.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, backend_of, provide, shared_config, shares_again
from tests.pg_server import Server
from tests.step_relay import Fault, Passage, StepRelay
from tests.wire_client import (
    SYNC,
    ConnectionEnded,
    WireClient,
    bind,
    close_statement,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    wait_until,
)


@pytest.fixture
def shared(proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    provide(pg)
    return proxies(**shared_config(pg, 1))


@pytest.fixture
def revoked(pg: Server) -> Iterator[Callable[[], None]]:
    """Call to take acme's role from the service; it is given back in the end."""
    conn = pg.connect()

    def revoke() -> None:
        conn.execute("REVOKE acme_app FROM tenant_proxy_service")

    yield revoke
    conn.execute("GRANT acme_app TO tenant_proxy_service")
    conn.close()


def refusal(client: WireClient, sql: str) -> list[str]:
    """SQLSTATEs of what a statement brings that ends the connection."""
    client.send(query(sql))
    return sqlstates(client.until_end())


def count(server: Server) -> int:
    """Rows that a statement which must not run would have left."""
    with server.connect() as conn:
        found = conn.execute("SELECT count(*) FROM acme.scratch").fetchone()
    assert found is not None
    return found[0]


def test_a_membership_that_is_revoked(shared, pg, revoked):
    """Once while the backend is acme's already (PostgreSQL looks at SET ROLE only), then when it is not."""
    with shared.wire("acme_app") as acme, shared.wire("beta_app") as beta:
        assert acme.value("SELECT current_user") == "acme_app"
        revoked()
        assert beta.value("SELECT current_user") == "beta_app"
        assert refusal(acme, "INSERT INTO scratch VALUES (1, 'ran')") == ["08006"]
        assert count(pg) == 0
        assert beta.value("SELECT item FROM orders WHERE id = 1") == "bolt"
    with pytest.raises(psycopg.OperationalError, match="no backend could be made"):
        shared.connect("acme_app", options="-c extra_float_digits=2")


def kill_shared(server: Server) -> int:
    with server.connect() as conn:
        found = conn.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE usename = %s AND application_name <> 'tenant_proxy code'",
            [SERVICE["user"]],
        ).fetchone()
    assert found is not None
    return found[0]


def shared_servers(proxy: Proxy) -> list[dict[str, str]]:
    return [one for one in proxy.admin("SHOW SERVERS") if one["user"] == SERVICE["user"]]


def test_a_backend_that_is_killed_at_rest(shared, pg):
    with shared.wire("acme_app") as acme, shared.wire("beta_app") as beta:
        assert acme.value("SELECT 1") == "1"
        for client, name in ((acme, "acme_app"), (beta, "beta_app"), (acme, "acme_app")):
            assert kill_shared(pg) >= 1
            wait_until(lambda: not shared_servers(shared), "its end was noticed", 5)
            assert client.value("SELECT current_user") == name


def test_a_backend_that_is_killed_again_and_again(shared, pg):
    """Each statement has run as its tenant, or its client was told."""
    stop = threading.Event()

    def killer() -> None:
        while not stop.wait(0.05):
            kill_shared(pg)

    thread = threading.Thread(target=killer)
    thread.start()
    right = lost = 0
    try:
        for _ in range(60):
            for name in ("acme_app", "beta_app"):
                try:
                    with shared.connect(name) as conn:
                        row = conn.execute("SELECT current_user, current_schema()").fetchone()
                except psycopg.OperationalError:
                    lost += 1
                    continue
                assert row == (name, name.removesuffix("_app"))
                right += 1
    finally:
        stop.set()
        thread.join()
    assert right
    with shared.wire("acme_app") as acme:
        wait_until(lambda: acme.value("SELECT current_user") == "acme_app", "all is well again", 10)


def test_a_role_that_is_dropped(new_pg, own_proxy):
    server = new_pg()
    provide(server)
    with server.connect() as conn:
        conn.execute("CREATE ROLE acme_other NOLOGIN; GRANT acme_other TO tenant_proxy_service, acme_app")
        conn.execute("GRANT USAGE ON SCHEMA acme TO acme_other; GRANT SELECT ON acme.orders TO acme_other")
        config = shared_config(server)
        config["tenants"] = [{"name": "acme", "role": "acme_other"}, {"name": "beta"}]
        proxy = own_proxy(server, **config)
        with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
            assert acme.value("SELECT current_user") == "acme_other"
            assert beta.value("SELECT 1") == "1"
            conn.execute("DROP OWNED BY acme_other; DROP ROLE acme_other")
            assert refusal(acme, "SELECT item FROM orders") == ["08006"]
            assert beta.value("SELECT current_user") == "beta_app"


def test_a_cancel_that_comes_with_the_switch(shared, pg):
    """It finds nothing to stop, or its own statement; the next tenant never feels it."""
    with shared.connect("acme_app") as acme, shared.wire("beta_app") as beta:
        for _ in range(40):
            acme.cancel()
            assert beta.value("SELECT current_user") == "beta_app"
            try:
                row = acme.execute("SELECT current_user").fetchone()
            except psycopg.errors.QueryCanceled:
                continue
            assert row == ("acme_app",)
        assert backend_of(beta)


# --- at every point of a switch that goes ahead of the client's bytes -------------------------


SWITCH, DISARM, STATEMENT, REST = (
    "set_config('role', 'acme_app'",
    "exit_on_error = off",
    "INSERT",
    "RESET ROLE",
)


@pytest.fixture(scope="module")
def relay(pg: Server) -> Iterator[StepRelay]:
    relay = StepRelay(pg.host, pg.port)
    yield relay
    relay.close()


@pytest.fixture
def stepped(proxies: Callable[..., Proxy], pg: Server, relay: StepRelay) -> Proxy:
    provide(pg)
    config = shared_config(pg, 1)
    config["clusters"][0] |= {"host": relay.host, "port": relay.port, "tls": {"mode": "disable"}}
    proxy = proxies(**config)
    for user in ("acme_app", "beta_app"):
        with proxy.wire(user) as client:
            shares_again(pg, client)
    return proxy


def until_nobodys(acme: WireClient, beta: WireClient) -> None:
    """Tenants that take turns leave the backend nobody's."""
    for _ in range(4):
        assert acme.value("SELECT current_user") == "acme_app"
        assert beta.value("SELECT current_user") == "beta_app"


#: part of a switch from another tenant's backend: the client's bytes wait until it is made
AWAITED = "RESET ALL; SET exit_on_error = off"


def until_betas(acme: WireClient, beta: WireClient) -> None:
    """One that has the backend to itself leaves it its own."""
    assert acme.value("SELECT current_user") == "acme_app"
    for _ in range(8):
        assert beta.value("SELECT current_user") == "beta_app"


INSERT = "INSERT INTO scratch VALUES (77, current_user)"


def happens(
    stepped: Proxy,
    pg: Server,
    relay: StepRelay,
    point: str,
    fault: Fault,
    *messages: bytes,
    goes_on: bool = True,
) -> list[str]:
    """What the client is told of a statement that meets the fault: SQLSTATEs, none if it was done.

    It was done exactly if the client was told so, as the right role; and nobody else is hurt.
    """
    with pg.connect() as conn, stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        (until_betas if point == AWAITED else until_nobodys)(acme, beta)
        conn.execute("DELETE FROM acme.scratch WHERE id = 77")
        relay.expect(point, fault)
        sent = messages or [query(INSERT)]
        told = acme.told(*sent, times=sum(one[:1] in b"QS" for one in sent))
        assert relay.happened.wait(10)
        assert beta.value("SELECT current_user || ' ' || current_schema()") == "beta_app beta"
        found = conn.execute("SELECT body FROM acme.scratch WHERE id = 77").fetchall()
        if told:
            assert found == []
        else:
            assert found == [("acme_app",)]
            if goes_on:
                assert acme.value("SELECT current_user || ' ' || current_schema()") == "acme_app acme"
        conn.execute("DELETE FROM acme.scratch WHERE id = 77")
    return told


def terminate(pg: Server) -> Fault:
    def fault(passage: Passage) -> None:
        with pg.connect() as conn:
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", [passage.pid])

    return fault


def cancel(pg: Server) -> Fault:
    def fault(passage: Passage) -> None:
        with pg.connect() as conn:
            conn.execute("SELECT pg_cancel_backend(%s)", [passage.pid])

    return fault


def cut(passage: Passage) -> None:
    passage.cut()


@pytest.mark.parametrize(("point", "told"), [(SWITCH, []), (DISARM, []), (STATEMENT, ["57P01"]), (REST, [])])
def test_the_backend_is_killed(stepped, pg, relay, point, told):
    """Before the statement has begun, another backend is tried."""
    assert happens(stepped, pg, relay, point, terminate(pg)) == told


@pytest.mark.parametrize(
    "messages",
    [
        [parse(INSERT), bind(), execute(), SYNC],
        [parse(INSERT, "s"), SYNC, bind(name="s"), execute(), SYNC, query("SELECT 1")],
        [parse("SELECT 1", "s"), close_statement("s"), SYNC, query(INSERT)],
        [query("BEGIN; SELECT 1"), query(INSERT), query("COMMIT")],
        [query(f"{INSERT} /* {'long' * 20_000} */")],
        [query("BEGIN"), query(INSERT), query("COMMIT")],
    ],
    ids=["unnamed", "named", "closed", "transaction", "long", "begun"],
)
def test_what_was_on_its_way_goes_to_another_backend(stepped, pg, relay, messages):
    assert happens(stepped, pg, relay, DISARM, terminate(pg), *messages, goes_on=False) == []
    assert relay.passed.count("BEGIN") <= 1


@pytest.mark.parametrize(
    ("point", "told"), [(SWITCH, ["08006"]), (DISARM, ["08006"]), (STATEMENT, ["08006"]), (REST, [])]
)
def test_the_network_is_cut(stepped, pg, relay, point, told):
    """How far the backend has come is not known, so nothing is tried again."""
    assert happens(stepped, pg, relay, point, cut) == told


def test_the_answer_and_the_end_are_found_together(stepped, pg, relay):
    """The worker reads what the server has answered when the connection has been cut already."""
    (worker,) = stepped.worker_pids()

    def cut_too(passage: Passage) -> None:
        passage.cut()
        os.kill(worker, signal.SIGCONT)

    def hold(_: Passage) -> None:
        os.kill(worker, signal.SIGSTOP)
        relay.expect(REST, cut_too)

    assert happens(stepped, pg, relay, STATEMENT, hold) == []


@pytest.mark.parametrize("point", [SWITCH, DISARM, STATEMENT, REST])
def test_a_late_cancel_between_two_messages(stepped, pg, relay, point):
    assert happens(stepped, pg, relay, point, cancel(pg)) == []


class Stopped:
    """A fault: the switch waits for a lock on a catalog that it reads, and is cancelled or times out."""

    def __init__(self, pg: Server, how: str) -> None:
        self._pg, self._how = pg, how
        self.ended = threading.Event()

    def __call__(self, passage: Passage) -> None:
        conn = self._pg.connect()
        # what the backend knows of roles is forgotten, so that it has to look again
        conn.execute("ALTER ROLE acme_app CONNECTION LIMIT -1")
        conn.execute("BEGIN; LOCK TABLE pg_catalog.pg_authid, pg_catalog.pg_auth_members")
        threading.Thread(target=self._stop, args=[conn, passage.pid]).start()

    def _stop(self, conn: psycopg.Connection[Any], pid: int) -> None:
        wait_until(lambda: waits(conn, pid), "the switch waits for the lock", 10)
        if self._how == "cancel":
            conn.execute("SELECT pg_cancel_backend(%s)", [pid])
        wait_until(lambda: not waits(conn, pid), "the switch was stopped", 10)
        conn.execute("ROLLBACK")
        conn.close()
        self.ended.set()


@pytest.mark.parametrize("how", ["cancel", "statement_timeout"])
def test_the_switch_itself_is_stopped(stepped, pg, relay, how):
    fault = Stopped(pg, how)
    with pg.connect() as conn:
        if how == "statement_timeout":
            conn.execute(f"ALTER ROLE {SERVICE['user']} SET statement_timeout = '700ms'")
            kill_shared(pg)
        try:
            assert happens(stepped, pg, relay, SWITCH, fault) == []
            assert fault.ended.wait(10)
        finally:
            conn.execute(f"ALTER ROLE {SERVICE['user']} RESET statement_timeout")
            kill_shared(pg)


def waits(conn: psycopg.Connection[Any], pid: int) -> bool:
    found = conn.execute(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [pid]
    ).fetchone()
    return found is not None


@pytest.mark.parametrize(("point", "told"), [(SWITCH, ["08006"]), (DISARM, []), (STATEMENT, [])])
def test_the_membership_is_revoked(stepped, pg, relay, revoked, point, told):
    assert happens(stepped, pg, relay, point, lambda _: revoked(), goes_on=False) == told


@pytest.mark.parametrize(
    ("how", "told"), [("killed", []), ("cut", []), ("cancelled", []), ("revoked", ["08006"])]
)
def test_an_awaited_switch(stepped, pg, relay, revoked, how, told):
    """Nothing of the client's has been sent, so another backend is tried, or the same one again."""
    faults: dict[str, Fault] = {
        "killed": terminate(pg),
        "cut": cut,
        "cancelled": cancel(pg),
        "revoked": lambda _: revoked(),
    }
    assert happens(stepped, pg, relay, AWAITED, faults[how], goes_on=how != "revoked") == told


def test_an_awaited_switch_that_was_stopped_before_it_began(stepped, relay):
    """The backend still knows what it knew of the tenant that had it: the last values of its sequences."""
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        until_betas(acme, beta)
        beta.value("SELECT nextval('numbers')")
        relay.expect("SET exit_on_error = off; SELECT", lambda passage: passage.refuse("57014"))
        assert acme.told(query("SELECT lastval()")) == ["55000"]
        assert relay.happened.wait(10)


@pytest.mark.parametrize(
    ("point", "told"),
    [(AWAITED, ["08006"]), (SWITCH, ["08006"]), (DISARM, ["42P01"]), (STATEMENT, ["42P01"])],
)
def test_the_role_is_dropped(new_pg, own_proxy, point, told):
    """PostgreSQL looks at the role when it is set; a session whose role has gone runs on, without rights.

    So it doesn't find the tenant's schema any more.
    """
    server = new_pg()
    provide(server)
    with contextlib.closing(StepRelay(server.host, server.port)) as relay, server.connect() as conn:
        conn.execute(
            "CREATE ROLE acme_other NOLOGIN; GRANT acme_other TO tenant_proxy_service, acme_app;"
            "GRANT USAGE ON SCHEMA acme TO acme_other; GRANT ALL ON acme.scratch TO acme_other"
        )
        config = shared_config(server, 1)
        config["clusters"][0] |= {"host": relay.host, "port": relay.port, "tls": {"mode": "disable"}}
        config["tenants"] = [{"name": "acme", "role": "acme_other"}, {"name": "beta"}]
        proxy = own_proxy(server, **config)
        with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
            for client in (acme, beta):
                shares_again(server, client)
            for _ in range(4):
                assert acme.value("SELECT current_user") == "acme_other"
                assert beta.value("SELECT current_user") == "beta_app"
            if point == AWAITED:
                for _ in range(8):
                    beta.value("SELECT 1")

            def drop(_: Passage) -> None:
                conn.execute("DROP OWNED BY acme_other; DROP ROLE acme_other")

            relay.expect(point.replace("acme_app", "acme_other"), drop)
            said = acme.told(query("INSERT INTO scratch VALUES (78, 'ran')"))
            assert relay.happened.wait(10)
            assert said == told
            assert beta.value("SELECT current_user || ' ' || current_schema()") == "beta_app beta"
            found = conn.execute("SELECT count(*) FROM acme.scratch WHERE id = 78").fetchone()
            assert found == (0,)


def test_a_broken_tenant_costs_others_no_backends(stepped, pg, revoked):
    """From the second failure on its switches are awaited, and undone by the server."""
    with stepped.wire("acme_app") as acme, stepped.wire("beta_app") as beta:
        until_nobodys(acme, beta)
        revoked()
        assert refusal(acme, "SELECT 1") == ["08006"]
        before = backend_of(beta)
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError, match="no backend could be made"):
                stepped.connect("acme_app", options="-c extra_float_digits=2")
            assert backend_of(beta) == before


def assert_told(end: ConnectionEnded) -> None:
    """A connection ends with its reason."""
    assert sqlstates(end.replies)


def test_cancels_all_the_time(shared, pg):
    """Every statement has run as its tenant, or its client was told, whatever a cancel has hit."""
    stop = threading.Event()

    def storm() -> None:
        with pg.connect() as conn:
            while not stop.is_set():
                conn.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity, generate_series(1, 20)"
                    " WHERE usename = %s AND application_name <> 'tenant_proxy code'",
                    [SERVICE["user"]],
                )

    thread = threading.Thread(target=storm)
    right = 0
    with shared.wire("acme_app") as acme, shared.wire("beta_app") as beta:
        clients = {"acme": acme, "beta": beta}
        until_nobodys(acme, beta)
        thread.start()
        try:
            for _ in range(300):
                for name in clients:
                    try:
                        clients[name].send(query("SELECT current_user || ' ' || current_schema()"))
                        answer = clients[name].until_ready()
                    except ConnectionEnded as end:
                        assert_told(end)
                        clients[name].close()
                        clients[name] = shared.wire(f"{name}_app").__enter__()
                        continue
                    if sqlstates(answer):
                        assert sqlstates(answer) == ["57014"]
                    else:
                        assert rows(answer) == [(f"{name}_app {name}",)]
                        right += 1
        finally:
            stop.set()
            thread.join()
            for client in clients.values():
                client.close()
    assert right
