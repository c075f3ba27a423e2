"""Statements whose results are others since definitions have changed: refused as in one's own session."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import either_isolation
from tests.pg_server import Server
from tests.wire_client import (
    SYNC,
    Message,
    WireClient,
    bind,
    close_statement,
    columns,
    describe_portal,
    describe_statement,
    execute,
    parse,
    rows,
    sqlstates,
    types,
)

CHANGES = {
    "none": [],
    "type": ["ALTER TABLE changing ALTER a TYPE text"],
    "modifier": ["ALTER TABLE changing ALTER b TYPE varchar(9)"],
    "more": ["ALTER TABLE changing ADD d int"],
    "fewer": ["ALTER TABLE changing DROP b"],
    "name": ["ALTER TABLE changing RENAME a TO z"],
    "another of the same name": ["ALTER TABLE changing DROP b", "ALTER TABLE changing ADD b varchar(4)"],
    "and back": ["ALTER TABLE changing ALTER a TYPE text", "ALTER TABLE changing ALTER a TYPE int USING 1"],
    "gone": ["DROP TABLE changing"],
    "nothing of the rows": ["CREATE INDEX ON changing (a)", "ALTER TABLE changing ALTER b SET DEFAULT 'x'"],
}
SELECT = "SELECT * FROM changing"
TOLD = {
    "by the statement": [describe_statement("s")],
    "by a portal": [bind(name="s"), describe_portal(), execute()],
}


@pytest.fixture(params=["dedicated", "shared", "workers"])
def proxy(request, proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    if request.param == "workers":
        return proxies(pool={"mode": "transaction", "max": 4}, workers=2)
    return either_isolation(request.param, proxies, pg, 2)


def said(replies: list[Message]) -> list[object]:
    described = [
        [(c.name, c.type, c.modifier) for c in columns(reply)] for reply in replies if reply.type == "T"
    ]
    # PostgreSQL describes the parameters before it looks at the plan
    return [types(replies).replace("tE", "E"), sqlstates(replies), rows(replies), described]


def conversation(
    open_client: Callable[[], WireClient], change: list[str], told: list[bytes], within: bool
) -> list[object]:
    """A client knows its statement from before another's changes; then a third has its backend."""
    heard = []
    with open_client() as client, open_client() as other, open_client() as third:
        other.query("DROP TABLE IF EXISTS changing")
        other.query("CREATE TABLE changing (a int, b varchar(4))")
        other.query("INSERT INTO changing VALUES (1, 'one')")
        heard += said(client.ask(parse(SELECT, "s"), *told, SYNC))
        for sql in change:
            assert sqlstates(other.query(sql)) == []
        third.query("BEGIN")
        third.query("SELECT 1")
        if within:
            client.query("BEGIN")
        for messages in (
            [bind(name="s"), execute()],
            [parse("SELECT 2"), bind(), execute(), bind(name="s"), execute()],
            [describe_statement("s")],
        ):
            heard += said(client.ask(*messages, SYNC))
        third.query("ROLLBACK")
        client.query("ROLLBACK")
        heard += said(client.ask(close_statement("s"), parse(SELECT, "s"), SYNC))
        heard += said(client.ask(bind(name="s"), describe_portal(), execute(), SYNC))
        other.query("DROP TABLE IF EXISTS changing")
    return heard


def test_results_that_would_be_others(proxy: Proxy, pg: Server):
    def directly() -> WireClient:
        return WireClient.open(pg.host, pg.port, search_path="acme, public")

    for name, told, within in itertools.product(CHANGES, TOLD, (False, True)):
        case = CHANGES[name], TOLD[told], within
        assert conversation(proxy.wire, *case) == conversation(directly, *case), (name, told, within)


# --- at random -------------------------------------------------------------------------

COLUMNS = ("a", "b", "c")
TYPES = ("int", "text", "varchar(5)", "varchar(7)", "bigint")
TEXTS = (
    "SELECT * FROM {}",
    "SELECT a FROM {}",
    "SELECT count(*) FROM {}",
    "INSERT INTO {} DEFAULT VALUES RETURNING *",
)


class Twins:
    """A client of the proxy and one of the server's: both say the same of a table each, and hear the same."""

    def __init__(self, proxied: WireClient, direct: WireClient) -> None:
        self.sides = [(proxied, "twin_p"), (direct, "twin_d")]
        self.began = False

    def __call__(self, *messages: Callable[[str], bytes]) -> list[object]:
        heard = [said(client.ask(*(one(table) for one in messages), SYNC)) for client, table in self.sides]
        assert heard[0] == heard[1]
        return heard[0]

    def query(self, sql: str) -> None:
        heard = [said(client.query(sql.format(table))) for client, table in self.sides]
        assert heard[0] == heard[1], sql


def change(choose: random.Random) -> str:
    column = choose.choice(COLUMNS)
    return "ALTER TABLE {} " + choose.choice(
        [
            f"ALTER {column} TYPE {choose.choice(TYPES)} USING NULL",
            f"DROP IF EXISTS {column}",
            f"ADD IF NOT EXISTS {column} {choose.choice(TYPES)}",
            f"RENAME {column} TO {choose.choice(COLUMNS)}",
            f"ALTER {column} SET DEFAULT NULL",
        ]
    )


def step(choose: random.Random, twins: Twins, everybody: list[Twins]) -> None:
    name = choose.choice(("s", "t", ""))
    match choose.choice(("prepare", "prepare", "run", "run", "run", "describe", "batch", "change", "begin")):
        case "prepare":
            text = choose.choice(TEXTS)
            twins(
                lambda _: close_statement(name),
                lambda table: parse(text.format(table), name),
                lambda _: describe_statement(name),
            )
        case "run":
            twins(lambda _: bind(name=name), lambda _: execute())
        case "describe":
            twins(lambda _: describe_statement(name))
        case "batch":
            twins(
                lambda _: bind(name="s"), lambda _: execute(), lambda _: bind(name="t"), lambda _: execute()
            )
        case "change":
            for one in everybody:
                if one.began:
                    # it would wait for their locks
                    one.query("ROLLBACK")
                    one.began = False
            twins.query(change(choose))
        case "begin" if twins.began or not any(one.began for one in everybody):
            twins.query("ROLLBACK" if twins.began else "BEGIN")
            twins.query("SELECT 1")
            twins.began = not twins.began


def test_at_random(proxy: Proxy, pg: Server):
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    print("seed", seed)
    with ExitStack() as stack:
        everybody = [
            Twins(
                stack.enter_context(proxy.wire(f"{tenant}_app")),
                stack.enter_context(
                    WireClient.open(
                        pg.host,
                        pg.port,
                        user=f"{tenant}_app",
                        password=f"{tenant}-secret",
                        search_path=f"{tenant}, public",
                    )
                ),
            )
            for tenant in ("acme", "beta")
            for _ in range(3)
        ]
        for number in (0, 3):
            everybody[number].query("CREATE TABLE {} (a int, b text)")
            everybody[number].query("INSERT INTO {} VALUES (1, 'one')")
        for _ in range(150):
            step(choose, choose.choice(everybody), everybody)
        for one in everybody:
            one.query("ROLLBACK")
        for number in (0, 3):
            everybody[number].query("DROP TABLE {}")
