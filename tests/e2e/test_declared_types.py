"""Types that a Parse declares parameters to be of, by numbers: one's own and everybody's, no other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import either_isolation
from tests.pg_server import Server
from tests.wire_client import (
    SYNC,
    WireClient,
    bind,
    close_statement,
    describe_statement,
    errors,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
)

#: what only its owner may know: whether a row is there
KNOWN = """
SET ROLE beta_app;
CREATE FUNCTION beta.has(item text) RETURNS boolean LANGUAGE sql SECURITY DEFINER
    AS $$ SELECT EXISTS (SELECT FROM beta.orders o WHERE o.item = $1) $$;
CREATE DOMAIN beta.known AS text CHECK (beta.has(VALUE));
"""

OWN = """
SET ROLE acme_app;
CREATE PROCEDURE acme.committing(m acme.mood) LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
"""


@pytest.fixture(scope="module")
def numbers(pg: Server) -> Iterator[Callable[[str], int]]:
    with pg.connect() as conn:
        conn.execute(KNOWN)
        conn.execute("RESET ROLE")
        conn.execute(OWN)
        conn.execute("RESET ROLE")

        def number(name: str) -> int:
            found = conn.execute("SELECT %s::regtype::oid::int", [name]).fetchone()
            assert found is not None
            return int(found[0])

        yield number
        conn.execute("DROP DOMAIN beta.known; DROP FUNCTION beta.has; DROP PROCEDURE acme.committing")


@pytest.fixture(params=["dedicated", "shared", "session"])
def client(request, proxies, pg, numbers) -> Iterator[WireClient]:
    proxy: Proxy = (
        proxies(pool={"mode": "session"})
        if request.param == "session"
        else either_isolation(request.param, proxies, pg, 2)
    )
    with proxy.wire() as client:
        yield client


def given(client: WireClient, sql: str, number: int, value: str | None) -> list:
    return client.ask(parse(sql, types=[number]), bind(value), execute(), SYNC)


@pytest.mark.parametrize(
    ("name", "sql", "value"),
    [
        ("beta.known", "SELECT $1::text", "bolt"),
        ("beta.known", "SELECT $1::text", "none"),
        ("beta.known[]", "SELECT $1::text", "{none}"),
        ("beta.orders", "SELECT row_to_json($1)", "(1,x,1)"),
        ("beta.mood", "SELECT enum_range($1)", None),
    ],
)
def test_anothers(client, numbers, name, sql, value):
    for _ in range(2):
        (error,) = errors(given(client, sql, numbers(name), value))
        assert (error["C"], error["M"]) == ("42501", "permission denied for the type of a parameter")
    assert client.value("SELECT 1") == "1"
    # where it can't be asked for alone
    for before in ([parse("SELECT 1", "a"), bind(name="a"), execute()], [parse("BEGIN"), bind(), execute()]):
        given_b = parse(sql, "b", [numbers(name)]), bind(value, name="b"), execute()
        replies = client.ask(*before, *given_b, SYNC)
        assert sqlstates(replies) == ["42501"]
        client.query("ROLLBACK")
        client.ask(close_statement("a"), SYNC)
    assert sqlstates(client.ask(bind(value, name="b"), execute(), SYNC)) == ["26000"]


def test_one_of_anothers_among_ones_own(client, numbers):
    both = [numbers("acme.mood"), numbers("beta.mood")]
    assert sqlstates(client.ask(parse("SELECT $1, $2", types=both), SYNC)) == ["42501"]
    assert sqlstates(client.ask(parse("SELECT $1", types=both[:1]), SYNC)) == []


def test_ones_own(client, numbers):
    mood = numbers("acme.mood")
    assert rows(given(client, "SELECT enum_range($1)", mood, None)) == [("{good,bad}",)]
    assert rows(given(client, "SELECT $1::text", numbers("acme.orders"), "(1,x,1)")) == [("(1,x,1)",)]
    # what came before is still there
    replies = client.ask(
        parse("SELECT 1"),
        bind(portal="held"),
        parse("SELECT $1", "named", [numbers("acme.mood[]")]),
        describe_statement("named"),
        bind("{good}", name="named"),
        execute(),
        execute("held"),
        SYNC,
    )
    assert types(replies) == "12" + "1tT" + "2DC" + "DC" + "Z"


def test_the_unnamed_statement_outlives_the_question(client, numbers):
    client.ask(parse("SELECT 'kept'"), SYNC)
    assert sqlstates(client.ask(parse("SELECT $1", "other", [numbers("acme.promises")]), SYNC)) == []
    assert rows(client.ask(bind(), execute(), SYNC)) == [("kept",)]


def test_a_procedure_that_commits(client, numbers):
    """It may only if nothing has come before it in its batch."""
    assert sqlstates(given(client, "CALL committing($1)", numbers("acme.mood"), "good")) == []


def test_a_failed_transaction(client, numbers):
    client.query("BEGIN")
    client.query("SELECT 1/0")
    assert sqlstates(client.ask(parse("SELECT $1", types=[numbers("acme.scratch")]), SYNC)) == ["25P02"]
    assert sqlstates(client.ask(parse("ROLLBACK", types=[numbers("beta.mood")]), SYNC)) == []
    # its end is on its way
    foreign = parse("SELECT $1", types=[numbers("beta.mood")])
    client.send(query("ROLLBACK"), foreign, bind(None), execute(), SYNC)
    assert sqlstates(client.until_ready(2)) == ["42501"]
    client.query("BEGIN")
    client.query("SELECT 1/0")
    end = parse("ROLLBACK"), bind(), execute()
    assert sqlstates(client.ask(*end, foreign, bind(None), execute(), SYNC)) == ["42501"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT row_to_json(record_in('(1,x,1)', {orders}, -1))",
        "SELECT enum_in('good', {mood})",
        "SELECT array_in('{{none}}', {known}, -1)",
    ],
)
def test_values_by_the_number_of_their_type(client, numbers, sql):
    found = {name: numbers(f"beta.{name}") for name in ("orders", "mood", "known")}
    assert sqlstates(client.query(sql.format(**found))) == ["42501"]


def test_parameters_without_end(client, numbers):
    """Many of one type; and of more types than anybody has."""
    mood, foreign = numbers("acme.mood"), numbers("beta.mood")
    many = [mood, 23] * 30_000
    assert sqlstates(client.ask(parse("SELECT $1, $2", types=many), SYNC)) == []
    assert sqlstates(client.ask(parse("SELECT $1", types=[*many, foreign]), SYNC)) == ["42501"]
    for _ in range(2):
        assert sqlstates(client.ask(parse("SELECT 1", types=range(3_000_000, 3_060_000)), SYNC)) == ["54000"]
    assert sqlstates(client.ask(parse("SELECT 1", types=[*range(3_000_000, 3_000_063), foreign]), SYNC)) == [
        "42501"
    ]
    assert client.value("SELECT 1") == "1"
