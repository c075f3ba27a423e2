"""Statements whose results are others since definitions have changed: refused as in one's own session."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.e2e.test_shared import either_isolation
from tests.fix_proxy import Proxy
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
