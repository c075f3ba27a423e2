"""A single short statement goes before a flood's that has come with it: to the server, and back."""

from collections.abc import Iterator

import pytest

from tests.protocol.group import FLOOD, QUIET, Group
from tests.protocol.rig import IDLE, query


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group()
    yield group
    group.close()


def test_a_single_statement_goes_before_a_floods_that_have_come_with_it(group: Group):
    flood = [group.of(FLOOD) for _ in range(4)]
    quiet = group.of(QUIET)
    clients = [*flood[:2], quiet, *flood[2:]]
    for text in ("first", "then"):
        for client in clients:
            client.sock.sendall(query(f"{text}: {'quiet' if client is quiet else 'flood'}"))
        group.pump()
        arrived = [words for words in group.arrived() if words.startswith(text)]
        group.pump()
        for client in clients:
            assert client.take().endswith(IDLE)
    assert sorted(arrived) == ["then: flood"] * 4 + ["then: quiet"]
    assert arrived[0] == "then: quiet"
