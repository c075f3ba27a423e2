"""Limits over all workers: a place is taken once, and comes back."""

import mmap
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_proxy import shm
from tenant_proxy.config.load import load_text
from tenant_proxy.pool.budget import GROWING, Budget
from tenant_proxy.served import Indexes
from tenant_proxy.shm import SharedCounters
from tenant_proxy.tenancy.registry import Registry

FILE = """
clusters:
  - {name: main, host: localhost, database: app, max_backends: 5}
tenants:
  - {name: acme, cluster: main, pool: {max: 3}}
  - {name: beta, cluster: main, pool: {max: 4}}
"""
SHARED_FILE = """
clusters:
  - {name: main, host: localhost, database: app, max_backends: 5, service: {user: shared, max_backends: 3}}
tenants:
  - {name: acme, cluster: main, isolation: shared, pool: {mode: transaction}}
"""
TENANTS = Registry.build(load_text(FILE, environ={}).config).tenants
ACME, BETA = TENANTS["acme"], TENANTS["beta"]
INDEXES = {"cluster:main": 0, "tenant:acme": 1, "tenant:beta": 2, "login:app": 3}


@pytest.fixture
def counters():
    counters = SharedCounters()
    yield counters
    counters.close()


def count(counters: SharedCounters, slot: int, place: int) -> None:
    """As the engine does."""
    with mmap.mmap(counters.fd, shm.SIZE_BYTES) as memory:
        at = shm.offset(slot, place)
        struct.pack_into("=i", memory, at, struct.unpack_from("=i", memory, at)[0] + 1)


@pytest.fixture
def workers(counters):
    return [Budget(counters.fd, slot, 3, INDEXES) for slot in range(3)]


def test_a_tenant_has_its_maximum_over_all_workers(workers):
    one, two, _ = workers
    assert [one.take(ACME), two.take(ACME), one.take(ACME)] == [True] * 3
    assert not one.take(ACME)
    assert not two.take(ACME)
    assert two.used("tenant:acme") == 3
    one.give_back(ACME)
    assert two.take(ACME)


@pytest.fixture
def sharing(counters):
    """Workers of a cluster with three shared backends of five in all."""
    config = load_text(SHARED_FILE, environ={}).config
    indexes = {"cluster:main": 0, "tenant:*main": 1, "reserved:main": 2, "tenant:acme": 3}
    workers = [Budget(counters.fd, slot, 3, indexes) for slot in range(3)]
    return workers, Registry.build(config).group_of(config.clusters[0])


def test_what_tenants_of_a_worker_have_reserved_no_other_worker_opens(sharing):
    (one, two, _), group = sharing
    two.reserve("main", 1)
    assert [one.take(group) for _ in range(3)] == [True, True, False]
    assert two.unopened("main") == 1
    assert two.take(group)
    assert not two.take(group)
    assert two.unopened("main") == 0


def test_what_was_reserved_and_is_no_more_is_anybodys(sharing):
    (one, two, _), group = sharing
    two.reserve("main", 2)
    assert [one.take(group) for _ in range(2)] == [True, False]
    two.reserve("main", 0)
    assert [one.take(group) for _ in range(3)] == [True, True, False]


def test_backends_of_a_tenants_own_leave_what_is_reserved(sharing):
    (one, two, _), _ = sharing
    two.reserve("main", 3)
    assert [one.take(ACME) for _ in range(3)] == [True, True, False]


def test_more_than_there_is_may_be_reserved(sharing):
    """Then who comes first has it."""
    (one, two, _), group = sharing
    one.reserve("main", 3)
    two.reserve("main", 3)
    assert [one.take(group), two.take(group), one.take(group), two.take(group)] == [True, True, True, False]


def test_a_cluster_has_its_maximum_over_all_tenants(workers):
    one, two, three = workers
    assert all(worker.take(ACME) for worker in (one, two, three))
    assert all(worker.take(BETA) for worker in (one, two))
    assert not three.take(BETA)
    # the tenant's place was not lost on the way
    assert three.used("tenant:beta") == 2
    assert three.used("cluster:main") == 5


def test_a_place_refused_by_the_tenant_is_not_the_clusters(workers):
    one, *_ = workers
    for _ in range(5):
        one.take(ACME)
    assert one.used("cluster:main") == 3


def test_what_a_dead_worker_held_is_free_again(workers, counters):
    one, two, _ = workers
    for _ in range(3):
        one.take(ACME)
    assert not two.take(ACME)
    counters.clear_row(0)
    assert two.take(ACME)


def test_what_only_grows_does_not_shrink_when_a_worker_dies(counters):
    """Another worker must not take code that has changed twice for what it read before the first time."""
    indexes = Indexes()
    shared = FILE.replace(
        "max_backends: 5", "max_backends: 5, service: {user: service, password: {value: x}}"
    )
    shared += "isolation: shared\npool: {mode: transaction}\n"
    indexes.of_config(load_text(shared, environ={}).config)
    one, two = (Budget(counters.fd, slot, 2, indexes.places) for slot in range(2))
    for name in GROWING:
        names = [each for each in indexes.places if each.startswith(f"{name}:")]
        assert len(names) == 2
        for each in names:
            count(counters, 0, indexes.places[each])
            seen = two.used(each)
            counters.clear_row(0, indexes.of_growing())
            assert two.used(each) == seen
            count(counters, 0, indexes.places[each])
            assert two.used(each) == seen + 1
    one.take(ACME)
    counters.clear_row(0, indexes.of_growing())
    assert two.used("tenant:acme") == two.used("cluster:main") == 0


def test_rows_of_workers_that_are_not_do_not_count(counters):
    Budget(counters.fd, 2, 3, INDEXES).take(ACME)
    assert Budget(counters.fd, 0, 2, INDEXES).used("tenant:acme") == 0


def test_a_name_without_a_place_in_the_table_is_not_counted(workers):
    """A tenant of a newer configuration than the supervisor's."""
    one, *_ = workers
    stranger = replace(ACME, name="stranger")
    for _ in range(4):
        assert one.take(stranger)
        one.give_back(stranger)
    assert one.used("tenant:stranger") == 0
    assert one.used("cluster:main") == 0


def test_new_indexes_are_taken(workers):
    one, *_ = workers
    one.indexes = INDEXES | {"tenant:stranger": 9}
    assert one.take(replace(ACME, name="stranger"))
    assert one.used("tenant:stranger") == 1


# --- clients ------------------------------------------------------------------------------


def test_a_client_has_a_place_under_each_name_or_none(workers):
    one, two, _ = workers
    limits = {"tenant:acme": 10, "login:app": 2}
    assert one.take_client(limits) is None
    assert two.take_client(limits) is None
    assert one.take_client(limits) == "login:app"
    assert one.used("tenant:acme") == 2
    two.give_back_client(limits)
    assert one.take_client(limits) is None


def test_no_limit_is_counted_all_the_same(workers):
    """So that a limit that a reload brings knows who is there."""
    one, two, _ = workers
    assert one.take_client({"login:app": 0}) is None
    assert two.take_client({"login:app": 1}) == "login:app"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["acme", "beta"]), st.booleans()), max_size=60))
def test_no_order_of_events_exceeds_a_limit_or_loses_a_place(events):
    shared = SharedCounters()
    try:
        workers = [Budget(shared.fd, slot, 3, INDEXES) for slot in range(3)]
        held: list[tuple[int, str]] = []
        for slot, tenant, takes in events:
            if takes:
                if workers[slot].take(TENANTS[tenant]):
                    held.append((slot, tenant))
            elif (slot, tenant) in held:
                held.remove((slot, tenant))
                workers[slot].give_back(TENANTS[tenant])
            for name, limit in (("acme", 3), ("beta", 4)):
                mine = sum(one == name for _, one in held)
                assert workers[0].used(f"tenant:{name}") == mine <= limit
            assert workers[0].used("cluster:main") == len(held) <= 5
    finally:
        shared.close()
