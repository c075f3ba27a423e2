"""What workers count together of a tenant is taken back where it was counted, whatever comes between."""

from array import array
from collections.abc import Iterator

import pytest

from tenant_proxy.model import Effect
from tests.protocol.group import FLOOD, Group
from tests.protocol.rig import ALLOWED, IDLE, query

ACTIVE, CODED, TURNS = 1, 3, 5


class Counted(Group):
    """… with counters, of which a tenant has others when it has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = array("i", [0] * 8)
        self.engine.use_counters(memoryview(self.counts), 0, 1, 8)
        self.join()

    def join(self, moved: int = 0, group: int = 0) -> None:
        self.engine.pool_join(
            self.pools[FLOOD], group or self.group, weight=1, reserved=0, max=2,
            mark_index=0, active_index=ACTIVE + moved, coded_index=CODED + moved, turns_index=TURNS,
        )  # fmt: skip
        self.engine.pool_proven(self.pools[FLOOD], 1, self.counts[0])


@pytest.fixture
def group() -> Iterator[Counted]:
    group = Counted()
    yield group
    group.close()


def test_a_shared_backend_is_counted_as_before_its_tenant_moved(group: Counted):
    client = group.of(FLOOD)
    client.send(query("SELECT 1"))
    assert group.counts[ACTIVE] == group.counts[TURNS] == 1
    group.join(moved=1)
    group.arrived()
    group.pump()
    assert client.take().endswith(IDLE)
    assert not any(group.counts)
    client.send(query("SELECT 1"))
    assert list(group.counts) == [0, 0, 1, 0, 0, 1, 0, 0]
    client.sock.close()
    group.pump()
    assert not any(group.counts)


def test_so_is_one_of_its_own_on_which_code_may_be_changing(group: Counted):
    group.verdicts["DO x"] = ALLOWED | Effect.UNPROVEN
    client = group.of(FLOOD)
    client.send(query("DO x"))
    assert group.counts[CODED] == 1
    group.join(moved=1)
    group.arrived()
    group.pump()
    assert client.take().endswith(IDLE)
    assert not any(group.counts[1:])
