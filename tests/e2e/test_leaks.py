"""A leak hunter: random sessions of many tenants through few shared backends, each beside a direct one.

Every tenant has its mark in its rows, settings, sequences, statements and temporary tables.  What a client
gets through the proxy must be what a connection of its own to PostgreSQL gets for the same sequence, and no
answer may hold a mark of another's.
"""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.fix_proxy import PASSWORDS, Proxy
from tests.fix_shared import SERVICE, provide, shared_config
from tests.pg_server import Server

TENANTS = 12
#: a longer hunt: TP_LEAK_STEPS=100000
STEPS = int(os.environ.get("TP_LEAK_STEPS", "600"))
#: another hunt than the last: TP_LEAK_SEED=3
SEED = int(os.environ.get("TP_LEAK_SEED", "1"))
THREADS = 4
CLIENTS = 32
BACKENDS = 3

#: SQLSTATEs of a client whose backend was killed
LOST = ("57P01", "08006", None)

#: of a tenant, in whatever it is told
MARK = re.compile(r"(hunt\d+)!")


def name_of(number: int) -> str:
    return f"hunt{number}"


@pytest.fixture(scope="module")
def ground(pg: Server) -> Iterator[Server]:
    """The tenants on the server."""
    provide(pg)
    with pg.connect() as conn:
        for number in range(TENANTS):
            name = name_of(number)
            conn.execute(
                f"CREATE ROLE {name} LOGIN PASSWORD '{name}-secret'; GRANT {name} TO tenant_proxy_service;"
                f"CREATE SCHEMA {name} AUTHORIZATION {name};"
                f"ALTER ROLE {name} SET search_path = {name}, public;"
                f"SET ROLE {name}; SET search_path = {name};"
                "CREATE TABLE marks (id serial PRIMARY KEY, mark text NOT NULL);"
                f"INSERT INTO marks (mark) VALUES ('{name}!');"
                "CREATE FUNCTION own() RETURNS text LANGUAGE sql STABLE AS $$ SELECT min(mark) FROM marks $$;"
                "CREATE VIEW shown AS SELECT mark FROM marks;"
                "RESET ROLE; RESET search_path"
            )
    yield pg
    with pg.connect() as conn:
        for number in range(TENANTS):
            name = name_of(number)
            conn.execute(
                f"DROP SCHEMA {name} CASCADE; DROP OWNED BY {name}; REVOKE {name} FROM tenant_proxy_service;"
                f"DROP ROLE {name}"
            )


@dataclass
class Client:
    """A session through the proxy and its twin on a direct connection."""

    tenant: str
    through: psycopg.Connection
    direct: psycopg.Connection
    history: list[str] = field(default_factory=list)
    #: it is one of those that may have a transaction open
    has_begun: bool = False

    def close(self) -> None:
        self.through.close()
        self.direct.close()


def action(client: Client, chance: random.Random) -> str:
    mark = f"{client.tenant}!{chance.randrange(100)}"
    choices = [
        "SELECT min(mark) FROM marks",
        "SELECT own(), current_user::text, session_user::text, current_schema()",
        "SELECT count(*) > 0 FROM shown",
        f"SET app.mark = '{mark}'",
        f"SET work_mem = '{chance.randrange(1, 9)}MB'",
        f"SET TimeZone = '{chance.choice(['UTC', 'CET', 'Asia/Tokyo'])}'",
        "SHOW work_mem",
        "SHOW TimeZone",
        "SHOW search_path",
        "RESET work_mem",
        "RESET ALL",
        f"SET search_path = {client.tenant}",
        f"SELECT set_config('app.local', '{mark}', true)",
        "SELECT coalesce(current_setting('app.mark', true), '')",
        "SELECT coalesce(current_setting('app.local', true), '')",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        f"INSERT INTO marks (mark) SELECT '{mark}' WHERE false",
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%hunt%!%'"
        f" AND statement NOT LIKE '%{client.tenant}!%'",
        "SELECT 1/0",
        "SELECT to_regclass('kept')::text",
        f"CREATE TEMP TABLE IF NOT EXISTS kept AS SELECT '{mark}'::text AS mark",
        "SELECT mark FROM kept",
        "DISCARD TEMP",
        f"DO $$ BEGIN PERFORM '{mark}'; END $$",
        f"LISTEN {client.tenant}",
        "UNLISTEN *",
        "SELECT count(*) FROM pg_listening_channels()",
        f"NOTIFY {client.tenant}, '{mark}'",
        "SELECT pg_try_advisory_xact_lock(7) IS NOT NULL",
        "DECLARE c CURSOR FOR SELECT mark FROM marks",
    ]
    return chance.choice(choices)


def outcome(conn: psycopg.Connection, sql: str) -> object:
    """Rows and tag, or the SQLSTATE."""
    try:
        # prepared after a few times, so that statements are known on backends
        cursor = conn.execute(sql, prepare=None if sql[0] == "S" else False)
        return (cursor.statusmessage, cursor.fetchall() if cursor.description else [])
    except psycopg.Error as error:
        return error.sqlstate


def is_open(client: Client) -> bool:
    return client.through.info.transaction_status != psycopg.pq.TransactionStatus.IDLE


class Hunters:
    """Threads with clients of their own, each of which is asked for one thing after the other."""

    def __init__(self, proxy: Proxy, server: Server, seed: int) -> None:
        self.proxy, self.server, self.seed = proxy, server, seed
        #: who waits for a backend must not wait for clients that are not asked meanwhile
        self._may_begin = threading.Semaphore(BACKENDS - 1)
        #: backends are killed too
        self._kills = 0
        self._stop = False

    def hunt(self, steps: int) -> int:
        """Returns how many sessions there were."""
        each = steps // THREADS
        with ThreadPoolExecutor(THREADS) as threads:
            return sum(threads.map(lambda number: self._hunt(number, each), range(THREADS)))

    def _hunt(self, number: int, steps: int) -> int:
        chance = random.Random(f"{self.seed} {number}")
        clients: list[Client] = []
        logins = 0
        try:
            for _ in range(steps):
                if self._stop:
                    break
                if len(clients) < CLIENTS // THREADS:
                    clients.append(self._login(chance))
                    logins += 1
                one = chance.choice(clients)
                draw = chance.random()
                if draw < 0.0005:
                    self._kill()
                elif draw < 0.005 and not is_open(one):
                    self._cancel(one)
                elif draw < 0.02 or not self._step(one, chance):
                    clients.remove(one)
                    one.close()
                    self._settle(one)
        except BaseException:
            self._stop = True
            raise
        finally:
            for one in clients:
                one.close()
                self._settle(one)
        return logins

    def _login(self, chance: random.Random) -> Client:
        tenant = name_of(chance.randrange(TENANTS))
        password = f"{tenant}-secret"
        return Client(
            tenant,
            psycopg.connect(self.proxy.dsn(tenant, password=password), autocommit=True),
            psycopg.connect(self.server.dsn(user=tenant, password=password, database="app"), autocommit=True),
        )

    def _settle(self, client: Client) -> None:
        if client.has_begun and not is_open(client):
            client.has_begun = False
            self._may_begin.release()

    def _step(self, client: Client, chance: random.Random) -> bool:
        """False when the client is to go: its backend was killed."""
        sql = action(client, chance)
        if sql == "BEGIN" and not is_open(client):
            if self._may_begin.acquire(blocking=False):
                client.has_begun = True
            else:
                sql = "COMMIT"
        try:
            return self._compare(client, sql)
        finally:
            self._settle(client)

    def _compare(self, client: Client, sql: str) -> bool:
        through = outcome(client.through, sql)
        client.history.append(f"{sql} -> {through}")
        del client.history[:-30]
        if client.through.closed and self._kills and through in LOST:
            return False
        if through == "40001":
            # it began on a shared backend and must be tried again: both sides give it up
            assert client.through.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
            client.through.execute("ROLLBACK")
            if client.direct.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                client.direct.execute("ROLLBACK")
            return True
        direct = outcome(client.direct, sql)
        assert through == direct, (
            f"of {client.tenant}, directly {direct}, through the proxy {through}:\n"
            + "\n".join(client.history)
        )
        foreign = set(MARK.findall(repr(through))) - {client.tenant}
        assert not foreign, "a mark of another's:\n" + "\n".join(client.history)
        return True

    def _cancel(self, client: Client) -> None:
        """A cancel that comes with the answer; the next statements may meet it late, as on any server."""
        timer = threading.Timer(0.002, client.through.cancel)
        timer.start()
        said = outcome(client.through, "SELECT pg_sleep(0.003)")
        timer.join()
        assert said in ("57014", ("SELECT 1", [("",)])) or (client.through.closed and said in LOST), said
        for _ in range(3):
            outcome(client.through, "SELECT 1")

    def _kill(self) -> None:
        self._kills += 1
        with self.server.connect() as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE usename = %s"
                " AND application_name <> 'tenant_proxy code' ORDER BY random() LIMIT 1) AS one",
                [SERVICE["user"]],
            )


@pytest.mark.timeout(300 if STEPS < 10_000 else 0)
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_no_difference_and_no_foreign_mark(
    ground: Server, proxies: Callable[..., Proxy], seed: int, monkeypatch: pytest.MonkeyPatch
):
    for number in range(TENANTS):
        monkeypatch.setitem(PASSWORDS, name_of(number), f"{name_of(number)}-secret")
    config = shared_config(ground, BACKENDS)
    config["tenants"] = [{"name": name_of(number)} for number in range(TENANTS)]
    config["users"] = [
        {"name": name_of(n), "tenant": name_of(n), "password": {"value": f"{name_of(n)}-secret"}}
        for n in range(TENANTS)
    ] + [{"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}}]
    config["pool"] = {"mode": "transaction", "max": CLIENTS}
    assert Hunters(proxies(**config), ground, seed).hunt(STEPS) >= CLIENTS
