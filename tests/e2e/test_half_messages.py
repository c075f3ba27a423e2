"""Half of a message that keeps its server, and the other half together with what needs another server.

A server takes the bytes that come next for the rest of the message, whosesoever they are: they must be
just those.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import (
    FLUSH,
    SYNC,
    WireClient,
    bind,
    copy_data,
    execute,
    message,
    parse,
    query,
    rows,
    sqlstates,
    types,
)

#: takes a server of the tenant's own
OWN = query("CREATE TEMP TABLE t ()")
#: what would be run, were it read as a message
SMUGGLED = query(
    "RESET ROLE; SET ROLE beta_app; GRANT USAGE ON SCHEMA beta TO acme_app;"
    " GRANT SELECT ON beta.orders TO acme_app"
)


@pytest.fixture
def proxy(proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    """One shared backend; how `OWN` is judged is known, so that it waits for nothing."""
    provide(pg)
    proxy = proxies(**shared_config(pg))
    with proxy.wire() as client:
        client.ask(OWN)
    for user in ("acme_app", "beta_app"):
        with proxy.wire(user) as client:
            shares_again(pg, client)
    return proxy


def headed(size: int) -> bytes:
    """A CopyData of which so many bytes are still to come."""
    return b"d" + struct.pack("!I", 4 + 10 + size) + b"x" * 10


def unharmed(proxy: Proxy, pg: Server) -> None:
    """Nothing of it was run, and the neighbour's statements are its own."""
    with proxy.wire("beta_app") as beta:
        for number in range(3):
            assert types(beta.query(f"INSERT INTO scratch VALUES ({number}, current_user)")) == "CZ"
        assert rows(beta.query("SELECT DISTINCT body FROM scratch")) == [("beta_app",)]
        beta.query("TRUNCATE scratch")
    with pg.connect() as conn:
        found = conn.execute("SELECT has_table_privilege('acme_app', 'beta.orders', 'SELECT')").fetchone()
        assert found == (False,)


def with_half(client: WireClient, ahead: bytes, answered: str, half: bytes) -> None:
    """The client's server has half of a message."""
    client.send(ahead, half)
    client.until(answered)


def test_behind_what_is_answered_by_flush(proxy: Proxy, pg: Server):
    """Its Sync went ahead of the other half: by five bytes, what is inside became messages."""
    with proxy.wire() as client:
        with_half(client, parse("SELECT 1") + FLUSH, "1", headed(5))
        client.send(message("d", b"12345")[:5], copy_data(SMUGGLED), OWN)
        assert sqlstates(client.until_ready()) == []
    unharmed(proxy, pg)


@pytest.mark.parametrize("ahead", [query("SELECT 1"), parse("SELECT 1", "s") + SYNC], ids=["query", "sync"])
def test_behind_what_is_answered_by_sync(proxy: Proxy, pg: Server, ahead: bytes):
    """The server was given on in the middle of the message, and the other half went to the next one."""
    with proxy.wire() as first, proxy.wire() as client:
        # has the one of the tenant's own opened, and leaves it
        first.ask(OWN)
        first.query("DISCARD ALL")
        with_half(client, ahead, "Z", headed(len(SMUGGLED)))
        client.send(SMUGGLED, OWN)
        assert sqlstates(client.until_ready()) == []
        assert types(client.query("SELECT 1")) == "TDCZ"
    unharmed(proxy, pg)


def test_what_has_set_something_and_was_not_ended(proxy: Proxy):
    """Its Query needs another server: it is not held for an answer that nobody has asked for."""
    with proxy.wire() as client:
        client.send(parse("SET work_mem = '3MB'"), bind(), execute(), FLUSH)
        client.until("C")
        assert sqlstates(client.ask(OWN)) == ["40001"]
