"""What all pools of a worker know of a server that may be down."""

from __future__ import annotations

import pytest

from tenant_proxy.relay import reach as module
from tenant_proxy.relay.reach import MOST_S, Reach


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def fail(reach: Reach, clock: Clock, started: float | None = None) -> float:
    clock.now += 0.01
    return reach.failed(clock.now if started is None else started, "refused", 0.25, 15)


def test_pauses_grow_to_a_second(clock):
    reach = Reach()
    pauses = []
    for _ in range(6):
        pauses.append(fail(reach, clock))
        clock.now += pauses[-1]
        assert reach.backoff.wait_s() == 0
    assert 0.18 < pauses[0] < 0.32
    assert all(pause <= MOST_S * 1.25 for pause in pauses)
    assert pauses[-1] >= MOST_S * 0.75


def test_what_began_before_the_last_failure_counts_as_that(clock):
    reach = Reach()
    started = clock.now
    for _ in range(8):
        fail(reach, clock, started)
    assert reach.backoff.failures == 1


def test_once_reached_all_is_forgotten(clock):
    reach = Reach()
    fail(reach, clock)
    reach.trying = True
    assert reach.reached()
    assert not reach.reached()
    assert (reach.backoff.wait_s(), reach.trying) == (0, False)


def test_what_has_never_been_there_is_not_waited_for(clock):
    reach = Reach()
    fail(reach, clock)
    assert not reach.may_be_back(3)


def test_what_was_there_a_moment_ago_may_be_back(clock):
    reach = Reach()
    reach.reached()
    fail(reach, clock)
    clock.now += 2.9
    fail(reach, clock)
    assert reach.may_be_back(3)
    clock.now += 0.2
    assert not reach.may_be_back(3)


def test_after_a_failure_the_hosts_next_address_is_tried_and_kept_if_it_works(clock):
    reach = Reach()
    assert reach.pick(["a", "b"]) == "a"
    fail(reach, clock)
    assert reach.pick(["a", "b"]) == "b"
    reach.reached()
    assert reach.pick(["a", "b"]) == "b"
