"""A leak hunter: random sessions of many tenants through few shared backends, each beside a direct one.

Every tenant has its mark in its rows, settings, sequences, statements and temporary tables.  What a client
gets through the proxy must be what a connection of its own to PostgreSQL gets for the same sequence, and no
answer may hold a mark of another's.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.e2e.test_shared import provide, shared_config
from tests.fix_proxy import PASSWORDS, Proxy
from tests.pg_server import Server

TENANTS = 12
#: a longer hunt: TP_LEAK_STEPS=100000
STEPS = int(os.environ.get("TP_LEAK_STEPS", "600"))
#: another hunt than the last: TP_LEAK_SEED=3
SEED = int(os.environ.get("TP_LEAK_SEED", "1"))
CLIENTS = 24
BACKENDS = 3


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

    def close(self) -> None:
        self.through.close()
        self.direct.close()


def actions(client: Client, chance: random.Random, may_begin: bool) -> str:
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
    chosen = chance.choice(choices)
    # who waits for a backend here waits for a client that is not asked meanwhile
    return "COMMIT" if chosen == "BEGIN" and not may_begin else chosen


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


def step(client: Client, chance: random.Random, may_begin: bool) -> None:
    sql = actions(client, chance, may_begin)
    through = outcome(client.through, sql)
    if through == "40001":
        # it began on a shared backend and must be tried again: both sides give it up
        assert client.through.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        client.through.execute("ROLLBACK")
        if client.direct.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            client.direct.execute("ROLLBACK")
        client.history.append(f"{sql} -> 40001")
        return
    direct = outcome(client.direct, sql)
    client.history.append(f"{sql} -> {through}")
    del client.history[:-30]
    assert through == direct, (
        f"of {client.tenant}, directly {direct}, through the proxy {through}:\n" + "\n".join(client.history)
    )
    foreign = set(MARK.findall(repr(through))) - {client.tenant}
    assert not foreign, "a mark of another's:\n" + "\n".join(client.history)


def hunt(proxy: Proxy, server: Server, steps: int, seed: int) -> int:
    chance = random.Random(seed)
    clients: list[Client] = []
    logins = 0
    try:
        for _ in range(steps):
            if len(clients) < CLIENTS:
                tenant = name_of(chance.randrange(TENANTS))
                clients.append(
                    Client(
                        tenant,
                        psycopg.connect(proxy.dsn(tenant, password=f"{tenant}-secret"), autocommit=True),
                        psycopg.connect(
                            server.dsn(user=tenant, password=f"{tenant}-secret", database="app"),
                            autocommit=True,
                        ),
                    )
                )
                logins += 1
            one = chance.choice(clients)
            if chance.random() < 0.02:
                clients.remove(one)
                one.close()
                continue
            step(one, chance, sum(map(is_open, clients)) < BACKENDS - 1)
    finally:
        for one in clients:
            one.close()
    return logins


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
    config["pool"] = {"mode": "transaction", "max": 10}
    assert hunt(proxies(**config), ground, STEPS, seed) >= CLIENTS
