"""Large statements of a tenant's clients together: only so much is kept until they are whole."""

from collections.abc import Iterator

import pytest

from tests.protocol.stage import Client, Server, Stage
from tests.protocol.wire import IDLE, SYNC, bind, complete, error, execute, parse, query, result

MIB = 1 << 20


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(max_statement_bytes=8 * MIB, max_gathered_bytes=4 * MIB)
    yield stage
    stage.close()


@pytest.fixture
def first(stage: Stage) -> tuple[Client, Server]:
    """Its statement is on its way."""
    client, server = stage.pair()
    client >> LARGE[: 2 * MIB]
    server << b""
    return client, server


LARGE = query("SELECT " + "x" * 3 * MIB)


def answered(client: Client, server: Server) -> None:
    assert server.take() == LARGE
    server >> complete("SELECT 1") + IDLE
    client << complete("SELECT 1") + IDLE


def test_one_may_have_any_size(stage: Stage):
    client, server = stage.pair()
    sql = query("SELECT " + "x" * 6 * MIB)
    client >> sql
    assert server.take() == sql


def test_what_is_too_much_is_refused_and_its_rest_dropped(stage: Stage, first):
    second = stage.client()
    second >> LARGE[:1000]
    second << error("53400") + IDLE
    second >> LARGE[1000:]
    # small ones go on
    client, server = first
    second >> query("SELECT 1")
    server << query("SELECT 1")
    server >> result("1")
    second << result("1")
    client >> LARGE[2 * MIB :]
    answered(client, server)
    second >> LARGE
    answered(second, server)


def test_in_the_extended_protocol(stage: Stage, first):
    second = stage.client()
    said = parse("", "SELECT " + "x" * 3 * MIB) + bind("") + execute() + SYNC
    second >> said[:1000]
    second << error("53400")
    second >> said[1000:]
    second << IDLE


def test_whoever_leaves_gives_room(stage: Stage, first):
    first[0].hangs_up()
    second = stage.client()
    second >> LARGE
    answered(second, first[1])
