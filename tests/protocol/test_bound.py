"""Values of parameters that name something: they are judged at Bind, wherever the statement was parsed.

Statements with "named" in them have such parameters; the value "evil" is refused, and "public" replaced.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenant_proxy.model import Effect
from tenant_proxy.wire.messages import bind_values, with_values
from tests.protocol.stage import Client, Hooks, Server, Session, Stage
from tests.protocol.wire import (
    BOUND,
    CLOSED,
    IDLE,
    PARSED,
    SYNC,
    bind,
    close,
    complete,
    error,
    execute,
    parse,
)


class Naming(Hooks):
    def judge(self, session: Session, scope: int, sql: bytes | None, client: int) -> int | bytes | None:
        effects = super().judge(session, scope, sql, client)
        if isinstance(effects, int) and sql is not None and b"named" in sql:
            effects |= Effect.BOUND
        return effects

    def bind(self, session: Session, scope: int, sql: bytes, values: bytes) -> tuple[bool, bytes] | None:
        assert b"named" in sql
        given = bind_values(values)
        if b"evil" in given.values():
            return True, error("42501")
        new = {number: b"acme" for number, value in given.items() if value == b"public"}
        return (False, with_values(values, new)) if new else None


@pytest.fixture(params=["transaction", "session"])
def stage(request) -> Iterator[Stage]:
    stage = Stage(hooks=Naming)
    stage.pool(session_mode=request.param == "session")
    yield stage
    stage.close()


@pytest.fixture
def pair(stage: Stage) -> tuple[Client, Server]:
    server = stage.idle_server()
    return stage.client(), server


DONE = BOUND + complete("SELECT 1") + IDLE


def prepared(client: Client, server: Server, sql: str, name: str = "s") -> str:
    """Has the statement on the server; its name there."""
    client >> parse(name, sql) + SYNC
    sent = server.take()
    server >> PARSED + IDLE
    client << PARSED + IDLE
    return sent[5 : sent.index(b"\0", 5)].decode()


@pytest.mark.parametrize("name", ["", "s"])
def test_a_value_is_refused_alone(pair, name):
    client, server = pair
    prepared(client, server, "SELECT named($1)", name)
    client >> bind(name, b"evil") + execute() + SYNC
    client << error("42501") + IDLE
    server << b""


@pytest.mark.parametrize("name", ["", "s"])
def test_others_go_on_and_may_be_replaced(pair, name):
    client, server = pair
    known_as = prepared(client, server, "SELECT named($1, $2)", name)
    client >> bind(name, b"mine", None, portal="p") + execute("p") + SYNC
    server << bind(known_as, b"mine", None, portal="p") + execute("p") + SYNC
    server >> DONE
    client << DONE
    client >> bind(name, None, b"public", b"x" * 300, portal="p") + execute("p") + SYNC
    server << bind(known_as, None, b"acme", b"x" * 300, portal="p") + execute("p") + SYNC


def test_in_pieces(pair):
    client, server = pair
    known_as = prepared(client, server, "SELECT named($1)")
    said = bind("s", b"public") + execute() + bind("s", b"evil") + SYNC
    for at in range(len(said)):
        client >> said[at : at + 1]
    server.take()
    server >> BOUND + complete("SELECT 1") + error("42601") + IDLE
    client << BOUND + complete("SELECT 1") + error("42501") + IDLE
    assert known_as


def test_a_value_is_refused_in_the_batch_of_its_parse(pair):
    client, server = pair
    client >> parse("s", "SELECT named($1)") + bind("s", b"evil") + execute() + SYNC
    server.take()
    server >> PARSED + error("42601") + IDLE
    client << PARSED + error("42501") + IDLE


def test_statements_without_such_parameters_are_not_asked_for(pair):
    client, server = pair
    known_as = prepared(client, server, "SELECT $1")
    client >> bind("s", b"evil") + SYNC
    server << bind(known_as, b"evil") + SYNC


@pytest.mark.parametrize("stage", ["session"], indirect=True)
@pytest.mark.parametrize("name", ["", "s"])
def test_a_parse_that_the_server_skips_hides_nothing(pair, name):
    """The server has the old statement still: what was said of the new one does not hold."""
    client, server = pair
    prepared(client, server, "SELECT named($1)", name)
    client >> parse("x", "bad") + parse(name, "SELECT $1") + SYNC
    server.take()
    server >> error("42601") + IDLE
    client << error("42601") + IDLE
    client >> bind(name, b"evil") + execute() + SYNC
    client << error("42501") + IDLE


@pytest.mark.parametrize("stage", ["session"], indirect=True)
@pytest.mark.parametrize("answer", [error("57014"), PARSED], ids=["canceled", "parsed"])
def test_an_unnamed_statement_is_gone_before_the_next_may_fail(pair, answer):
    """A cancel may come between the server's reading of a Parse and its dropping of what is there."""
    client, server = pair
    prepared(client, server, "SELECT named($1)", "")
    client >> parse("", "SELECT $1") + SYNC
    server << close("") + parse("", "SELECT $1") + SYNC
    server >> CLOSED + answer + IDLE
    client << answer + IDLE
    client >> parse("", "SELECT $1") + bind("", b"evil") + SYNC
    server << parse("", "SELECT $1") + bind("", b"evil") + SYNC


@pytest.mark.parametrize("stage", ["session"], indirect=True)
def test_a_parse_of_a_name_that_is_taken_hides_nothing(pair):
    client, server = pair
    prepared(client, server, "SELECT named($1)")
    client >> parse("s", "SELECT $1") + SYNC
    server.take()
    server >> error("42P05") + IDLE
    client << error("42P05") + IDLE
    client >> bind("s", b"evil") + execute() + SYNC
    client << error("42501") + IDLE


@pytest.mark.parametrize("stage", ["session"], indirect=True)
def test_a_closed_statement_is_forgotten_only_when_it_is_sure_to_be_closed(pair):
    client, server = pair
    prepared(client, server, "SELECT named($1)")
    client >> parse("x", "bad") + close("s") + SYNC
    server.take()
    server >> error("42601") + IDLE
    client.take()
    client >> bind("s", b"evil") + SYNC
    client << error("42501") + IDLE
    client >> close("s") + SYNC
    server.take()
    server >> CLOSED + IDLE
    client << CLOSED + IDLE
    prepared(client, server, "SELECT $1")
    client >> bind("s", b"evil") + SYNC
    server << bind("s", b"evil") + SYNC
